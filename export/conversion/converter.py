"""What every conversion to a .tflite file has in common."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from export.tflite import graph, operators
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.builders.architecture import Architecture
from paradis_tf.operations.pixels import NORMALIZED_RANGE, PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.supernet import Supernet

ImageShape = tuple[int, int, int]

# Zero point of the raw pixels of an int8 file.
_PIXEL_ZERO_POINT = 128


def create_converter(
    keras_model: Any, serve: Callable[..., Any], inputs: Sequence[tf.TensorSpec]
) -> tf.lite.TFLiteConverter:
    """The converter of a function of a model.

    Args:
      keras_model: of keras or tf_keras, whose variables the function reads.
      serve: from the inputs, in their order, to a dict of the outputs.
      inputs: the inputs, by whose names the file knows them.
    """
    # A module that holds the variables, and not the Keras model, whose variables come out empty.
    module = tf.Module()
    module.weights = [weight if isinstance(weight, tf.Variable) else weight.value for weight in keras_model.weights]
    module.serve = tf.function(serve, input_signature=list(inputs), autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
    # With a scale per output, tflite-runtime 2.14.0 does not know the operator of `dynamic` files, and on ARM crashes
    # in that of int8 files if there are few inputs or outputs.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter


def set_precision(converter: tf.lite.TFLiteConverter, precision: str) -> None:
    """Makes a converter one to float32, float16 or dynamic."""
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]


def set_int8(converter: tf.lite.TFLiteConverter, float_output: bool) -> None:
    """Makes a converter one to int8, whose image is uint8 and whose outputs are int8 or, if `float_output`, float32."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32 if float_output else tf.int8


def rounded_pixels(image: tf.Tensor) -> tf.Tensor:
    """The normalized image, rounded to what an int8 file computes with: raw pixels enter it as they are.

    The converter gives its input the scale 1/128 and zero point 128.
    """
    low, high = NORMALIZED_RANGE
    return tf.quantization.fake_quant_with_min_max_args(image, min=low, max=high, num_bits=8)


def normalized_pixels(image: tf.Tensor) -> tf.Tensor:
    """The normalized image, float32, of a raw one, uint8."""
    return tf.cast(image, tf.float32) * PIXEL_SCALE + PIXEL_OFFSET


def check(contents: graph.Graph, what: str, madds: int) -> None:
    """Raises UserError for a file that a plain runtime would not run, or of other multiply-adds than its network."""
    faults = operators.faults(contents)
    if faults:
        raise UserError(f"{what}: {' '.join(faults)}")
    if contents.madds != madds:
        raise UserError(f"{what}: the file has {contents.madds} multiply-adds, and the network {madds}.")


def check_int8_image(contents: graph.Graph, what: str) -> None:
    """Raises UserError where raw pixels are not the values of an int8 file's image."""
    image = next(tensor for tensor in contents.inputs if tensor.name == "image")
    if (image.scale, image.zero_point) != (PIXEL_SCALE, _PIXEL_ZERO_POINT):
        raise UserError(
            f"{what}: the file's input has scale {image.scale} and zero point {image.zero_point}; "
            f"raw pixels take {PIXEL_SCALE} and {_PIXEL_ZERO_POINT}."
        )


def failed(what: str, error: Exception) -> UserError:
    """The error of something that raised whatever the converter's passes raise."""
    return UserError(f"{what} failed: {' '.join(str(error).split())[:500]}")


def shape_of(images: np.ndarray) -> ImageShape:
    """(height, width, 3) of images."""
    _, height, width, channels = images.shape
    return height, width, channels


def resized(model: Supernet, image_shape: ImageShape) -> Architecture:
    """A network's architecture for images of another shape."""
    architecture: Any = model.architecture
    resized: Architecture = dataclasses.replace(architecture, image_shape=image_shape)
    return resized


@contextlib.contextmanager
def hushed() -> Iterator[None]:
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
