"""The static slice models answer as the supernet does."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tf_keras

from paradis_tf.builders.static import extract
from paradis_tf.cuts import SwitchError
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch
from tests.paradis_tf.operations.check import check_static

IMAGES = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("net", ["mobilenet", "basic_resnet", "bottleneck_resnet"])
def test_static_equals_shared(request: pytest.FixtureRequest, net: str) -> None:
    check_static(request.getfixturevalue(net), IMAGES)


def test_static_equals_shared_with_shared_affine(tiny_net: Callable[..., Supernet]) -> None:
    check_static(tiny_net(normalization="shared_affine"), IMAGES[:, :8, :8])


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_features_are_those_of_the_slice(mobilenet: Supernet, module) -> None:
    cut = mobilenet.switches[2].cut(1)
    model = extract(mobilenet, cut, module)
    features = module.Model(model.inputs[0], model.get_layer("features").output)
    expected = mobilenet.call_cut(IMAGES, cut).features
    np.testing.assert_allclose(features(IMAGES.astype(np.float32)), expected, rtol=1e-5, atol=2e-5)
    assert model.get_layer("stem_conv").kernel.shape == (3, 3, 3, 2)


def test_the_bias_is_in_the_first_slice_alone(mobilenet: Supernet) -> None:
    models = [extract(mobilenet, cut) for cut in mobilenet.switches[1].cuts]
    assert [model.get_layer("logits").use_bias for model in models] == [True, False]


def test_normalized_input_skips_the_normalization(mobilenet: Supernet) -> None:
    cut = mobilenet.switches[1].cut(1)
    raw, normalized = extract(mobilenet, cut), extract(mobilenet, cut, normalized_input=True)
    pixels = IMAGES.astype(np.float32)
    np.testing.assert_allclose(normalized((pixels - 128) / 128), raw(pixels), atol=1e-5)


def test_an_unknown_device_or_cut_is_refused(mobilenet: Supernet) -> None:
    with pytest.raises(SwitchError, match="its devices are 0 to 1"):
        extract(mobilenet, mobilenet.switches[1].cut(2))
    with pytest.raises(SwitchError, match=r"device 0 of switch '0\.75' is not one of this network's; its switches are"):
        extract(mobilenet, Switch.parse("0.75").cut(0))
