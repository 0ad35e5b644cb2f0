"""Channels that died in training: their files are scaled alike by all kernels, load, and answer as they did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from export.conversion.job import SliceFile
from export.conversion.slices import convert_slice, int8_converter
from export.emulation import boards, installation
from export.tflite import graph, operators
from export.tflite.multipliers import keep_below_one
from paradis_tf.builders.static import extract
from paradis_tf.supernet import Supernet
from tests.conftest import TinyNet, randomize
from tests.export.dead_channels import dead_net

# TensorFlow's own, of conversion and of its interpreter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs"),
    pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated"),
]
IMAGES = np.random.default_rng(4).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
# What loads and runs a file, in a process that holds no TensorFlow.
RUN = """
import importlib, sys
import numpy as np
interpreter = importlib.import_module(f"{sys.argv[1]}.interpreter").Interpreter(sys.argv[2], num_threads=1)
interpreter.allocate_tensors()
answers = []
for image in np.load(sys.argv[3]):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
    interpreter.invoke()
    answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
np.save(sys.argv[4], np.stack(answers))
"""


def converted(model: Supernet) -> bytes:
    """The slice as the converter gives it."""
    slice_model = extract(model, model.switches[0].cut(0), keras, normalized_input=True)
    return int8_converter(slice_model, IMAGES, (8, 8, 3), "logits").convert()


class File:
    """What a test has to know of a file."""

    def __init__(self, data: bytes) -> None:
        self.model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
        self.tensors = self.model.subgraphs[0].tensors
        shapes = {place: list(tensor.shape) for place, tensor in enumerate(self.tensors)}
        operations = self.model.subgraphs[0].operators
        self.depthwise: Any = next(
            (one for one in operations if len(one.inputs) > 2 and shapes[one.inputs[1]] == [1, 3, 3, 8]), None
        )
        kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
        self.run = tf.lite.Interpreter(
            model_content=data, experimental_op_resolver_type=kernels, experimental_preserve_all_tensors=True
        )
        self.run.allocate_tensors()

    def values(self, place: int, image: np.ndarray) -> np.ndarray:
        self.run.set_tensor(self.run.get_input_details()[0]["index"], image[np.newaxis])
        self.run.invoke()
        return self.run.get_tensor(place)[0].astype(np.int64)

    def answers(self) -> np.ndarray:
        return np.stack([self.values(self.run.get_output_details()[0]["index"], image) for image in IMAGES])

    @property
    def multipliers(self) -> np.ndarray:
        places = (*self.depthwise.inputs[:2], self.depthwise.outputs[0])
        taken, weights, given = (np.array(self.tensors[place].quantization.scale, np.float64) for place in places)
        return taken * weights / given

    def scaled_in_two_steps(self, image: np.ndarray) -> np.ndarray:
        """What the depthwise convolution gives where accumulators are first multiplied by 0.5 to 1, then shifted."""
        taken, weights, bias = (self.tensors[place] for place in self.depthwise.inputs)
        zero, given_zero = taken.quantization.zeroPoint[0], self.tensors[self.depthwise.outputs[0]].quantization
        kernel = self.model.buffers[weights.buffer].data.view(np.int8).reshape(3, 3, 8).astype(np.int64)
        padded = np.pad(self.values(self.depthwise.inputs[0], image) - zero, [(1, 1), (1, 1), (0, 0)])
        height, width = padded.shape[0] - 2, padded.shape[1] - 2
        sums = self.model.buffers[bias.buffer].data.view(np.int32) + sum(
            padded[row : row + height, column : column + width] * kernel[row, column]
            for row, column in np.ndindex(3, 3)
        )
        fractions, shifts = np.frexp(self.multipliers)
        scaled = np.floor(np.floor(sums * fractions + 0.5) * 2.0**shifts + 0.5)
        # ReLU6 ends where the codes do.
        return np.clip(scaled + given_zero.zeroPoint[0], -128, 127)


# Some steps of the output to one of the accumulator; more than XNNPACK takes; just more than one.
@pytest.mark.parametrize(("gain", "steady"), [(1.5, 2.0), (200.0, 1.0), (0.6, 3.0)])
def test_a_dead_channel_gives_what_it_gave_by_a_scale_that_all_kernels_take(gain: float, steady: float) -> None:
    model = dead_net(gain, steady)
    before = converted(model)
    assert set(np.flatnonzero(File(before).multipliers >= 1)) == {3, 6}
    assert "channel with the multiplier" in operators.faults(graph.read(before))[-1]
    after, contents = convert_slice(model, SliceFile(model.switches[0], 0, "int8"), IMAGES)
    assert operators.faults(contents) == []
    assert after == keep_below_one(before, IMAGES)
    assert len(after) == len(before)
    old, new = File(before), File(after)
    healthy = [0, 1, 2, 4, 5, 7]
    assert new.multipliers[healthy].tolist() == old.multipliers[healthy].tolist()
    assert new.multipliers[[3, 6]] == pytest.approx(0.99, rel=1e-6)
    (taken, weights), bias = (old.tensors[place] for place in old.depthwise.inputs[:2]), new.depthwise.inputs[2]
    assert len(weights.quantization.scale) == 8
    new_weights = np.array(new.tensors[new.depthwise.inputs[1]].quantization.scale)
    assert new.tensors[bias].quantization.scale == pytest.approx(taken.quantization.scale[0] * new_weights, rel=1e-6)
    np.testing.assert_array_equal(new.answers(), old.answers())
    for image in IMAGES[:4]:
        expected = new.values(new.depthwise.outputs[0], image)
        np.testing.assert_array_equal(expected, old.values(old.depthwise.outputs[0], image))
        assert np.abs(new.scaled_in_two_steps(image) - expected).max() <= 1


def test_a_multiplier_above_one_is_what_kernels_differ_in() -> None:
    # The channel gives 0.12, which is 5 steps of the output.
    file = File(converted(dead_net(1.5, 0.0)))
    expected = file.values(file.depthwise.outputs[0], IMAGES[0])
    assert np.abs(file.scaled_in_two_steps(IMAGES[0]) - expected)[..., 3].max() > 1


def test_xnnpack_loads_a_file_that_it_refused(tmp_path: Path) -> None:
    before = converted(dead_net(200.0, 1.0))
    np.save(tmp_path / "images.npy", IMAGES)
    answers = {}
    for name, data in (("before", before), ("after", keep_below_one(before, IMAGES))):
        file = tmp_path / f"{name}.tflite"
        file.write_bytes(data)
        arguments = [str(file), str(tmp_path / "images.npy"), str(tmp_path / f"{name}.npy")]
        done = subprocess.run([sys.executable, "-c", RUN, "ai_edge_litert", *arguments], capture_output=True, text=True)
        answers[name] = done.returncode, done.stderr
    assert answers["before"][0] != 0
    assert "XNNPACK" in answers["before"][1]
    assert answers["after"][0] == 0, answers["after"][1]
    # XNNPACK rounds otherwise in every layer.
    assert np.abs(np.load(tmp_path / "after.npy") - File(before).answers()).max() <= 3


def test_a_file_without_dead_channels_stays_as_it_is() -> None:
    model = randomize(Supernet(TinyNet(), ("1.0",)))
    before = converted(model)
    assert keep_below_one(before, IMAGES) is before
    for precision in ("float32", "float16", "dynamic"):
        _, contents = convert_slice(model, SliceFile(model.switches[0], 0, precision), IMAGES)
        assert contents.largest_multiplier == 0


def small_file(net: Any) -> bytes:
    """A file of images (1, 4, 4, 4) that are all 1, in int8 from end to end."""
    module = tf.Module()
    module.net = tf.function(
        net, input_signature=[tf.TensorSpec((1, 4, 4, 4), tf.float32, name="image")], autograph=False
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.net.get_concrete_function()], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.ones((1, 4, 4, 4), np.float32)] for _ in range(2))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter.convert()


def with_weight_scales(data: bytes, place: int, factor: Any) -> bytes:
    """A file whose operation at a place has its weights' scales, and its bias', times a factor."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    contents = model.subgraphs[0]
    for tensor in contents.operators[place].inputs[1:]:
        if tensor >= 0:
            quantization = contents.tensors[tensor].quantization
            quantization.scale = (np.array(quantization.scale) * factor).astype(np.float32)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def test_a_bias_that_layers_share_changes_for_one_of_them() -> None:
    first = np.full((1, 1, 4, 4), 0.5, np.float32)
    second = np.linspace(0.1, 0.9, 36, dtype=np.float32).reshape(3, 3, 4, 1)

    def net(x: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.nn.relu6(tf.nn.conv2d(x, first, 1, "SAME"))
        return {"y": tf.nn.relu6(tf.nn.depthwise_conv2d(x, second, [1] * 4, "SAME"))}

    data = with_weight_scales(small_file(net), 1, [1, 5000, 1, 1])
    file = File(data)
    assert len({file.tensors[one.inputs[2]].buffer for one in file.model.subgraphs[0].operators}) == 1
    images = np.full((3, 4, 4, 4), 100, np.int8)
    mended = flatbuffer_utils.read_model_from_bytearray(bytearray(keep_below_one(data, images)))
    contents = mended.subgraphs[0]
    biases = [mended.buffers[contents.tensors[one.inputs[2]].buffer].data for one in contents.operators]
    assert biases[0].view(np.int32).tolist() == [0] * 4
    # It gave the largest code, and goes on to: 255 steps.
    changed = biases[1].view(np.int32)
    assert changed[[0, 2, 3]].tolist() == [0] * 3
    assert 230 <= changed[1] <= 258
    assert File(keep_below_one(data, images)).values(contents.outputs[0], images[0])[..., 1].tolist() == [[127] * 4] * 4


def test_a_dense_layer_without_a_bias_gets_one() -> None:
    # Of inputs of one step the outputs are some 20, -10 and 10.
    weights = np.array([[1, 0.5, 0.3], [-1, -0.6, -0.2], [0.1, 0, -0.05], [0.05, 0.02, 0]], np.float32)
    data = small_file(lambda x: {"y": tf.reduce_mean(x, [1, 2]) @ weights})
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    (place,) = [at for at, one in enumerate(model.subgraphs[0].operators) if len(one.inputs) > 1 and one.inputs[-1] < 0]
    data = with_weight_scales(data, place, 40)
    assert graph.read(data).largest_multiplier >= 1
    images = np.full((3, 4, 4, 4), -127, np.int8)
    mended = keep_below_one(data, images)
    assert graph.read(mended).largest_multiplier < 1
    old, new = File(data), File(mended)
    outputs = model.subgraphs[0].outputs[0]
    given = old.values(outputs, images[0]) - model.subgraphs[0].tensors[outputs].quantization.zeroPoint[0]
    assert np.all((np.abs(given) > 5) & (np.abs(given) < 40))
    np.testing.assert_array_equal(new.values(outputs, images[0]), old.values(outputs, images[0]))


@pytest.mark.slow
def test_emulated_boards_give_what_reference_kernels_do(tmp_path: Path) -> None:
    """Downloads 250 MB where no board is set up yet."""
    before = converted(dead_net(1.5, 0.0))
    np.save(tmp_path / "images.npy", IMAGES)
    apart = {}
    made = installation.set_up(["aarch64", "armhf"])
    for name, data in (("before", before), ("after", keep_below_one(before, IMAGES))):
        file, expected = tmp_path / f"{name}.tflite", File(data).answers()
        file.write_bytes(data)
        for board in made:
            answers = tmp_path / f"{name}_{board.name}.npy"
            arguments = ["-c", RUN, "tflite_runtime", str(file), str(tmp_path / "images.npy"), str(answers)]
            done = boards.run(board, arguments, timeout_s=1200)
            assert done.returncode == 0, done.stderr
            apart[name, board.name] = int(np.abs(np.load(answers) - expected).max())
    assert apart["after", "aarch64"] <= 1
    assert apart["after", "armhf"] <= 1
    assert apart["before", "aarch64"] > 1
