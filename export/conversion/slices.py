"""One device's slice of a supernet, or its tail, to the bytes of a .tflite file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
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
from export.conversion.job import SliceFile
from export.tflite import graph, halves, multipliers
from paradis_tf.builders.cost import Cost, cut_cost, tail_cost
from paradis_tf.builders.static import extract, extract_tail
from paradis_tf.operations.pixels import PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch


def cost(model: Supernet, switch: Switch, device: int, image_shape: ImageShape) -> Cost:
    """What a slice costs for one image of a shape."""
    return cut_cost(resized(model, image_shape), switch.cut(device))


def convert_slice(
    model: Supernet,
    file: SliceFile,
    images: np.ndarray,
    slice_model: Any | None = None,
    ranges_are_trained: bool = False,
) -> tuple[bytes, graph.Graph]:
    """Converts one device's slice; batch 1, input `image` uint8, output `logits` or `residual`, partial.

    Args:
      model: the trained supernet.
      file: what to convert. Its precision is `float32`; `float16` (weights in 16 bits, computed in 32); `dynamic`
        (weights in 8 bits, activations quantized as they come, output float32); or `int8` (weights and activations,
        weights of convolutions per channel, input and output with the slice's own scale and zero point).
      images: uint8 (n, height, width, 3), real images that set the ranges of int8 activations; the file takes images
        of their size.
      slice_model: the model of keras or tf_keras to convert, of normalized input, in place of the one cut from `model`.
      ranges_are_trained: whether it has fake quantization of its own, whose ranges an int8 file takes.

    Returns:
      the file's bytes, the same for the same arguments, and what was read back from them.

    Raises:
      UserError: the converter failed, or made a file that a plain runtime would not run.
    """
    shape = shape_of(images)
    try:
        with hushed():
            if slice_model is None:
                slice_model = extract(
                    model, file.switch.cut(file.device), keras, normalized_input=True, image_shape=shape
                )
            output = model.task.output
            if file.precision == "int8":
                ranged = None if ranges_are_trained else images
                converter = int8_converter(slice_model, ranged, shape, output, file.float_output)
            else:
                converter = float_converter(slice_model, file.precision, shape, output)
            data = halves.round_additions_alike(converter.convert())
            data = multipliers.keep_below_one(data, images)
        contents = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        raise failed(f"conversion of {file}", error) from error
    check(contents, str(file), cost(model, file.switch, file.device, shape).madds)
    if file.precision == "int8":
        check_int8_image(contents, str(file))
    return data, contents


def convert_tail(model: Supernet, image_shape: ImageShape) -> tuple[bytes, graph.Graph]:
    """Converts the tail of an architecture: inputs `image` uint8 and `summed` float32, output `pixels` float32.

    Args:
      model: a trained supernet whose architecture has a tail.
      image_shape: (height, width, 3) of the image.

    Returns:
      the file's bytes, and what was read back from them. It is float32 whatever the slices are: it is a small part of
      the network, and what it makes of the sum is the answer.

    Raises:
      UserError: as `convert_slice`.
    """
    try:
        with hushed():
            tail = extract_tail(model, keras, image_shape)
            summed = (1, *tail.inputs[1].shape[1:])

            def serve(image: tf.Tensor, summed: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"pixels": tail([tf.cast(image, tf.float32), summed], training=False)}

            inputs = [
                tf.TensorSpec((1, *image_shape), tf.uint8, name="image"),
                tf.TensorSpec(summed, tf.float32, name="summed"),
            ]
            data = create_converter(tail, serve, inputs).convert()
        contents = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        raise failed("conversion of the tail", error) from error
    check(contents, "the tail", tail_cost(resized(model, image_shape)).madds)
    return data, contents


def int8_converter(
    slice_model: Any, images: np.ndarray | None, shape: ImageShape, output: str, float_output: bool = False
) -> tf.lite.TFLiteConverter:
    """The converter of a slice model to int8, as `convert_slice` uses it.

    Args:
      slice_model: as of `convert_slice`.
      images: representative images, uint8 (n, *shape); None takes the ranges of the model's own fake quantization.
      shape: (height, width, 3) of the image.
      output: the name of what it gives.
      float_output: whether the file's output is float32 and not int8.
    """

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: slice_model(rounded_pixels(image), training=False)}

    def representative() -> Iterator[list[np.ndarray]]:
        for image in images if images is not None else ():
            yield [(image[np.newaxis].astype(np.float32) * PIXEL_SCALE + PIXEL_OFFSET).astype(np.float32)]

    converter = create_converter(slice_model, serve, [tf.TensorSpec((1, *shape), tf.float32, name="image")])
    set_int8(converter, float_output)
    if images is not None:
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter


def float_converter(slice_model: Any, precision: str, shape: ImageShape, output: str) -> tf.lite.TFLiteConverter:
    """The converter of a slice model to float32, float16 or dynamic, as `convert_slice` uses it; arguments as of
    `int8_converter`."""

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: slice_model(normalized_pixels(image), training=False)}

    converter = create_converter(slice_model, serve, [tf.TensorSpec((1, *shape), tf.uint8, name="image")])
    set_precision(converter, precision)
    return converter
