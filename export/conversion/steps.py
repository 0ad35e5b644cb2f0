"""One step of a triangular network to the bytes of a .tflite file."""

from __future__ import annotations

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
)
from export.conversion.job import Ranges, StepFile
from export.conversion.ranges import pin
from export.tflite import graph
from export.tflite.quantized_ends import keep_quantized
from paradis_tf.builders.cost import Cost, cut_cost
from paradis_tf.builders.static import unpinned
from paradis_tf.builders.steps import PREDICTION, StepModel, extract_step
from paradis_tf.levels import StepCut
from paradis_tf.supernet import Supernet


def step_cost(model: Supernet, step: StepCut, image_shape: ImageShape) -> Cost:
    """What a step costs for one image of a shape."""
    return cut_cost(resized(model, image_shape), step)


def convert_step(
    model: Supernet, file: StepFile, image_shape: ImageShape, ranges: Ranges | None
) -> tuple[bytes, graph.Graph]:
    """Converts one step; batch 1, inputs `image` uint8 and `handed/LAYER`, outputs `logits` and `handed/LAYER`.

    Args:
      model: the trained network of triangular levels.
      file: what to convert.
      image_shape: (height, width, 3) of the image.
      ranges: of an int8 file, from `calibrate`; the files of one network go together if they have the same ones.

    Returns:
      the file's bytes, the same for the same arguments, and what was read back from them. What is handed is float32, or
      in an int8 file int8, with one scale and zero point in the file that gives it and in the one that takes it.

    Raises:
      UserError: the converter failed, or made a file that a plain runtime would not run.
    """
    what = str(file)
    try:
        with hushed():
            pinned = unpinned if ranges is None else pin(model.architecture, file.step, ranges)
            step = extract_step(model, file.step, True, image_shape, pinned)
            data = _convert(step, file, image_shape, model.task.output)
        contents = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        raise failed(f"conversion of {what}", error) from error
    check(contents, what, step_cost(model, file.step, image_shape).madds)
    if file.precision == "int8":
        check_int8_image(contents, what)
    return data, contents


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
