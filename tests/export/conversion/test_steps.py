"""The files of a triangular network's steps answer as the network does, int8 to the bit as the levels as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from export.conversion.job import StepFile
from export.conversion.ranges import calibrate
from export.conversion.steps import convert_step
from export.emulation import installation
from export.tflite import graph
from paradis_tf import models
from paradis_tf.builders.architecture import Architecture
from paradis_tf.builders.cost import cut_cost
from paradis_tf.supernet import Supernet
from tests.conftest import TINY_NETS, narrow_resnet, randomize
from tests.export.conversion import chains
from tests.export.conversion.chains import KERNELS, RUNTIMES, Chain
from tests.export.dead_channels import dead_net

pytestmark = pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")


def network(architecture: Architecture, levels: int) -> Supernet:
    keras.utils.set_random_seed(3)
    return randomize(Supernet(architecture, levels=levels, connectivity="triangular"), seed=11)


def images_for(model: Supernet, count: int = 24) -> np.ndarray:
    """Random images, of which parts are darker, so that they differ in more than noise."""
    images = np.random.default_rng(6).integers(0, 256, (count, *model.architecture.image_shape), dtype=np.uint8)
    half = images.shape[1] // 2
    images[:, :half] //= 3
    images[::2, :, :half] //= 2
    return images


def mobilenet(width: float) -> Architecture:
    return models.create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, width_multiplier=width, form="32")


def check_int8(model: Supernet, folder: Path, runtimes: Sequence[str] = RUNTIMES) -> Chain:
    """Makes the int8 files and holds steps against levels, the levels against Keras, and the files against what they
    should cost and hold."""
    images = images_for(model)
    ranges = calibrate(model, images)
    chain = chains.make(model, "int8", images, folder, ranges)
    expected = np.stack([model(images, path=level)["prediction"] for level in model.paths], axis=1)
    for runtime in runtimes:
        for kernels, answers in chains.run(chain, runtime).items():
            np.testing.assert_array_equal(answers.steps, answers.levels, err_msg=f"{runtime} {kernels}")
            for place in range(len(model.paths)):
                output = next(tensor for tensor in chain.steps[place].outputs if tensor.name == "logits")
                assert output.scale is not None and output.zero_point is not None
                real = output.scale * (answers.steps[:, place] - output.zero_point)
                scale = np.abs(expected[:, place]).max()
                assert np.abs(real - expected[:, place]).max() < 0.15 * scale, (runtime, kernels, place)
                # Answers to random weights and images are no constants either.
                assert np.ptp(answers.steps[:, place]) > 100
    for contents, step in zip(chain.steps, model.steps, strict=True):
        assert contents.madds == cut_cost(model.architecture, step).madds
        # The image is the only tensor that is quantized: what is handed is int8 on both sides.
        assert sum(count for (name, _), count in contents.operators.items() if "QUANTIZE" in name) == 1
        assert not contents.operator_names & {"MUL", "SUB", "RELU", "RELU6", "DEQUANTIZE"}
    check_handed(chain)
    return chain


def check_handed(chain: Chain) -> None:
    """What a step gives is what the next one takes: the same names, shapes, scales and zero points."""
    for before, after in zip(chain.steps, chain.steps[1:], strict=False):
        given = {tensor.name: tensor for tensor in before.outputs if tensor.name != "logits"}
        taken = {tensor.name: tensor for tensor in after.inputs if tensor.name != "image"}
        assert given == taken != {}
        assert all(name.startswith("handed/") for name in given)
    assert [tensor.name for tensor in chain.steps[0].inputs] == ["image"]
    assert [tensor.name for tensor in chain.steps[-1].outputs] == ["logits"]


@pytest.mark.parametrize(
    ("architecture", "levels"),
    [
        pytest.param(TINY_NETS["plain"], 4, id="plain"),
        pytest.param(narrow_resnet(10, (16, 16, 3), 5), 2, id="basic blocks"),
        pytest.param(mobilenet(0.25), 2, id="mobilenet 2", marks=pytest.mark.slow),
        pytest.param(mobilenet(0.25), 4, id="mobilenet 4", marks=pytest.mark.slow),
        pytest.param(narrow_resnet(10, (16, 16, 3), 5), 4, id="basic blocks 4", marks=pytest.mark.slow),
        pytest.param(narrow_resnet(26, (64, 64, 3), 5, "224"), 4, id="bottlenecks 4", marks=pytest.mark.slow),
    ],
)
def test_int8_steps_equal_their_levels_to_the_bit(architecture: Architecture, levels: int, tmp_path: Path) -> None:
    check_int8(network(architecture, levels), tmp_path)


def test_steps_with_channels_that_died_answer_as_their_levels(tmp_path: Path) -> None:
    model = dead_net(1.5, 2.0, levels=2, connectivity="triangular")
    images = images_for(model)
    chain = chains.make(model, "int8", images, tmp_path, calibrate(model, images))
    # A channel of each slice has died; the levels as a whole are as the converter gives them.
    of_levels = [graph.read((tmp_path / f"level_{number}.tflite").read_bytes()) for number in (1, 2)]
    assert all(contents.largest_multiplier >= 1 for contents in of_levels)
    assert all(contents.largest_multiplier < 1 for contents in chain.steps)
    for kernels, answers in chains.run(chain, "tflite_runtime").items():
        np.testing.assert_array_equal(answers.steps, answers.levels, err_msg=kernels)
    check_handed(chain)


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_steps_of_other_precisions_answer_as_the_network(precision: str, tmp_path: Path) -> None:
    model = network(TINY_NETS["plain"], 4)
    images = images_for(model)
    chain = chains.make(model, precision, images, tmp_path)
    expected = np.stack([model(images, path=level)["prediction"] for level in model.paths], axis=1)
    tolerance = {"float32": 1e-5, "float16": 2e-3, "dynamic": 2e-2}[precision] * np.abs(expected).max()
    for runtime in RUNTIMES:
        for kernels, answers in chains.run(chain, runtime, KERNELS[:2]).items():
            np.testing.assert_allclose(answers.steps, expected, atol=tolerance, err_msg=f"{runtime} {kernels}")
    check_handed(chain)


def test_int8_steps_may_answer_in_float(tmp_path: Path) -> None:
    model = network(TINY_NETS["plain"], 2)
    images = images_for(model)
    file = StepFile(model.steps[0], "int8", float_output=True)
    _, contents = convert_step(model, file, images, calibrate(model, images))
    assert {tensor.name: tensor.dtype for tensor in contents.outputs} == {
        "logits": "float32",
        "handed/pointwise_conv": "int8",
        "handed/logits": "int8",
    }


def test_files_are_the_same_when_made_again() -> None:
    model = network(TINY_NETS["plain"], 2)
    images = images_for(model)
    file = StepFile(model.steps[1], "int8")
    made = [convert_step(model, file, images, calibrate(model, images))[0] for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.slow
def test_steps_are_about_as_large_as_the_whole_network(tmp_path: Path) -> None:
    model = network(mobilenet(0.5), 4)
    images = images_for(model, 2)
    sizes = chains.make(model, "int8", images, tmp_path, calibrate(model, images)).sizes
    assert sum(size for name, size in sizes.items() if name.startswith("step_")) <= 1.1 * sizes["level_4.tflite"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", [mobilenet(0.25), narrow_resnet(10, (16, 16, 3), 5)], ids=["mobilenet", "resnet"]
)
def test_steps_equal_their_levels_on_boards(architecture: Architecture, tmp_path: Path) -> None:
    """Downloads 250 MB where no board is set up yet."""
    model = network(architecture, 4)
    images = images_for(model, 4)
    for folder in ("int8", "float32"):
        (tmp_path / folder).mkdir()
    int8 = chains.make(model, "int8", images, tmp_path / "int8", calibrate(model, images))
    float32 = chains.make(model, "float32", images, tmp_path / "float32")
    expected = np.stack([model(images, path=level)["prediction"] for level in model.paths], axis=1)
    for board in installation.set_up(["aarch64", "armhf"]):
        for kernels, answers in chains.run(int8, "tflite_runtime", KERNELS[:2], board).items():
            np.testing.assert_array_equal(answers.steps, answers.levels, err_msg=f"{board.name} {kernels}")
        for kernels, answers in chains.run(float32, "tflite_runtime", KERNELS[:2], board).items():
            np.testing.assert_allclose(
                answers.steps, expected, atol=1e-5 * np.abs(expected).max(), err_msg=f"{board.name} {kernels}"
            )
