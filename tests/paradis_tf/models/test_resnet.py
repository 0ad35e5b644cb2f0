"""ResNet's costs against the published ones, its shape, and its refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fusion.base.program import UserError
from paradis_tf.builders.cost import Cost, cut_cost, path_costs
from paradis_tf.configs import cifar10_resnet
from paradis_tf.cuts import WHOLE
from paradis_tf.models import create
from paradis_tf.models.resnet import ResNet
from paradis_tf.switches import Switch, parse_switches

# ResNet-50, 224x224, 1000 classes. Widths: million multiply-adds, million parameters without and with batch norm's
# scales and shifts.
WIDTHS = {
    "1.0": (4089.2, 25.504, 25.557),
    "0.75": (2322.7, 14.732, 14.772),
    "0.5": (1052.3, 6.891, 6.918),
    "0.25": (278.1, 1.981, 1.994),
}
# Switches: million multiply-adds in all and of the largest device, million weights of convolutions and classifier.
SWITCHES = {
    "1.0": (4089, 4089, "25.5"),
    "0.75+0.25": (2601, 2323, "16.7"),
    "0.5+0.5": (2105, 1052, "13.8"),
    "0.5+0.25+0.25": (1609, 1052, "10.9"),
    "4x0.25": (1112, 278, "7.92"),
    "0.5+0.25": (1330, 1052, "8.87"),
    "3x0.25": (834, 278, "5.94"),
    "0.25+0.25": (556, 278, "3.96"),
}
# Published parameters in millions, batch norm included, and billion multiply-adds.
DEPTHS = {18: (11.690, 1.81), 34: (21.798, 3.66), 50: (25.557, 4.09), 101: (44.549, 7.80), 152: (60.193, 11.51)}


def imagenet(**options: Any) -> Any:
    return create("resnet", image_shape=(224, 224, 3), classes=1000, **options)


def rows(cost: Cost) -> dict[str, Any]:
    return {layer.name: layer for layer in cost.layers}


@pytest.mark.parametrize(("text", "expected"), WIDTHS.items())
def test_resnet_50_widths_have_the_known_costs(text: str, expected: tuple[float, float, float]) -> None:
    (cost,) = path_costs(imagenet(), Switch.parse(text))
    found = (round(cost.madds / 1e6, 1), round(cost.kernel_parameters / 1e6, 3), round(cost.parameters / 1e6, 3))
    assert found == expected


@pytest.mark.parametrize(("text", "expected"), SWITCHES.items())
def test_resnet_50_switches_have_the_known_costs(text: str, expected: tuple[int, int, str]) -> None:
    costs = path_costs(imagenet(), Switch.parse(text))
    # The known totals are sums of rounded terms, so they may be half a million off.
    assert sum(cost.madds for cost in costs) / 1e6 == pytest.approx(expected[0], abs=0.6)
    assert round(max(cost.madds for cost in costs) / 1e6) == expected[1]
    assert f"{sum(cost.kernel_parameters for cost in costs) / 1e6:.3g}" == expected[2]


@pytest.mark.parametrize(("depth", "expected"), DEPTHS.items())
def test_depths_have_the_published_costs(depth: int, expected: tuple[float, float]) -> None:
    cost = cut_cost(imagenet(depth=depth), WHOLE)
    assert (round(cost.parameters / 1e6, 3), round(cost.madds / 1e9, 2)) == expected


@pytest.mark.parametrize("depth", [10, 14, 18, 26, 34, 50, 101, 152])
def test_depth_counts_the_layers_with_weights(depth: int) -> None:
    layers = cut_cost(imagenet(depth=depth), WHOLE).layers
    path = [one for one in layers if one.kind in ("conv", "dense") and "shortcut" not in one.name]
    assert len(path) == depth


def test_a_shortcut_is_projected_where_the_shape_changes() -> None:
    def projected(depth: int) -> list[str]:
        layers = cut_cost(imagenet(depth=depth), WHOLE).layers
        return [one.name for one in layers if one.name.endswith("shortcut_conv")]

    assert projected(50) == [f"stage_{stage}_block_1_shortcut_conv" for stage in (1, 2, 3, 4)]
    assert projected(34) == [f"stage_{stage}_block_1_shortcut_conv" for stage in (2, 3, 4)]


def test_a_hand_counted_block_of_a_slice() -> None:
    """The first bottleneck of the second stage of ResNet-50: its 3x3 convolution has the stride."""
    found = rows(cut_cost(imagenet(), Switch.parse("0.5+0.25+0.25").cut(1)))
    assert found["stem_conv"].madds == 112 * 112 * 16 * 49 * 3
    assert (found["stem_pool"].madds, found["stem_pool"].activation_bytes) == (0, 56 * 56 * 16)
    assert found["stage_2_block_1_reduce_conv"].madds == 56 * 56 * 64 * 32
    assert found["stage_2_block_1_middle_conv"].madds == 28 * 28 * 9 * 32 * 32
    assert found["stage_2_block_1_expand_conv"].madds == 28 * 28 * 32 * 128
    assert found["stage_2_block_1_shortcut_conv"].madds == 28 * 28 * 64 * 128
    assert (found["stage_2_block_1_add"].madds, found["stage_2_block_1_add"].activation_bytes) == (0, 28 * 28 * 128)
    assert found["logits"].kernel_parameters == 512 * 1000


def test_the_form_for_small_images_shrinks_them_eight_times() -> None:
    found = rows(cut_cost(create("resnet", image_shape=(32, 32, 3), classes=10, form="32", depth=18), WHOLE))
    assert found["stem_conv"].madds == 32 * 32 * 64 * 27
    assert "stem_pool" not in found
    assert [found[f"stage_{s}_block_1_add"].activation_bytes for s in (1, 2, 3, 4)] == [
        side * side * filters for side, filters in ((32, 64), (16, 128), (8, 256), (4, 512))
    ]


def test_the_experiment_fits_the_grid_of_quarters() -> None:
    config = cifar10_resnet.get_config()
    architecture = create(**dict(config.model), image_shape=(32, 32, 3), classes=10)
    for switch in parse_switches(config.switches, config.grid):
        assert all(cost.madds > 0 for cost in path_costs(architecture, switch))


def test_its_options_make_it_again() -> None:
    made = create("resnet", image_shape=[64, 48, 3], classes=7, width_multiplier=0.5, form="32", depth=26)
    again = create("resnet", **json.loads(json.dumps(made.get_config())))
    assert again == made == ResNet((64, 48, 3), 7, 0.5, "32", 26)


BAD = {
    "depth": ({"depth": 20}, "resnet: depth is 20; it is one of 10, 14, 18, 26, 34, 50, 101, 152"),
    "depth text": ({"depth": "50"}, "depth is '50'; it is one of 10"),
    "form": ({"form": "64"}, "form is '64'; it is one of '224', '32'"),
    "form number": ({"form": 32}, "form is 32; it is one of '224', '32'"),
    "width": ({"width_multiplier": 0.0}, r"width_multiplier is 0.0; it lies in \(0, 8\]"),
    "width nan": ({"width_multiplier": float("nan")}, "width_multiplier is nan"),
    "width text": ({"width_multiplier": "wide"}, "width_multiplier is 'wide'"),
    "classes": ({"classes": 1}, "classes is 1; it is an int of at least 2"),
    "classes text": ({"classes": "ten"}, "classes is 'ten'"),
    "grey": ({"image_shape": (32, 32, 1)}, r"image_shape is \(32, 32, 1\); it is \(height, width, 3\)"),
    "size": ({"image_shape": 32}, "image_shape is 32"),
    "side": ({"image_shape": (32, "32", 3)}, "image_shape is"),
    "option": ({"blocks": 3}, "has no option 'blocks'; it has image_shape, classes, width_multiplier, form, depth"),
}


@pytest.mark.parametrize(("options", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        create("resnet", **{"image_shape": (32, 32, 3), "classes": 10, **options})
