"""One device's slice of a supernet to the bytes of a .tflite file."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export import graph
from export.fusion.program import UserError
from export.jobs import Job
from paradis_tf import program
from paradis_tf.builders.cost import slice_cost
from paradis_tf.builders.operations import NORMALIZED_RANGE, PIXEL_OFFSET, PIXEL_SCALE
from paradis_tf.builders.static import extract
from paradis_tf.supernet import Supernet

_INT8_OPERATORS = {
    "ADD",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEQUANTIZE",
    "FULLY_CONNECTED",
    "MAX_POOL_2D",
    "MEAN",
    "QUANTIZE",
    # What the converter makes of a mean over one pixel.
    "RESHAPE",
}
_FLOAT_OPERATORS = _INT8_OPERATORS | {"CAST", "MUL", "SUB"}


def convert_slice(model: Supernet, job: Job, images: np.ndarray) -> tuple[bytes, graph.Graph]:
    """Converts one device's slice; batch 1, input `image` uint8, output `logits`, partial.

    Args:
      model: the trained supernet.
      job: what to convert; its precision is `float32` (output float32), or `int8` (weights, activations and output
        int8; weights of convolutions per channel; input and output carry the slice's own scale and zero point).
      images: uint8 (n, height, width, 3), real images that set the ranges of int8 activations.

    Returns:
      the file's bytes, the same for the same arguments, and what was read back from them.

    Raises:
      UserError: the converter failed, or made a file that a plain runtime would not run.

    Source: ours. Raw pixels enter int8 as they are: the graph starts with a fake quantization of the normalized
    image to [-1, 127/128], so the converter gives its input scale 1/128 and zero point 128.
    """
    make = {"int8": _int8_converter, "float32": _float_converter}[job.precision]
    try:
        with _hushed():
            data = make(model, job, images).convert()
        found = graph.read(data)
    except Exception as error:  # the converter raises whatever its passes raise
        reason = " ".join(str(error).split())
        raise UserError(f"conversion of {job} failed: {reason[:500]}") from error
    _check(model, job, found)
    return data, found


def _int8_converter(model: Supernet, job: Job, images: np.ndarray) -> tf.lite.TFLiteConverter:
    slice_model = extract(model, job.switch, job.device, keras, normalized_input=True)
    low, high = NORMALIZED_RANGE

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.quantization.fake_quant_with_min_max_args(image, min=low, max=high, num_bits=8)
        return {"logits": slice_model(image, training=False)}

    def representative() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [(image[np.newaxis].astype(np.float32) * PIXEL_SCALE + PIXEL_OFFSET).astype(np.float32)]

    converter = _converter(model, slice_model, serve, tf.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    return converter


def _float_converter(model: Supernet, job: Job, images: np.ndarray) -> tf.lite.TFLiteConverter:
    slice_model = extract(model, job.switch, job.device, keras)

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": slice_model(tf.cast(image, tf.float32), training=False)}

    return _converter(model, slice_model, serve, tf.uint8)


def _converter(
    model: Supernet, slice_model: Any, serve: Callable[[tf.Tensor], Any], dtype: tf.DType
) -> tf.lite.TFLiteConverter:
    # A module that holds the variables, and not the Keras model, whose variables come out empty.
    module = tf.Module()
    module.variables_of_slice = [weight.value for weight in slice_model.weights]
    shape = (1, *model.architecture.image_shape)
    module.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, dtype, name="image")], autograph=False)
    return tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)


def _check(model: Supernet, job: Job, found: graph.Graph) -> None:
    allowed = _INT8_OPERATORS if job.precision == "int8" else _FLOAT_OPERATORS
    foreign = sorted(found.operator_names - allowed)
    if foreign:
        raise UserError(f"{job}: the file has {', '.join(foreign)}; legal are {', '.join(sorted(allowed))}.")
    counted = slice_cost(model.architecture, job.switch.slices[job.device]).madds
    if found.madds != counted:
        raise UserError(f"{job}: the file has {found.madds} multiply-adds, and the slice {counted}.")
    if job.precision == "int8" and (found.input.scale, found.input.zero_point) != (PIXEL_SCALE, 128):
        raise UserError(
            f"{job}: the file's input has scale {found.input.scale} and zero point {found.input.zero_point}; "
            f"raw pixels take {PIXEL_SCALE} and 128."
        )


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
