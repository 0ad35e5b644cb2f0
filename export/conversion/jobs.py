"""Trainings of compression, and conversions, in several processes at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.conversion.job import Conversion, Job, Training
from paradis_tf.base import program
from paradis_tf.base.processes import run_all
from paradis_tf.records.workdir import load_model

if TYPE_CHECKING:
    from export.tflite.graph import Graph
    from paradis_tf.supernet import Supernet


def convert_all(
    model_file: Path,
    conversions: Sequence[Conversion],
    images: np.ndarray,
    processes: int,
    done: Callable[[Conversion, bytes, Graph], None],
) -> None:
    """Converts in several processes at once, each of which loads the model once and prints what it begins.

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
    """Compresses switches in several processes at once, each of which loads the model once and prints how far it is.

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
    _process.update(model_file=model_file, images=images)


def _model(what: Job | Training) -> Supernet:
    """The network, which a process loads for the first that it does."""
    if "model" not in _process:
        _say(f"{what}: loading TensorFlow and the network")
        # Imported here, so that a process can turn TensorFlow's start-up noise aside first.
        with program.quiet():
            from export.conversion import slices as conversion  # noqa: F401
        _process["model"] = load_model(_process["model_file"])
    model: Supernet = _process["model"]
    return model


def _convert_in_process(one: Conversion) -> tuple[bytes, Graph]:
    model, images = _model(one.job), _process["images"]
    trained = one.compression is not None and one.compression.quantization_aware
    ranged = one.job.precision == "int8" and not trained
    _say(f"{one.job}: tracing and converting" + (f", calibrating by {len(images):,} images" if ranged else ""))
    from export.conversion import slices as conversion

    if one.compression is None or one.weights is None:
        return conversion.convert_slice(model, one.job, images)
    from export.compression import compress

    height, width, channels = images.shape[1:]
    slice_model = compress.rebuild(
        model, one.job.switch, one.job.device, one.compression, one.weights, (height, width, channels)
    )
    return conversion.convert_slice(model, one.job, images, slice_model, ranges_are_trained=trained)


def _train_in_process(one: Training) -> Any:
    model, images = _model(one), _process["images"]
    _say(f"{one}: calibrating and tracing {', then '.join(one.compression.stages)}")
    with program.quiet():
        from export.compression import compress

    return compress.compress(model, one.switch, one.compression, images, _say)


def _say(text: str) -> None:
    # In one write, line end and all, so that lines of several processes do not mix.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
