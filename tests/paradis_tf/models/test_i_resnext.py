"""I-ResNeXt: the counts of the authors' code, its nested levels, and what it does not take."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf.builders.cost import path_costs
from paradis_tf.cuts import SwitchError
from paradis_tf.levels import create_levels
from paradis_tf.methods import Nested
from paradis_tf.models import create
from paradis_tf.operations import SlicedConv2D, SlicedGroupedConv2D
from paradis_tf.supernet import Supernet
from paradis_tf.training.step import TrainableSupernet
from tests.conftest import randomize
from tests.paradis_tf.operations.check import check_static

# Multiply-adds of the eight sub-networks of 21 blocks on CIFAR-10.
MADDS = (15_878_656, 29_985_280, 44_091_904, 58_198_528, 72_305_152, 86_411_776, 100_518_400, 114_625_024)
# Weights of convolutions and classifier, in millions.
WEIGHTS = (0.101, 0.197, 0.294, 0.390, 0.486, 0.583, 0.679, 0.776)
SMALL: dict[str, Any] = dict(name="i_resnext", image_shape=(8, 8, 3), classes=5, width_multiplier=0.25, blocks=1)
IMAGES = np.random.default_rng(4).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def small(levels: int = 4) -> Supernet:
    return randomize(Supernet(dict(SMALL), levels=levels))


@pytest.mark.parametrize(("classes", "more"), [(10, 0), (100, 23_040)])
def test_sub_networks_have_the_published_counts(classes: int, more: int) -> None:
    architecture = create("i_resnext", image_shape=(32, 32, 3), classes=classes)
    costs = [path_costs(architecture, level)[0] for level in create_levels(8, "dense")]
    assert tuple(cost.madds - more for cost in costs) == MADDS
    if classes == 10:
        assert tuple(round(cost.kernel_parameters / 1e6, 3) for cost in costs) == WEIGHTS


def test_all_levels_together_keep_private_norms_and_heads() -> None:
    model = Supernet({"name": "i_resnext", "image_shape": (32, 32, 3), "classes": 10}, levels=8)
    stored = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert round(stored / 1e6, 2) == 0.88
    norms = {layer.name: layer for layer in model.shared_layers if "norm" in layer.name}
    # The stream's, of all channels at each level, and the middle's, of the level's branches.
    assert norms["stage_3_block_7_reduce_norm"].gamma.shape == (8 * 256,)
    assert norms["stage_3_block_7_middle_norm"].gamma.shape == (sum(16 * k for k in range(1, 9)),)
    assert norms["head_norm"].gamma.shape == (8 * 256,)


def test_smaller_networks_cost_what_was_counted_by_hand() -> None:
    architecture = create("i_resnext", image_shape=(32, 32, 3), classes=10, width_multiplier=0.5, blocks=1)
    found = [path_costs(architecture, level)[0].madds for level in create_levels(4, "dense")]
    # Stem; at level k three blocks of 2k branches: 1x1 and back, 3x3 in each; classifier.
    stem, classifier = 27 * 32 * 1024, 128 * 10
    blocks = [3 * 1024 * (2 * 32 * 4 * k + 2 * k * 9 * 4) for k in (1, 2, 3, 4)]
    assert found == [stem + each + classifier for each in blocks]


def test_static_equals_shared() -> None:
    check_static(small(), IMAGES)
    check_static(randomize(Supernet(dict(SMALL), ("1.0", "0.5"))), IMAGES)


def test_a_level_reads_the_first_branches_and_the_whole_stream() -> None:
    model = small()
    before = [model(IMAGES, path=level)["prediction"].numpy() for level in model.paths]
    for layer in model.shared_layers:
        kernel = layer.kernel.numpy() if isinstance(layer, SlicedConv2D | SlicedGroupedConv2D) else None
        if kernel is not None and layer.slice_outputs:
            kernel[..., kernel.shape[-1] // 2 :] += 1
            layer.kernel.assign(kernel)
    after = [model(IMAGES, path=level)["prediction"].numpy() for level in model.paths]
    for level in (0, 1):
        np.testing.assert_array_equal(after[level], before[level])
    for level in (2, 3):
        assert np.abs(after[level] - before[level]).max() > 1e-3
    assert {model(IMAGES, path=level)["features"].shape for level in model.paths} == {(4, 64)}


def test_nested_levels_are_trained() -> None:
    model = TrainableSupernet(dict(SMALL), levels=4)
    model.compile(keras.optimizers.SGD(0.1), method=Nested(), weight_decay=1e-4, decay_all=True)
    before = [weight.numpy() for weight in model.trainable_weights]
    logs = model.train_on_batch(IMAGES, np.array([0, 1, 2, 3]), return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert all((weight.numpy() != old).any() for weight, old in zip(model.trainable_weights, before, strict=True))


def test_networks_that_it_cannot_be_are_named() -> None:
    with pytest.raises(SwitchError, match=r"switch '0\.5\+0\.5' has 2 devices; architecture 'i_resnext' adds up"):
        Supernet(dict(SMALL), ("1.0", "0.5+0.5"))
    for connectivity in ("triangular", "diagonal"):
        with pytest.raises(SwitchError, match="adds up in every block what its slices make, so it"):
            Supernet(dict(SMALL), levels=4, connectivity=connectivity)
    with pytest.raises(SwitchError, match="level 'level_1' does not fit: layer 'stage_1_block_1_reduce_conv' has 8 ch"):
        small(levels=3)
    wide = {**SMALL, "width_multiplier": 1.0}
    with pytest.raises(SwitchError, match="layer 'stage_1_block_1_middle_conv' has 8 branches of 4 channels"):
        Supernet(wide, levels=16)
    for blocks in (0, 65, 1.0, True):
        with pytest.raises(UserError, match=f"i_resnext: blocks is {blocks!r}; it is a whole number from 1 to 64"):
            create(**{**SMALL, "blocks": blocks})
