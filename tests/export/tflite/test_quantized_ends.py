"""Inputs and outputs that stay quantized: the file computes what it did, without the operators at its ends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import tensorflow as tf

from export.tflite import graph
from export.tflite.quantized_ends import keep_quantized

pytestmark = [
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs"),
    pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated"),
]
SHAPE = (1, 4, 4, 3)
KERNEL = np.random.default_rng(1).normal(0, 0.4, (3, 3, 6, 3)).astype(np.float32)


def convert(output: tf.DType) -> bytes:
    """Two inputs joined and convolved; the sum's channels, and what was joined."""

    def rounded(tensor: tf.Tensor, most: float) -> tf.Tensor:
        return tf.quantization.fake_quant_with_min_max_args(tensor, min=-most, max=most)

    specs = [tf.TensorSpec(SHAPE, tf.float32, name=name) for name in ("image", "handed/one")]

    @tf.function(input_signature=specs, autograph=False)
    def net(image: tf.Tensor, one: tf.Tensor) -> dict[str, tf.Tensor]:
        joined = tf.concat([rounded(one, 1.0), rounded(image, 1.0)], -1)
        made = rounded(tf.nn.conv2d(joined, KERNEL, 1, "SAME"), 4.0)
        return {"made": made, "handed/two": joined}

    module = tf.Module()
    module.net = net
    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, output
    return bytes(converter.convert())


def answers(data: bytes, **inputs: np.ndarray) -> Mapping[str, np.ndarray]:
    kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(model_content=data, experimental_op_resolver_type=kernels)
    return interpreter.get_signature_runner()(**inputs)


@pytest.mark.parametrize("output", [tf.int8, tf.float32])
def test_named_ends_stay_int8_and_the_answers_are_the_same(output: tf.DType) -> None:
    data = convert(output)
    kept = keep_quantized(data, {"handed/one", "handed/two"})
    before, after = graph.read(data), graph.read(kept)
    types = {tensor.name: tensor.dtype for tensor in (*after.inputs, *after.outputs)}
    assert types == {"image": "uint8", "handed/one": "int8", "made": output.name, "handed/two": "int8"}
    quantize = ("QUANTIZE", 1)
    assert (before.operators[quantize], after.operators[quantize]) == (2, 1)
    assert after.operators["DEQUANTIZE", 2] == (0 if output == tf.int8 else 1)
    assert len(kept) <= len(data)

    pixels = np.random.default_rng(2).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    given = answers(data, **{"image": pixels[0], "handed/one": pixels[1]})
    found = answers(kept, **{"image": pixels[0], "handed/one": (pixels[1].astype(int) - 128).astype(np.int8)})
    np.testing.assert_array_equal(found["made"], given["made"])
    joined = np.concatenate([pixels[1], pixels[0]], -1).astype(int) - 128
    np.testing.assert_array_equal(found["handed/two"], joined)


def test_a_file_without_such_ends_is_the_same_network() -> None:
    data = convert(tf.int8)
    kept = keep_quantized(data, ())
    assert graph.read(kept) == graph.read(data)
