"""Compressions and conversions in several processes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from export.conversion.job import CompressionJob, ConversionJob, SliceFile
from fusion.base.streams import say
from paradis_tf.base import program
from paradis_tf.base.keras_settings import settle
from paradis_tf.base.processes import run_all
from paradis_tf.records.workdir import load_model

if TYPE_CHECKING:
    from export.tflite.graph import Graph
    from paradis_tf.supernet import Supernet


def convert_all(
    model_file: Path,
    jobs: Sequence[ConversionJob],
    images: np.ndarray,
    processes: int,
    done: Callable[[ConversionJob, bytes, Graph], None],
) -> None:
    """Converts in several processes at once, each of which loads the model once and prints what it begins.

    Args:
      model_file: the trained supernet, as saved by Keras.
      jobs: the files to convert.
      images: real images that set the ranges of int8 activations, uint8 (n, height, width, 3).
      processes: how many at most, at least 1.
      done: receives each file as it is finished, in any order.

    Raises:
      UserError: a conversion failed, or its process died; the others are given up.
    """
    run_all(_convert, jobs, processes, lambda job, made: done(job, *made), _start_process, (model_file, images))


def compress_all(
    model_file: Path,
    jobs: Sequence[CompressionJob],
    images: np.ndarray,
    processes: int,
    done: Callable[[CompressionJob, Any], None],
) -> None:
    """Compresses switches in several processes at once, each of which loads the model once and prints how far it is.

    Args:
      model_file, processes: as of `convert_all`.
      jobs: the switches to compress.
      images: what to train on, uint8 (n, height, width, 3).
      done: receives, as each is finished, the weights of its devices, as `export.compression.compress` gives them.

    Raises:
      UserError: a training failed, or its process died; the others are given up.
    """
    run_all(_compress, jobs, processes, done, _start_process, (model_file, images))


# Of this process: the model's file, the images, and the model once a job has loaded it.
_process: dict[str, Any] = {}


def _start_process(model_file: Path, images: np.ndarray) -> None:
    _process.update(model_file=model_file, images=images)


def _model(job: SliceFile | CompressionJob) -> Supernet:
    """The network, which the first job of a process loads."""
    if "model" not in _process:
        _print(f"{job}: loading TensorFlow and the network")
        # Imported here, so that a process can turn TensorFlow's start-up noise aside first.
        with program.quiet():
            from export.conversion import slices as conversion  # noqa: F401
        _process["model"] = load_model(_process["model_file"])
    model: Supernet = _process["model"]
    return model


def _convert(job: ConversionJob) -> tuple[bytes, Graph]:
    model, images = _model(job.file), _process["images"]
    trained = job.compression is not None and job.compression.quantization_aware
    calibrates = job.file.precision == "int8" and not trained
    _print(f"{job}: tracing and converting" + (f", calibrating by {len(images):,} images" if calibrates else ""))
    from export.conversion import slices as conversion

    if job.compression is None or job.weights is None:
        return conversion.convert_slice(model, job.file, images)
    height, width, channels = images.shape[1:]
    slice_model = _compression().rebuild(
        model, job.file.switch, job.file.device, job.compression, job.weights, (height, width, channels)
    )
    return conversion.convert_slice(model, job.file, images, slice_model, ranges_are_trained=trained)


def _compress(job: CompressionJob) -> Any:
    model, images = _model(job), _process["images"]
    _print(f"{job}: calibrating and tracing {', then '.join(job.compression.stages)}")
    return _compression().compress(model, job.switch, job.compression, images, _print)


def _compression() -> ModuleType:
    with program.quiet():
        import tf_keras

        from export.compression import compress
    settle(tf_keras)
    return compress


def _print(text: str) -> None:
    # In one write, line end and all, so that lines of several processes do not mix.
    say(f"{text}\n", end="")
