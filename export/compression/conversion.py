"""A slice model after quantization-aware training to the converter."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from paradis_tf.builders.operations import NORMALIZED_RANGE


def int8_converter(slice_model: Any, output: str = "logits", float_output: bool = False) -> tf.lite.TFLiteConverter:
    """The converter of a slice model after quantization-aware training, to int8.

    The file takes a batch of one: input `image` uint8 raw pixels, scale 1/128 and zero point 128.

    Args:
      slice_model: as `rebuild` gives it, with fake quantization of its kernels and activations.
      output: the name of what it gives.
      float_output: whether the file's output is float32 and not int8.

    Returns:
      a converter whose ranges are those of training; it needs no images.
    """
    low, high = NORMALIZED_RANGE

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.quantization.fake_quant_with_min_max_args(image, min=low, max=high, num_bits=8)
        return {output: slice_model(image, training=False)}

    # The converter finds the values of the variables by the module.
    module = tf.Module()
    module.variables_of_slice = slice_model.variables
    spec = tf.TensorSpec((1, *slice_model.input_shape[1:]), tf.float32, name="image")
    module.serve = tf.function(serve, input_signature=[spec], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32 if float_output else tf.int8
    return converter
