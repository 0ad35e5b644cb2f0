"""Trainings of compression, and conversions, in several processes at once."""

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
    from export.compression.settings import Compression
    from export.graph import Graph


@dataclass(frozen=True)
class Job:
    """One file to convert: a device of a switch at a precision; with `float_output` an int8 file gives float32."""

    switch: Switch
    device: int
    precision: str
    float_output: bool = False

    def __str__(self) -> str:
        return f"switch '{self.switch}', device {self.device}, {self.precision}"


@dataclass(frozen=True)
class Training:
    """A switch to compress."""

    switch: Switch
    compression: Compression


@dataclass(frozen=True, eq=False)
class Conversion:
    """A job, and the weights that its slice was compressed to, both None if it was not."""

    job: Job
    compression: Compression | None = None
    weights: dict[str, np.ndarray] | None = None


def convert_all(
    model_file: Path,
    conversions: Sequence[Conversion],
    images: np.ndarray,
    processes: int,
    done: Callable[[Conversion, bytes, Graph], None],
) -> None:
    """Converts in several processes at once, each of which loads the model once.

    Args:
      model_file: the trained supernet, as saved by Keras.
      conversions: the files to convert.
      images: real images that set the ranges of int8 activations, uint8 (n, height, width, 3).
      processes: how many at most, at least 1.
      done: receives each file as it is finished, in any order.

    Raises:
      UserError: a conversion failed; the others are given up.
    """
    run_all(
        _convert_in_process,
        conversions,
        processes,
        lambda one, found: done(one, *found),
        _start_process,
        (model_file, images),
    )


def train_all(
    model_file: Path,
    trainings: Sequence[Training],
    images: np.ndarray,
    processes: int,
    done: Callable[[Training, Any], None],
) -> None:
    """Compresses switches in several processes at once, each of which loads the model once.

    Args:
      model_file, processes: as of `convert_all`.
      trainings: the switches to compress.
      images: what to train on, uint8 (n, height, width, 3).
      done: receives, as each is finished, the weights of its devices, as `export.compression.compress` gives them.

    Raises:
      UserError: a training failed; the others are given up.
    """
    run_all(_train_in_process, trainings, processes, done, _start_process, (model_file, images))


_process: dict[str, Any] = {}


def _start_process(model_file: Path, images: np.ndarray) -> None:
    # Imported here, so that a process can turn TensorFlow's start-up noise aside first.
    with program.quiet():
        from export import conversion
    _process.update(convert=conversion.convert_slice, model=load_model(model_file), images=images)


def _convert_in_process(one: Conversion) -> tuple[bytes, Graph]:
    if one.compression is None or one.weights is None:
        return _process["convert"](_process["model"], one.job, _process["images"])
    from export.compression import compress

    model, images = _process["model"], _process["images"]
    height, width, channels = images.shape[1:]
    slice_model = compress.rebuild(
        model, one.job.switch, one.job.device, one.compression, one.weights, (height, width, channels)
    )
    trained = one.compression.quantization_aware
    return _process["convert"](model, one.job, images, slice_model, ranges_are_trained=trained)


def _train_in_process(one: Training) -> Any:
    with program.quiet():
        from export.compression import compress

    def report(text: str) -> None:
        print(text, flush=True)

    return compress.compress(_process["model"], one.switch, one.compression, _process["images"], report)
