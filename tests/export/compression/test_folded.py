from typing import Any

import numpy as np
import pytest
import tf_keras

from export.compression import folded
from paradis_tf import models
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch
from tests.conftest import TinyNet, narrow_resnet, randomize
from tests.export.compression.conftest import normalized

_NETS = {
    "plain": TinyNet(),
    "residual": narrow_resnet(10, (8, 8, 3), 5, "224"),
    "super-resolution": models.create("wdsr", image_shape=(8, 8, 3), scale=2, blocks=1, filters=8),
}


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("name", _NETS)
def test_the_sum_of_the_folded_slices_is_the_supernets(name: str, trainable: bool, images: np.ndarray) -> None:
    model = randomize(Supernet(_NETS[name], ("0.5+0.5",)))
    switch = model.switches[0]
    wanted = sum(model.call_cut(images[:8], switch.cut(device)).prediction.numpy() for device in range(2))
    slices = [folded.fold(model, switch, device, trainable) for device in range(2)]
    # In training mode too, as no batch norm is left.
    found = sum(one(normalized(images[:8]), training=True).numpy() for one in slices)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_trainable_slice_has_no_strided_pointwise_convolution() -> None:
    model = randomize(Supernet(_NETS["residual"], ("1.0",)))
    kept, changed = (folded.fold(model, model.switches[0], 0, trainable) for trainable in (False, True))

    def strided(one: Any) -> set[str]:
        convolutions = [layer for layer in one.layers if isinstance(layer, tf_keras.layers.Conv2D)]
        return {layer.name for layer in convolutions if layer.kernel_size == (1, 1) and layer.strides != (1, 1)}

    assert strided(kept) == {f"stage_{stage}_block_1_shortcut_conv" for stage in (2, 3, 4)}
    assert strided(changed) == set()
    assert folded.weights_of(kept).keys() == folded.weights_of(changed).keys()


def test_compressible_are_the_pointwise_convolutions_of_tiny_net() -> None:
    model = Supernet(TinyNet(), ("1.0",))
    slice_model = folded.fold(model, Switch.parse("1.0", 4), 0)
    assert [layer.name for layer in slice_model.layers if folded.compressible(layer)] == ["pointwise_conv"]


def test_weights_are_loaded_by_name(images: np.ndarray) -> None:
    model = randomize(Supernet(TinyNet(), ("1.0",)))
    slice_model = folded.fold(model, model.switches[0], 0)
    before = folded.weights_of(slice_model)
    folded.load(slice_model, {"logits/bias": np.arange(5, dtype=np.float32), "other/kernel": np.zeros(3)})
    after = folded.weights_of(slice_model)
    assert after.keys() == before.keys()
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["logits/bias"]
