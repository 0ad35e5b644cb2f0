"""Costs against the published and hand-counted ones."""

from __future__ import annotations

from typing import Any

import pytest

from paradis_tf.builders.cost import cut_cost, path_costs
from paradis_tf.cuts import WHOLE, SwitchError
from paradis_tf.levels import create_levels
from paradis_tf.models import create
from paradis_tf.switches import Switch

# Million multiply-adds in all and of the largest device, million weights of convolutions and classifier.
TABLE = {
    "1.0": (568.7, 568.7, 4.21),
    "0.75+0.25": (366.4, 325.4, 3.03),
    "0.5+0.5": (299.0, 149.5, 2.64),
    "0.5+0.25+0.25": (231.6, 149.5, 2.25),
    "4x0.25": (164.1, 41.0, 1.86),
    "0.5+0.25": (190.5, 149.5, 1.78),
    "3x0.25": (123.1, 41.0, 1.39),
    "0.25+0.25": (82.1, 41.0, 0.93),
}
# Parameters in millions without and with batch norm's scales and shifts.
WIDTHS = {"1.0": (4.210, 4.232), "0.75": (2.569, 2.586), "0.5": (1.321, 1.332), "0.25": (0.465, 0.470)}


@pytest.mark.parametrize(("text", "expected"), TABLE.items())
def test_mobilenet_v1_at_224_has_the_known_costs(text: str, expected: tuple[float, float, float]) -> None:
    costs = path_costs(create("mobilenet_v1", image_shape=(224, 224, 3), classes=1000), Switch.parse(text))
    assert round(sum(cost.madds for cost in costs) / 1e6, 1) == expected[0]
    assert round(max(cost.madds for cost in costs) / 1e6, 1) == expected[1]
    assert round(sum(cost.kernel_parameters for cost in costs) / 1e6, 2) == expected[2]


@pytest.mark.parametrize(("text", "expected"), WIDTHS.items())
def test_mobilenet_v1_widths_have_the_known_parameters(text: str, expected: tuple[float, float]) -> None:
    (cost,) = path_costs(create("mobilenet_v1", image_shape=(224, 224, 3), classes=1000), Switch.parse(text))
    assert (round(cost.kernel_parameters / 1e6, 3), round(cost.parameters / 1e6, 3)) == expected


def test_a_hand_counted_slice() -> None:
    """The stem of 224x224 and the first block, at half width, counted by hand."""
    cost = cut_cost(create("mobilenet_v1", image_shape=(224, 224, 3), classes=7), Switch.parse("0.5").cut(0))
    rows = {layer.name: layer for layer in cost.layers}
    assert rows["stem_conv"].madds == 112 * 112 * 16 * 27
    assert rows["stem_conv"].activation_bytes == 112 * 112 * 16
    assert rows["block_1_depthwise_conv"].madds == 112 * 112 * 16 * 9
    assert rows["block_1_pointwise_conv"].madds == 112 * 112 * 16 * 32
    assert rows["block_2_depthwise_conv"].activation_bytes == 56 * 56 * 32
    assert (rows["logits"].madds, rows["logits"].kernel_parameters) == (512 * 7, 512 * 7 + 7)
    assert rows["stem_norm"].norm_parameters == 32
    assert cost.largest_activation_bytes == 112 * 112 * 32


def test_the_bias_counts_once() -> None:
    architecture = create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, form="32")
    first, second = path_costs(architecture, Switch.parse("0.5+0.5"))
    assert first.parameters - second.parameters == 10


def test_a_layer_that_the_grid_does_not_divide_is_named() -> None:
    architecture = create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, width_multiplier=0.3)
    with pytest.raises(SwitchError, match="layer 'stem_conv' has 10 channels"):
        path_costs(architecture, Switch.parse("4x0.25"))
    assert cut_cost(architecture, WHOLE).madds > 0


# Of the CIFAR-10 config.
STRIDES = (2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1)
# Multiply-adds of the four levels of a triangular network.
TRIANGULAR: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mobilenet_v1 224": (
        dict(name="mobilenet_v1", image_shape=(224, 224, 3), classes=1000),
        (41_030_272, 115_778_816, 224_245_632, 366_430_720),
    ),
    "mobilenet_v1 32": (
        dict(
            name="mobilenet_v1", image_shape=(32, 32, 3), classes=10, width_multiplier=0.5, form="32", strides=STRIDES
        ),
        (632_576, 1_781_248, 3_446_016, 5_626_880),
    ),
    "resnet50": (
        dict(name="resnet", image_shape=(224, 224, 3), classes=1000, depth=50),
        (278_085_632, 804_241_408, 1_578_467_328, 2_600_763_392),
    ),
}


@pytest.mark.parametrize("net", TRIANGULAR)
def test_triangular_levels_have_the_known_costs(net: str) -> None:
    options, expected = TRIANGULAR[net]
    architecture = create(**options)
    levels = create_levels(4, "triangular")
    assert tuple(path_costs(architecture, level)[0].madds for level in levels) == expected
    # A step costs its level less the one before it, and the heads are paid for one by one.
    heads = [row.madds for level in levels for row in path_costs(architecture, level)[0].layers if row.name == "logits"]
    steps = [cut_cost(architecture, step).madds for step in levels[-1].steps]
    assert [sum(steps[:k]) - sum(heads[: k - 1]) for k in (1, 2, 3, 4)] == list(expected)


def test_dense_and_diagonal_levels_cost_what_switches_of_their_widths_do() -> None:
    architecture = create("mobilenet_v1", image_shape=(224, 224, 3), classes=1000)
    for dense, text in zip(create_levels(4, "dense"), ("0.25", "0.5", "0.75", "1.0"), strict=True):
        assert path_costs(architecture, dense)[0].madds == path_costs(architecture, Switch.parse(text))[0].madds
    for diagonal, text in zip(create_levels(4, "diagonal"), ("0.25", "0.25+0.25", "3x0.25", "4x0.25"), strict=True):
        found, expected = (path_costs(architecture, path) for path in (diagonal, Switch.parse(text)))
        assert [(cost.madds, cost.parameters) for cost in found] == [(c.madds, c.parameters) for c in expected]
