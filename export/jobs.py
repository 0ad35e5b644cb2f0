"""Conversions in several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.fusion.program import UserError
from paradis_tf import program
from paradis_tf.switches import Switch
from paradis_tf.workdir import load_model

if TYPE_CHECKING:
    from export.graph import Graph

PRECISIONS = ("float32", "int8")


@dataclass(frozen=True)
class Job:
    """One file to convert: a device of a switch at a precision."""

    switch: Switch
    device: int
    precision: str

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
    pool = ProcessPoolExecutor(
        min(processes, len(jobs)),
        multiprocessing.get_context("spawn"),
        initializer=_start_process,
        initargs=(model_file, images),
    )
    try:
        futures: dict[Future[tuple[bytes, Graph]], Job] = {pool.submit(_convert_in_process, job): job for job in jobs}
        for future in as_completed(futures):
            data, found = future.result()
            done(futures[future], data, found)
    except BrokenProcessPool:
        raise UserError("a conversion process died, perhaps for want of memory; try --processes=1.") from None
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_process: dict[str, Any] = {}


def _start_process(model_file: Path, images: np.ndarray) -> None:
    # Ctrl-C reaches the whole group; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Imported here, so that a process can turn TensorFlow's start-up noise aside first.
    with program.quiet():
        from export import conversion
    _process.update(convert=conversion.convert_slice, model=load_model(model_file), images=images)


def _end_with_parent() -> None:
    """Waits for the parent's death, by whatever cause, and ends this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _convert_in_process(job: Job) -> tuple[bytes, Graph]:
    return _process["convert"](_process["model"], job, _process["images"])
