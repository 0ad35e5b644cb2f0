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

IMAGES = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
DEVICES = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (3, 3)]


NETS = [("mobilenet", keras), ("mobilenet", tf_keras), ("basic_resnet", keras), ("basic_resnet", tf_keras)]
NETS += [("bottleneck_resnet", keras)]


@pytest.mark.parametrize(("net", "module"), NETS, ids=[f"{net}-{module.__name__}" for net, module in NETS])
@pytest.mark.parametrize(("index", "device"), DEVICES)
def test_static_equals_shared(request, net: str, module, index: int, device: int) -> None:
    supernet = request.getfixturevalue(net)
    switch = supernet.switches[index]
    expected = supernet.call_cut(IMAGES, switch.cut(device))
    model = extract(supernet, switch.cut(device), module)
    np.testing.assert_allclose(model(IMAGES.astype(np.float32)), expected.prediction, rtol=1e-5, atol=2e-5)
    features = module.Model(model.inputs[0], model.get_layer("features").output)
    np.testing.assert_allclose(features(IMAGES.astype(np.float32)), expected.features, rtol=1e-5, atol=2e-5)
    assert np.abs(expected.prediction).max() > 0.05


@pytest.mark.parametrize("module", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_static_equals_shared_with_shared_affine(tiny_net: Callable[..., Supernet], module) -> None:
    model = tiny_net(normalization="shared_affine")
    images = IMAGES[:, :8, :8]
    for index, device in DEVICES:
        switch = model.switches[index]
        found = extract(model, switch.cut(device), module)(images.astype(np.float32))
        np.testing.assert_allclose(found, model.call_cut(images, switch.cut(device)).prediction, atol=2e-5)


def test_it_is_made_of_stock_layers(mobilenet: Supernet) -> None:
    model = extract(mobilenet, mobilenet.switches[3].cut(1))
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert model.get_layer("stem_conv").kernel.shape == (3, 3, 3, 2)


def test_the_bias_is_in_the_first_slice_alone(mobilenet: Supernet) -> None:
    models = [extract(mobilenet, mobilenet.switches[1].cut(device)) for device in range(2)]
    assert [model.get_layer("logits").use_bias for model in models] == [True, False]


def test_normalized_input_skips_the_normalization(mobilenet: Supernet) -> None:
    raw = extract(mobilenet, mobilenet.switches[1].cut(1))
    normalized = extract(mobilenet, mobilenet.switches[1].cut(1), normalized_input=True)
    pixels = IMAGES.astype(np.float32)
    np.testing.assert_allclose(normalized((pixels - 128) / 128), raw(pixels), atol=1e-5)


def test_an_unknown_device_is_refused(mobilenet: Supernet) -> None:
    with pytest.raises(SwitchError, match="its devices are 0 to 1"):
        extract(mobilenet, mobilenet.switches[1].cut(2))
