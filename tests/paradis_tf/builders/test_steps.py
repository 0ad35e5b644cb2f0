"""The steps of a triangular network lead from level to level, each from what the one before it hands on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from paradis_tf.builders.cost import cut_cost
from paradis_tf.builders.steps import extract_step
from paradis_tf.cuts import SwitchError
from paradis_tf.levels import StepCut
from paradis_tf.supernet import Supernet
from tests.conftest import TINY_NETS, randomize
from tests.paradis_tf.operations.check import check_steps

IMAGES = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def network(architecture: str, levels: int = 4, connectivity: str = "triangular") -> Supernet:
    keras.utils.set_random_seed(3)
    return randomize(Supernet(TINY_NETS[architecture], levels=levels, connectivity=connectivity), seed=11)


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("architecture", TINY_NETS)
def test_steps_answer_as_their_levels_do(architecture: str, levels: int) -> None:
    check_steps(network(architecture, levels), IMAGES)


def test_one_level_is_one_step() -> None:
    check_steps(network("plain", 1), IMAGES)


def test_what_is_handed_on_is_what_the_next_step_takes() -> None:
    model = network("bottlenecks")
    steps = [extract_step(model, cut) for cut in model.steps]
    channels: list[dict[str, Any]] = [
        {name: tensor.shape[-1] for name, tensor in zip(step.handed, step.model.inputs[1:], strict=True)}
        for step in steps
    ]
    assert channels[0] == {}
    assert channels[1] == {name: tensor.shape[-1] for name, tensor in list(steps[0].model.output.items())[1:]}
    assert channels[2] == {name: tensor.shape[-1] for name, tensor in list(steps[1].model.output.items())[1:]}
    # All slices before the step's own, of 4 x 16 channels at the end.
    assert [step["handed/logits"] for step in channels[1:]] == [32, 64, 96]
    assert list(steps[3].model.output) == ["prediction"]


def test_a_tensor_that_two_layers_read_is_handed_on_once() -> None:
    model = network("bottlenecks")
    handed = extract_step(model, model.steps[1]).handed
    # The first of the readers gives the name: the shortcut's projection before the block's own first layer.
    assert "handed/stage_1_block_1_shortcut_conv" in handed
    assert "handed/stage_1_block_1_reduce_conv" not in handed
    # Where the shortcut is the identity, the block's first layer is the only reader that needs other slices.
    assert "handed/stage_1_block_2_reduce_conv" in handed
    layers = [layer.name for layer in model.shared_layers if layer.name.endswith(("_reduce_conv", "_middle_conv"))]
    assert len(handed) == len(layers) + len([name for name in layers if name.endswith("_middle_conv")]) + 1


def test_a_step_takes_the_image_for_what_reads_it_alone() -> None:
    model = network("plain")
    step = extract_step(model, model.steps[1])
    assert [tensor.name for tensor in step.model.inputs] == ["image", "handed_pointwise_conv", "handed_logits"]
    assert step.model.get_layer("stem_conv").kernel.shape == (3, 3, 3, 2)
    assert step.model.get_layer("pointwise_conv").kernel.shape == (1, 1, 4, 4)


def test_a_step_costs_what_its_model_computes() -> None:
    model = network("basic blocks")
    for cut in model.steps:
        static = extract_step(model, cut).model
        assert cut_cost(model.architecture, cut).parameters == sum(
            np.prod(weight.shape) for weight in static.trainable_weights
        )


@pytest.mark.parametrize("connectivity", ["dense", "diagonal"])
def test_only_triangular_networks_have_steps(connectivity: str) -> None:
    with pytest.raises(SwitchError, match=rf"step 2 of 4 is not one of this network's; its levels \({connectivity}\)"):
        extract_step(network("plain", connectivity=connectivity), StepCut(2, 4))


def test_steps_of_another_number_of_levels_are_refused() -> None:
    with pytest.raises(SwitchError, match=r"step 2 of 2 is not one of this network's"):
        extract_step(network("plain"), StepCut(2, 2))
