"""Conversions in several processes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paradis_tf import program
from paradis_tf.processes import run_all
from paradis_tf.records.workdir import load_model
from paradis_tf.switches import Switch

if TYPE_CHECKING:
    from export.graph import Graph

PRECISIONS = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True)
class Job:
    """One file to convert: a device of a switch at a precision; with `float_output` an int8 file gives float32."""

    switch: Switch
    device: int
    precision: str
    float_output: bool = False

    def __str__(self) -> str:
        return f"switch '{self.switch}', device {self.device}, {self.precision}"


def convert_all(
    model_file: Path,
    jobs: Sequence[Job],
    images: np.ndarray,
    processes: int,
    done: Callable[[Job, bytes, Graph], None],
) -> None:
    """Converts in several processes at once, each of which loads the model once.

    Args:
      model_file: the trained supernet, as saved by Keras.
      jobs: the files to convert.
      images: real images that set the ranges of int8 activations, uint8 (n, height, width, 3).
      processes: how many at most, at least 1.
      done: receives each file as it is finished, in any order.

    Raises:
      UserError: a conversion failed; the others are given up.
    """
    run_all(
        _convert_in_process, jobs, processes, lambda job, found: done(job, *found), _start_process, (model_file, images)
    )


_process: dict[str, Any] = {}


def _start_process(model_file: Path, images: np.ndarray) -> None:
    # Imported here, so that a process can turn TensorFlow's start-up noise aside first.
    with program.quiet():
        from export import conversion
    _process.update(convert=conversion.convert_slice, model=load_model(model_file), images=images)


def _convert_in_process(job: Job) -> tuple[bytes, Graph]:
    return _process["convert"](_process["model"], job, _process["images"])
