"""The table of operator versions is what tflite-runtime 2.14.0 itself takes and refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from export.tflite import graph, operators

LOAD = """
import sys
from tflite_runtime.interpreter import Interpreter
for path in sys.argv[1:]:
    try:
        Interpreter(path)
        print(path, "loads")
    except ValueError as error:
        print(path, "refused" if "Didn't find op" in str(error) else error)
"""
KERNEL = np.ones((3, 3, 4, 4), np.float32)
IMAGE = tf.TensorSpec((1, 8, 8, 4))


def convert(function: Callable[..., Any], *specs: tf.TensorSpec, quantized: bool = False) -> bytes:
    module = tf.Module()
    module.function = tf.function(function, input_signature=specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.function.get_concrete_function()], module)
    if quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([np.ones((1, 8, 8, 4), np.float32)] for _ in range(2))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def with_version(data: bytes, operator: str, version: int) -> bytes:
    """A file whose operators of that kind claim to be of another version."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    number = getattr(schema.BuiltinOperator, operator)
    codes = [code for code in model.operatorCodes if max(code.builtinCode, code.deprecatedBuiltinCode) == number]
    assert codes
    for code in codes:
        code.version = version
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """A small file with each operator."""
    whole = convert(lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"), IMAGE, quantized=True)
    return {
        "ADD": convert(lambda x, y: x + y, IMAGE, IMAGE),
        "AVERAGE_POOL_2D": convert(lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME"), IMAGE),
        "CAST": convert(lambda x: tf.cast(x, tf.float32), tf.TensorSpec((1, 8), tf.uint8)),
        "CONCATENATION": convert(lambda x: tf.concat([x, x], -1), IMAGE),
        "CONV_2D": whole,
        "DEPTHWISE_CONV_2D": convert(lambda x: tf.nn.depthwise_conv2d(x, KERNEL[..., :1], [1] * 4, "SAME"), IMAGE),
        "DEPTH_TO_SPACE": convert(lambda x: tf.nn.depth_to_space(x, 2), IMAGE),
        "DEQUANTIZE": whole,
        "FULLY_CONNECTED": convert(lambda x: x @ KERNEL[0, 0], tf.TensorSpec((1, 4))),
        "HARD_SWISH": convert(lambda x: x * tf.nn.relu6(x + 3) * (1 / 6), IMAGE),
        "LOGISTIC": convert(tf.sigmoid, IMAGE),
        "MAX_POOL_2D": convert(lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"), IMAGE),
        "MEAN": convert(lambda x: tf.reduce_mean(x, [1, 2]), IMAGE),
        "MUL": convert(lambda x, y: x * y, IMAGE, IMAGE),
        "PAD": convert(lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), IMAGE),
        "QUANTIZE": whole,
        "RELU": convert(tf.nn.relu, IMAGE),
        "RELU6": convert(tf.nn.relu6, IMAGE),
        "RESHAPE": convert(lambda x: tf.reshape(x, [1, 256]), IMAGE),
        "RESIZE_BILINEAR": convert(lambda x: tf.image.resize(x, (16, 16)), IMAGE),
        "RESIZE_NEAREST_NEIGHBOR": convert(lambda x: tf.image.resize(x, (16, 16), "nearest"), IMAGE),
        "SOFTMAX": convert(tf.nn.softmax, IMAGE),
        "SPLIT": convert(lambda x: tf.split(x, 2, -1)[0] + tf.split(x, 2, -1)[1], IMAGE),
        "STRIDED_SLICE": convert(lambda x: x[..., 1:3], IMAGE),
        "SUB": convert(lambda x, y: x - y, IMAGE, IMAGE),
    }


def test_the_newest_versions_are_those_of_the_runtime(files: dict[str, bytes], tmp_path: Path) -> None:
    expected, paths = [], []
    for name, newest in operators.NEWEST_VERSIONS.items():
        for version, said in ((newest, "loads"), (newest + 1, "refused")):
            path = tmp_path / f"{name}_{version}.tflite"
            path.write_bytes(with_version(files[name], name, version))
            paths.append(str(path))
            expected.append(f"{path} {said}")
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected


def test_faults_are_named(files: dict[str, bytes]) -> None:
    assert operators.faults(graph.read(files["CONV_2D"])) == []
    newer = graph.read(with_version(files["FULLY_CONNECTED"], "FULLY_CONNECTED", 12))
    assert operators.faults(newer) == [
        "The file has FULLY_CONNECTED version 12; tflite-runtime 2.14.0 knows up to version 10."
    ]
    foreign = graph.read(convert(tf.cos, tf.TensorSpec((1, 4))))
    assert operators.faults(foreign)[0].startswith("The file has the operator COS; legal are ADD, AVERAGE_POOL_2D")


def test_a_batch_that_is_left_open_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has the open shape \[-1, 4\]"):
        graph.read(convert(lambda x: x + 1.0, tf.TensorSpec((None, 4))))


def test_memory_of_activations_is_counted_by_hand() -> None:
    # Two maps of 8 * 8 * 4 floats live at once; the sum of both needs the first a second time.
    def net(x: tf.Tensor) -> tf.Tensor:
        y = tf.nn.conv2d(x, KERNEL, 1, "SAME")
        return x + tf.nn.conv2d(y, KERNEL, 1, "SAME")

    assert graph.read(convert(net, IMAGE)).arena_bytes == 3 * 8 * 8 * 4 * 4
