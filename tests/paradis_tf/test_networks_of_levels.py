"""Networks of levels: nested weights, private heads, and what a level does not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.cuts import SwitchError
from paradis_tf.levels import Level
from paradis_tf.operations import SlicedConv2D, SwitchableBatchNormalization, SwitchableDense
from paradis_tf.supernet import Supernet
from paradis_tf.training.step import TrainableSupernet
from tests.conftest import TINY_NETS, TinyNet, randomize
from tests.paradis_tf.operations.check import check_static

IMAGES = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def network(connectivity: str, architecture: str = "plain", levels: int = 4, **options: str) -> Supernet:
    keras.utils.set_random_seed(3)
    made = TrainableSupernet(TINY_NETS[architecture], levels=levels, connectivity=connectivity, **options)
    return randomize(made, seed=11)


def slices_of(layer: keras.Layer, count: int) -> np.ndarray:
    """The slice, from 0, of each of so many channels of a network of four levels."""
    return np.arange(count) * 4 // count


@pytest.mark.parametrize("architecture", TINY_NETS)
@pytest.mark.parametrize("connectivity", ["dense", "triangular", "diagonal"])
def test_static_equals_shared(connectivity: str, architecture: str) -> None:
    check_static(network(connectivity, architecture), IMAGES)


def test_dense_levels_may_share_scale_and_shift() -> None:
    model = network("dense", normalization="shared_affine")
    check_static(model, IMAGES)
    (norm,) = [layer for layer in model.shared_layers if layer.name == "stem_norm"]
    assert (norm.gamma.shape, norm.moving_mean.shape) == ((8,), (2 + 4 + 6 + 8,))


@pytest.mark.parametrize("architecture", TINY_NETS)
def test_a_triangular_network_is_the_dense_one_with_masked_kernels(architecture: str) -> None:
    triangular, dense = network("triangular", architecture), network("dense", architecture)
    for mine, theirs in zip(dense.shared_layers, triangular.shared_layers, strict=True):
        if isinstance(mine, SwitchableBatchNormalization):
            # The last level has the last segment, as long as the one that all triangular levels share.
            for own, one in zip(mine.weights, theirs.weights, strict=True):
                own.assign(np.concatenate([own.numpy()[: -one.shape[0]], one.numpy()]))
        elif isinstance(mine, SlicedConv2D) and mine.slice_inputs:
            ins, outs = slices_of(mine, mine.in_channels), slices_of(mine, mine.out_channels)
            mine.kernel.assign(theirs.kernel.numpy() * (ins[:, None] <= outs))
        else:
            mine.set_weights(theirs.get_weights())
    found, expected = triangular(IMAGES, path="level_4"), dense(IMAGES, path="level_4")
    np.testing.assert_allclose(found["features"], expected["features"], atol=1e-5)
    np.testing.assert_allclose(found["prediction"], expected["prediction"], atol=1e-5)


@pytest.mark.parametrize("architecture", TINY_NETS)
def test_with_a_mask_of_ones_the_last_level_is_the_dense_network(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    triangular, dense = network("triangular", architecture), network("dense", architecture)
    monkeypatch.setattr("paradis_tf.levels.LevelCut.mask", lambda cut, layer, inputs, outputs: np.ones((1, 1)))
    for mine, theirs in zip(dense.shared_layers, triangular.shared_layers, strict=True):
        if isinstance(mine, SwitchableBatchNormalization):
            for own, one in zip(mine.weights, theirs.weights, strict=True):
                own.assign(np.concatenate([own.numpy()[: -one.shape[0]], one.numpy()]))
        else:
            mine.set_weights(theirs.get_weights())
    found, expected = triangular(IMAGES, path="level_4"), dense(IMAGES, path="level_4")
    np.testing.assert_allclose(found["prediction"], expected["prediction"], atol=1e-5)


@pytest.mark.parametrize("architecture", TINY_NETS)
@pytest.mark.parametrize("connectivity", ["dense", "triangular", "diagonal"])
def test_a_level_is_unmoved_by_weights_of_later_slices(connectivity: str, architecture: str) -> None:
    model = network(connectivity, architecture)
    before = [model(IMAGES, path=level)["prediction"].numpy() for level in model.paths]
    for layer in model.shared_layers:
        if isinstance(layer, SlicedConv2D):
            # All that slices 3 and 4 make, and all that is made of them.
            kernel = layer.kernel.numpy()
            kernel[..., slices_of(layer, kernel.shape[-1]) >= 2] += 1
            if layer.slice_inputs:
                kernel[..., slices_of(layer, kernel.shape[-2]) >= 2, :] += 1
            layer.kernel.assign(kernel)
    after = [model(IMAGES, path=level)["prediction"].numpy() for level in model.paths]
    for level in (0, 1):
        np.testing.assert_array_equal(after[level], before[level])
    for level in (2, 3):
        assert np.abs(after[level] - before[level]).max() > 1e-3


@pytest.mark.parametrize("architecture", TINY_NETS)
@pytest.mark.parametrize("connectivity", ["triangular", "diagonal"])
def test_blocks_that_no_level_reads_get_exactly_zero_gradient(connectivity: str, architecture: str) -> None:
    model = network(connectivity, architecture)
    layers = [layer for layer in model.shared_layers if isinstance(layer, SlicedConv2D) and layer.slice_inputs]
    with tf.GradientTape() as tape:
        outputs = [model(IMAGES, path=level, training=True)["prediction"] for level in model.paths]
        loss = tf.add_n([tf.reduce_sum(each**2) for each in outputs])
    for layer, found in zip(layers, tape.gradient(loss, [layer.kernel.value for layer in layers]), strict=True):
        ins, outs = slices_of(layer, layer.in_channels)[:, None], slices_of(layer, layer.out_channels)
        reads = ins <= outs if connectivity == "triangular" else ins == outs
        gradient = tf.convert_to_tensor(found).numpy()
        assert not (gradient * ~reads).any()
        assert (gradient * reads).any()


def test_heads_are_private_and_as_tall_as_their_level() -> None:
    model = network("triangular")
    (head,) = [layer for layer in model.shared_layers if isinstance(layer, SwitchableDense)]
    kernel, bias = head.get_weights()
    assert (kernel.shape, bias.shape) == ((4 + 8 + 12 + 16, 5), (4, 5))
    for number, (first, last) in enumerate([(0, 4), (4, 12), (12, 24), (24, 40)]):
        level = model.paths[number]
        outputs = model(IMAGES, path=level)
        expected = outputs["features"].numpy() @ kernel[first:last] + bias[number]
        np.testing.assert_allclose(outputs["prediction"], expected, atol=1e-5)


def test_the_sum_of_a_diagonal_levels_devices_is_its_answer() -> None:
    model = network("diagonal")
    for level in model.paths:
        parts = [model.call_cut(IMAGES, cut).prediction.numpy() for cut in level.cuts]
        np.testing.assert_allclose(sum(parts), model(IMAGES, path=level)["prediction"], atol=1e-5)


def test_heads_start_from_what_a_layer_of_their_size_does() -> None:
    head = SwitchableDense(400, 10, [level.cuts[0] for level in network("dense").paths])
    head.build()
    bounds = np.cumsum([0, 100, 200, 300, 400])
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        limit = np.sqrt(6 / (last - first + 10))
        largest = np.abs(head.kernel.numpy()[first:last]).max()
        assert limit * 0.9 < largest <= limit


def test_one_batch_norm_per_channel_serves_all_triangular_levels() -> None:
    model = network("triangular")
    (norm,) = [layer for layer in model.shared_layers if layer.name == "pointwise_norm"]
    assert [weight.shape for weight in norm.weights] == [(16,)] * 4
    before = norm.moving_mean.numpy()
    model(IMAGES, path="level_2", training=True)
    moved = norm.moving_mean.numpy() != before
    assert moved[:8].all() and not moved[8:].any()


@pytest.mark.parametrize("connectivity", ["dense", "triangular", "diagonal"])
def test_saved_networks_are_the_same_when_loaded(connectivity: str, tmp_path: Path, tiny_known: None) -> None:
    model = network(connectivity)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.model_id() == model.model_id()
    assert [str(path) for path in again.paths] == ["level_1", "level_2", "level_3", "level_4"]
    for path in model.paths:
        np.testing.assert_array_equal(again(IMAGES, path=path)["prediction"], model(IMAGES, path=path)["prediction"])


def test_what_a_network_is_made_of_is_in_its_id(tiny_net: Callable[..., Supernet]) -> None:
    assert network("triangular").model_id() != network("diagonal").model_id()
    assert network("dense").switches == () and network("dense").grid == 4
    assert [str(path) for path in tiny_net(("1.0",)).paths] == ["1.0"]


def test_bad_networks_and_calls_are_named() -> None:
    with pytest.raises(UserError, match="switches or levels, and this one gets switches 1.0, 0.5 and 4 levels"):
        Supernet(TinyNet(), ("1.0", "0.5"), levels=4)
    with pytest.raises(SwitchError, match="the list of switches is empty"):
        Supernet(TinyNet())
    with pytest.raises(SwitchError, match="level 'level_1' does not fit: layer 'stem_conv' has 8 channels"):
        Supernet(TinyNet(), levels=3)
    with pytest.raises(UserError, match="architecture 'wdsr' has no classifier"):
        Supernet({"name": "wdsr", "image_shape": (8, 8, 3), "scale": 2}, levels=4)
    model = network("diagonal")
    with pytest.raises(SwitchError, match="level 'level_5' is not one of this network's: level_1, level_2"):
        model(IMAGES, path="level_5")
    with pytest.raises(SwitchError, match="level 'level_1' is not one of this network's"):
        model(IMAGES, path=Level(1, 4, "triangular"))
    with pytest.raises(SwitchError, match="device 2 is not in level 'level_2'; its devices are 0 to 1"):
        model(IMAGES, path="level_2", devices=[2])
    with pytest.raises(SwitchError, match=r"level 1 of 4 is not one of this network's; its levels \(diagonal\) are"):
        model.call_cut(IMAGES, Level(1, 4, "triangular").cuts[0])
