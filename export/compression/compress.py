"""Compresses the slices of a switch, and makes the slice models from what that gave."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from export.compression import clustering, folded, pruning, quantization, training
from export.compression.folded import Weights
from export.compression.settings import Compression
from fusion.base.program import UserError
from paradis_tf.operations.pixels import PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

# Each has `wrap`, which makes a model to be trained, and `finish`, which takes the weights from it.
_STAGES: dict[str, ModuleType] = {"pruning": pruning, "clustering": clustering, "quantization": quantization}


def compress(
    model: Supernet,
    switch: Switch,
    compression: Compression,
    images: np.ndarray,
    report: Callable[[str], None] = lambda text: None,
) -> list[Weights]:
    """Trains all slices of a switch together for what is asked: pruning, then clustering, then quantization.

    Each stage keeps what the one before it made. Nothing is learnt from labels; the float network teaches.

    Args:
      model: the trained supernet; not changed.
      switch: one of its switches.
      compression: what is asked.
      images: uint8 (n, height, width, 3), n at least 1, like those of training; of super-resolution of any size.
      report: is told how far it is.

    Returns:
      for each device its weights by `layer/weight`, which `rebuild` takes; the same for the same arguments on the same
      machine. Without quantization-aware training they are float weights of the folded slice model.

    Raises:
      UserError: images of a wrong shape, or a loss that is not finite; names switch, stage and step.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
        given = f"{images.dtype} {images.shape}"
        raise UserError(f"compression takes uint8 images (n, height, width, 3), n at least 1, and not {given}.")
    _, height, width, channels = images.shape
    image_shape = (height, width, channels)
    # Spread over all, which may be in the order of their classes.
    every = -(-len(images) // quantization.CALIBRATION_IMAGES)
    normalized = (images[::every] * PIXEL_SCALE + PIXEL_OFFSET).astype(np.float32)
    devices = range(switch.devices)
    teachers = [folded.fold(model, switch, device, image_shape=image_shape) for device in devices]
    weights = [folded.weights_of(teacher) for teacher in teachers]
    for stage in compression.stages:
        students = []
        for device in devices:
            start = folded.fold(model, switch, device, True, image_shape)
            folded.load(start, weights[device])
            students.append(_STAGES[stage].wrap(start, weights[device], compression, normalized))
        training.train(students, teachers, model.task, compression, images, stage, f"switch '{switch}'", report)
        weights = [_STAGES[stage].finish(student, compression) for student in students]
    return weights


def rebuild(
    model: Supernet,
    switch: Switch,
    device: int,
    compression: Compression,
    weights: Weights,
    image_shape: tuple[int, int, int] | None = None,
) -> Any:
    """A device's compressed slice model, for conversion.

    Args:
      model: the supernet that was compressed.
      switch: the switch that was compressed.
      device: index of the device in the switch.
      compression: as it was asked.
      weights: the device's, of what `compress` gave.
      image_shape: (height, width, 3) of the image; the architecture's if left out.

    Returns:
      a functional tf_keras model (batch, height, width, 3) float32 in [-1, 1) -> partial prediction, of stock layers;
      after quantization-aware training with fake quantization, whose ranges the converter takes.
    """
    slice_model = folded.fold(model, switch, device, image_shape=image_shape)
    folded.load(slice_model, weights)
    return quantization.restore(slice_model, weights) if compression.quantization_aware else slice_model
