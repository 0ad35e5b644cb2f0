"""Additions of int8 files keep off the halves, and the files compute what they did."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from export.tflite.halves import distance, round_additions_alike

# TensorFlow's own, of conversion and of its interpreter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs"),
    pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated"),
]
SHAPE = (1, 6, 6, 4)
RNG = np.random.default_rng(5)
IMAGES = RNG.uniform(-1, 1, (24, *SHAPE)).astype(np.float32)


def convert(adds: bool) -> bytes:
    """Convolution, residual block (or none), convolution; int8 from end to end."""
    head, middle, last = (RNG.normal(0, 0.3, (3, 3, 4, 4)).astype(np.float32) for _ in range(3))
    bias = np.array([0.5, -0.5, 0.1, 2], np.float32)

    @tf.function(input_signature=[tf.TensorSpec(SHAPE, tf.float32, name="x")], autograph=False)
    def net(x):
        x = tf.nn.conv2d(x, head, 1, "SAME") + bias
        x = x + tf.nn.conv2d(tf.nn.relu(x), middle, 1, "SAME") if adds else x
        return {"y": tf.nn.conv2d(x, last, 1, "SAME") + bias}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in IMAGES)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def parts(data: bytes) -> tuple[list, list]:
    """The scales and zero points of the addition's inputs and output, and those of the last convolution's."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph = model.subgraphs[0]
    found = {}
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        tensors = [graph.tensors[place].quantization for place in (*operation.inputs, *operation.outputs)]
        found[max(code.builtinCode, code.deprecatedBuiltinCode)] = [(one.scale, one.zeroPoint) for one in tensors]
    return found[schema.BuiltinOperator.ADD], found[schema.BuiltinOperator.CONV_2D]


def distance_of(data: bytes) -> float:
    (one, first), (two, second), (out, zero) = parts(data)[0]
    return distance((float(one[0]), float(two[0])), (int(first[0]), int(second[0])), float(out[0]), int(zero[0]))


def answers(data: bytes) -> np.ndarray:
    kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(model_content=data, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = taken["quantization"]
    made = []
    for image in IMAGES:
        interpreter.set_tensor(taken["index"], np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8))
        interpreter.invoke()
        made.append(interpreter.get_tensor(given["index"]).astype(int))
    return np.stack(made)


@pytest.mark.parametrize(
    ("scales", "scale", "expected"),
    [
        # Odd sums of halves; whole numbers; thirds; quarters.
        ((1.0, 1.0), 2.0, 0.0),
        ((3.0, 2.0), 1.0, 0.5),
        ((1.0, 3.0), 3.0, 1 / 6),
        ((1.0, 0.25), 1.0, 0.0),
        ((0.5, 2.0), 2.5, 0.1),
    ],
)
def test_distance_by_hand(scales, scale, expected):
    assert distance(scales, (0, 0), scale, 0) == pytest.approx(expected)


def test_sums_that_are_clipped_do_not_count():
    # Of 127.6 and more in steps of 0.5, and 0 where both are zero.
    assert distance((0.5, 1000.0), (-128, 0), 0.5, 0) == 0.5
    assert distance((1.0, 1000.0), (-128, 0), 2.0, -128) == 0.0


def test_an_addition_keeps_off_the_halves_and_the_answers_stay():
    converted = convert(adds=True)
    # All odd values of the first input are halves.
    data = bytearray(converted)
    graph = schema.Model.GetRootAsModel(data, 0).Subgraphs(0)
    first, out = parts(converted)[0][0][0][0], parts(converted)[0][2][0][0]
    for place in range(graph.TensorsLength()):
        quantization = graph.Tensors(place).Quantization()
        if quantization.ScaleLength() == 1 and quantization.Scale(0) == out:
            scale = quantization.ScaleAsNumpy()
            scale[0] = 2 * first
    halves = bytes(data)
    assert distance_of(halves) < 1e-6
    mended = round_additions_alike(halves)
    assert len(mended) == len(halves)
    assert distance_of(mended) > 2e-5
    (out, _), (taken, _), (weights, _), (bias, _) = (parts(mended)[0][2], *parts(mended)[1][:3])
    assert 2 * first < out[0] <= 2 * first * 1.01 + 1e-9
    assert taken[0] == out[0]
    assert bias == pytest.approx(parts(halves)[1][2][0] * (out[0] / (2 * first)), rel=1e-6)
    # Of the file as it was converted, its bias is of its input and weights.
    plain = round_additions_alike(converted)
    (taken, _), (weights, _), (bias, _) = parts(plain)[1][:3]
    assert bias == pytest.approx(taken[0] * weights, rel=1e-6)
    assert np.abs(answers(plain) - answers(converted)).max() <= 2
    assert (answers(plain) != answers(converted)).mean() < 0.3


def test_a_file_without_additions_stays_as_it_is():
    data = convert(adds=False)
    assert round_additions_alike(data) == data
