"""One device's slice of a supernet, or its tail, to the bytes of a .tflite file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export.conversion.job import SliceFile
from export.tflite import graph, halves, operators
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.builders.architecture import Architecture
from paradis_tf.builders.cost import Cost, cut_cost, tail_cost
from paradis_tf.builders.static import extract, extract_tail
from paradis_tf.operations.pixels import NORMALIZED_RANGE, PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

ImageShape = tuple[int, int, int]


def cost(model: Supernet, switch: Switch, device: int, image_shape: ImageShape) -> Cost:
    """What a slice costs for one image of a shape."""
    return cut_cost(_resized(model, image_shape), switch.cut(device))


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

    Raw pixels enter int8 as they are: the graph starts with a fake quantization of the normalized
    image to [-1, 127/128], so the converter gives its input scale 1/128 and zero point 128.
    """
    shape = _shape_of(images)
    try:
        with _hushed():
            if slice_model is None:
                slice_model = extract(
                    model, file.switch.cut(file.device), keras, normalized_input=True, image_shape=shape
                )
            output = model.task.output
            if file.precision == "int8":
                ranged = None if ranges_are_trained else images
                converter = int8_converter(slice_model, ranged, shape, output, file.float_output)
            else:
                converter = _float_converter(slice_model, file.precision, shape, output)
            data = halves.round_additions_alike(converter.convert())
        contents = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        raise _failed(f"conversion of {file}", error) from error
    _check(contents, str(file), cost(model, file.switch, file.device, shape).madds)
    image = contents.inputs[0]
    if file.precision == "int8" and (image.scale, image.zero_point) != (PIXEL_SCALE, 128):
        raise UserError(
            f"{file}: the file's input has scale {image.scale} and zero point {image.zero_point}; "
            f"raw pixels take {PIXEL_SCALE} and 128."
        )
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
        with _hushed():
            tail = extract_tail(model, keras, image_shape)
            summed = (1, *tail.inputs[1].shape[1:])

            def serve(image: tf.Tensor, summed: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"pixels": tail([tf.cast(image, tf.float32), summed], training=False)}

            inputs = [
                tf.TensorSpec((1, *image_shape), tf.uint8, name="image"),
                tf.TensorSpec(summed, tf.float32, name="summed"),
            ]
            data = _converter(tail, serve, inputs).convert()
        contents = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        raise _failed("conversion of the tail", error) from error
    _check(contents, "the tail", tail_cost(_resized(model, image_shape)).madds)
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
    low, high = NORMALIZED_RANGE

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.quantization.fake_quant_with_min_max_args(image, min=low, max=high, num_bits=8)
        return {output: slice_model(image, training=False)}

    def representative() -> Iterator[list[np.ndarray]]:
        for image in images if images is not None else ():
            yield [(image[np.newaxis].astype(np.float32) * PIXEL_SCALE + PIXEL_OFFSET).astype(np.float32)]

    converter = _converter(slice_model, serve, [tf.TensorSpec((1, *shape), tf.float32, name="image")])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if images is not None:
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32 if float_output else tf.int8
    return converter


def _float_converter(slice_model: Any, precision: str, shape: ImageShape, output: str) -> tf.lite.TFLiteConverter:
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        normalized = tf.cast(image, tf.float32) * PIXEL_SCALE + PIXEL_OFFSET
        return {output: slice_model(normalized, training=False)}

    converter = _converter(slice_model, serve, [tf.TensorSpec((1, *shape), tf.uint8, name="image")])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter


def _converter(keras_model: Any, serve: Callable[..., Any], inputs: Sequence[tf.TensorSpec]) -> tf.lite.TFLiteConverter:
    # A module that holds the variables, and not the Keras model, whose variables come out empty.
    module = tf.Module()
    module.weights = [weight if isinstance(weight, tf.Variable) else weight.value for weight in keras_model.weights]
    module.serve = tf.function(serve, input_signature=list(inputs), autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
    # With a scale per output, tflite-runtime 2.14.0 does not know the operator of `dynamic` files, and on ARM crashes
    # in that of int8 files if there are few inputs or outputs.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter


def _check(contents: graph.Graph, what: str, madds: int) -> None:
    faults = operators.faults(contents)
    if faults:
        raise UserError(f"{what}: {' '.join(faults)}")
    if contents.madds != madds:
        raise UserError(f"{what}: the file has {contents.madds} multiply-adds, and the network {madds}.")


def _failed(what: str, error: Exception) -> UserError:
    return UserError(f"{what} failed: {' '.join(str(error).split())[:500]}")


def _shape_of(images: np.ndarray) -> ImageShape:
    _, height, width, channels = images.shape
    return height, width, channels


def _resized(model: Supernet, image_shape: ImageShape) -> Architecture:
    architecture: Any = model.architecture
    resized: Architecture = dataclasses.replace(architecture, image_shape=image_shape)
    return resized


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keeps the converter's remarks to itself; what matters of them is checked on the file."""
    import absl.logging

    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            program.quiet(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        absl.logging.set_verbosity(level)
