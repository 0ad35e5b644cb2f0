"""Mixed precision: what stays float32, loss scaling, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf import models
from paradis_tf.builders.static import extract
from paradis_tf.methods import Paradis
from paradis_tf.supernet import Supernet
from paradis_tf.training.step import TrainableSupernet

SWITCHES = ("1.0", "0.5+0.5")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tiny_net: Callable[..., Supernet]) -> Callable[[str], Supernet]:
    """Makes a compiled network of a precision, always with the same weights."""
    start = tiny_net(SWITCHES)
    monkeypatch.setitem(models.ARCHITECTURES, "tiny", type(start.architecture))

    def make(precision: str) -> Supernet:
        model = TrainableSupernet(start.architecture, SWITCHES, dtype=precision)
        model.set_weights(start.get_weights())
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), method=Paradis(), average_decay=0.5)
        return model

    return make


@pytest.mark.parametrize(("precision", "compute"), [("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")])
def test_mixed_precision_trains_and_gives_float32(
    precision: str, compute: str, network: Callable[[str], Supernet], batch: tuple, tmp_path: Path
) -> None:
    exact, model = network("float32"), network(precision)
    found = model(batch[0], path="0.5+0.5")
    assert (found["prediction"].dtype, found["features"].dtype) == (tf.float32, tf.as_dtype(compute))
    np.testing.assert_allclose(found["prediction"], exact(batch[0], path="0.5+0.5")["prediction"], atol=0.05)
    assert {weight.dtype for layer in model.shared_layers for weight in layer.weights} == {"float32"}
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    losses = [model.train_on_batch(*batch, return_dict=True)["loss"] for _ in range(2)]
    # As a resumed run goes on.
    model.save(tmp_path / "epoch.keras")
    model = keras.models.load_model(tmp_path / "epoch.keras")
    assert model.dtype_policy.name == precision
    assert int(model.optimizer.iterations) == 2
    losses += [model.train_on_batch(*batch, return_dict=True)["loss"] for _ in range(2)]
    expected = [exact.train_on_batch(*batch, return_dict=True)["loss"] for _ in range(4)]
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert losses != expected
    for layer, wanted in zip(model.shared_layers, exact.shared_layers, strict=True):
        for weight, value in zip(layer.weights, wanted.weights, strict=True):
            np.testing.assert_allclose(weight, value, atol=0.05)
    finished = model.finished()
    assert finished.dtype_policy.name == "float32"
    switch = finished.switches[1]
    parts = [extract(finished, switch.cut(device))(batch[0]) for device in range(2)]
    assert parts[0].dtype == "float32"
    np.testing.assert_allclose(sum(parts), finished(batch[0], path=switch)["prediction"], atol=1e-4)


def test_a_step_whose_gradients_overflow_is_skipped(network: Callable[[str], Supernet], batch: tuple) -> None:
    model = network("mixed_float16")
    optimizer = model.optimizer
    optimizer.dynamic_scale.assign(2.0**40)
    before = [variable.numpy() for variable in model.trainable_variables]
    loss = model.train_on_batch(*batch, return_dict=True)["loss"]
    assert np.isfinite(loss)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert (float(optimizer.dynamic_scale), int(optimizer.iterations)) == (2.0**39, 0)
    assert model.first_non_finite.result().numpy().tolist() == [1, -1, -1]
    optimizer.dynamic_scale.assign(2.0**8)
    model.train_on_batch(*batch)
    assert int(optimizer.iterations) == 1
    assert any((v.numpy() != value).any() for v, value in zip(model.trainable_variables, before, strict=True))
