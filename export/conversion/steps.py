"""One step of a triangular network to the bytes of a .tflite file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from export.conversion.converter import (
    ImageShape,
    check,
    check_int8_image,
    create_converter,
    failed,
    hushed,
    normalized_pixels,
    resized,
    rounded_pixels,
    set_int8,
    set_precision,
    shape_of,
)
from export.conversion.job import Ranges, StepFile
from export.conversion.ranges import pin
from export.tflite import graph, multipliers
from export.tflite.quantized_ends import keep_quantized
from paradis_tf.builders.cost import Cost, cut_cost
from paradis_tf.builders.static import unpinned
from paradis_tf.builders.steps import PREDICTION, StepModel, extract_step
from paradis_tf.levels import StepCut
from paradis_tf.operations.pixels import PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.supernet import Supernet


def step_cost(model: Supernet, step: StepCut, image_shape: ImageShape) -> Cost:
    """What a step costs for one image of a shape."""
    return cut_cost(resized(model, image_shape), step)


def convert_step(
    model: Supernet, file: StepFile, images: np.ndarray, ranges: Ranges | None
) -> tuple[bytes, graph.Graph]:
    """Converts one step; batch 1, inputs `image` uint8 and `handed/LAYER`, outputs `logits` and `handed/LAYER`.

    Args:
      model: the trained network of triangular levels.
      file: what to convert.
      images: representative images, uint8 (n, height, width, 3); the file takes images of their size.
      ranges: of an int8 file, from `calibrate`; the files of one network go together if they have the same ones.

    Returns:
      the file's bytes, the same for the same arguments, and what was read back from them. What is handed is float32, or
      in an int8 file int8, with one scale and zero point in the file that gives it and in the one that takes it.

    Raises:
      UserError: the converter failed, or made a file that a plain runtime would not run.
    """
    what, image_shape = str(file), shape_of(images)

    def extract(cut: StepCut) -> StepModel:
        pinned = unpinned if ranges is None else pin(model.architecture, cut, ranges)
        return extract_step(model, cut, True, image_shape, pinned)

    def handed(images: np.ndarray) -> dict[str, np.ndarray]:
        return _handed([extract(cut) for cut in model.steps[: file.step.step - 1]], images)

    try:
        with hushed():
            data = _convert(extract(file.step), file, image_shape, model.task.output)
            data = multipliers.keep_below_one(data, images, handed)
        contents = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        raise failed(f"conversion of {what}", error) from error
    check(contents, what, step_cost(model, file.step, image_shape).madds)
    if file.precision == "int8":
        check_int8_image(contents, what)
    return data, contents


def _handed(steps: Sequence[StepModel], images: np.ndarray) -> dict[str, np.ndarray]:
    """What the last of the first steps hands on for images, float32 (n, ...), by names."""
    normalized = images * np.float32(PIXEL_SCALE) + np.float32(PIXEL_OFFSET)
    handed: dict[str, np.ndarray] = {}
    for step in steps:
        made = step.model([normalized, *(handed[name] for name in step.handed)], training=False)
        handed = {name: tensor.numpy() for name, tensor in made.items() if name != PREDICTION}
    return handed


def _convert(step: StepModel, file: StepFile, image_shape: ImageShape, output: str) -> bytes:
    is_int8 = file.precision == "int8"
    prepared = rounded_pixels if is_int8 else normalized_pixels

    def serve(image: tf.Tensor, *handed: tf.Tensor) -> dict[str, tf.Tensor]:
        made = step.model([prepared(image), *handed], training=False)
        return {output if name == PREDICTION else name: tensor for name, tensor in made.items()}

    inputs = [tf.TensorSpec((1, *image_shape), tf.float32 if is_int8 else tf.uint8, name="image")]
    inputs += [
        tf.TensorSpec((1, *tensor.shape[1:]), tf.float32, name=name)
        for name, tensor in zip(step.handed, step.model.inputs[1:], strict=True)
    ]
    converter = create_converter(step.model, serve, inputs)
    if not is_int8:
        set_precision(converter, file.precision)
        return bytes(converter.convert())
    set_int8(converter, file.float_output)
    return keep_quantized(converter.convert(), {*step.handed, *step.model.output} - {PREDICTION})
