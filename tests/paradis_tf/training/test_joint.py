"""Several paths from one forward run: their outputs, and what a step learns from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import Path
from paradis_tf.methods import Anytime, Nested
from paradis_tf.methods.passes import Joint
from paradis_tf.operations import SwitchableBatchNormalization
from paradis_tf.supernet import Supernet
from paradis_tf.training.step import TrainableSupernet
from tests.conftest import TINY_NETS, randomize


def network(connectivity: str, architecture: str = "plain", levels: int = 4, **options: str) -> TrainableSupernet:
    keras.utils.set_random_seed(3)
    made = TrainableSupernet(TINY_NETS[architecture], levels=levels, connectivity=connectivity, **options)
    randomize(made, seed=11)
    return made


def weights_of(model: Supernet) -> list[np.ndarray]:
    return [weight.numpy() for layer in model.shared_layers for weight in layer.weights]


def statistics_of(model: Supernet) -> list[np.ndarray]:
    norms = [layer for layer in model.shared_layers if isinstance(layer, SwitchableBatchNormalization)]
    return [weight.numpy() for norm in norms for weight in (norm.moving_mean, norm.moving_variance)]


@pytest.mark.parametrize("architecture", TINY_NETS)
@pytest.mark.parametrize("connectivity", ["dense", "triangular", "diagonal"])
def test_several_paths_answer_together_as_alone(connectivity: str, architecture: str, batch: tuple) -> None:
    model = network(connectivity, architecture)
    some: Sequence[Path] = [model.paths[2], model.paths[0]]
    for paths in (model.paths, some):
        for path, found in zip(paths, model.call_paths(batch[0], paths), strict=True):
            alone = model(batch[0], path=path)
            for name, value in alone.items():
                np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_several_switches_answer_together_as_alone(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net()
    for path, found in zip(model.paths, model.call_paths(batch[0], model.paths), strict=True):
        np.testing.assert_array_equal(found["prediction"], model(batch[0], path=path)["prediction"])


def test_statistics_are_collected_once(batch: tuple) -> None:
    together, alone = network("triangular"), network("triangular")
    together.call_paths(batch[0], together.paths, training=True)
    alone(batch[0], path="level_4", training=True)
    for found, expected in zip(statistics_of(together), statistics_of(alone), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    diagonal = network("diagonal")
    before = statistics_of(diagonal)
    diagonal.call_paths(batch[0], diagonal.paths, training=True)
    once = statistics_of(diagonal)
    again = network("diagonal")
    again(batch[0], path="level_4", training=True)
    assert all(np.abs(new - old).max() > 0 for new, old in zip(once, before, strict=True))
    for found, expected in zip(once, statistics_of(again), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def gradients(model: TrainableSupernet, batch: tuple, soft_weight: float) -> list[np.ndarray]:
    """Of the sum of the levels' losses, each level run by itself, written out in TensorFlow."""
    images, labels = batch
    with tf.GradientTape() as tape:
        logits = [model(images, path=path, training=True)["prediction"] for path in model.paths]
        hard = [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, each) for each in logits]
        loss = tf.add_n([tf.reduce_mean(each) for each in hard])
        if soft_weight:
            wanted = tf.stop_gradient(tf.nn.softmax(logits[-1]))
            soft = [tf.nn.softmax_cross_entropy_with_logits(wanted, each) for each in logits[:-1]]
            loss += soft_weight * tf.add_n([tf.reduce_mean(each) for each in soft])
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return [tf.convert_to_tensor(gradient).numpy() for gradient in found]


@pytest.mark.parametrize("soft_weight", [0.0, 0.5])
@pytest.mark.parametrize("connectivity", ["triangular", "diagonal"])
def test_a_joint_step_adds_what_each_level_learns(connectivity: str, soft_weight: float, batch: tuple) -> None:
    model = network(connectivity)
    expected = gradients(network(connectivity), batch, soft_weight)
    model.compile(keras.optimizers.SGD(1.0), method=Anytime(soft_weight))
    before = [variable.numpy() for variable in model.trainable_variables]
    logs = model.train_on_batch(*batch, return_dict=True)
    for variable, old, wanted in zip(model.trainable_variables, before, expected, strict=True):
        np.testing.assert_allclose(old - variable.numpy(), wanted, atol=2e-5)
    names = [f"{kind}/level_{level}" for kind in ("loss", "accuracy") for level in (1, 2, 3, 4)]
    assert set(logs) == {"loss", *names}
    assert logs["loss"] == pytest.approx(sum(logs[f"loss/level_{level}"] for level in (1, 2, 3, 4)), rel=1e-5)


def test_nested_levels_add_up_too(batch: tuple) -> None:
    model = network("dense")
    expected = gradients(network("dense"), batch, 0.0)
    model.compile(keras.optimizers.SGD(1.0), method=Nested())
    before = [variable.numpy() for variable in model.trainable_variables]
    model.train_on_batch(*batch)
    for variable, old, wanted in zip(model.trainable_variables, before, expected, strict=True):
        np.testing.assert_allclose(old - variable.numpy(), wanted, atol=2e-5)


def test_upper_blocks_never_move(batch: tuple) -> None:
    model = network("triangular")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), method=Anytime(0.5))
    (layer,) = [layer for layer in model.shared_layers if layer.name == "pointwise_conv"]
    before = layer.kernel.numpy()
    for _ in range(3):
        model.train_on_batch(*batch)
    moved = layer.kernel.numpy() != before
    reads = (np.arange(8) // 2)[:, None] <= np.arange(16) // 4
    assert moved[..., reads].all() and not moved[..., ~reads].any()


def test_levels_are_judged_on_the_average_of_the_weights(batch: tuple) -> None:
    model = network("triangular")
    model.compile(keras.optimizers.SGD(0.1), method=Anytime(), average_decay=0.5)
    for _ in range(3):
        model.train_on_batch(*batch)
    logs = model.evaluate(*batch, batch_size=16, verbose=0, return_dict=True)
    finished = model.finished()
    assert [str(path) for path in finished.paths] == [str(path) for path in model.paths]
    assert any((a != b).any() for a, b in zip(weights_of(finished), weights_of(model), strict=True))
    for path in finished.paths:
        logits = finished(batch[0], path=path)["prediction"].numpy()
        assert logs[f"accuracy/{path}"] == pytest.approx((logits.argmax(axis=1) == batch[1]).mean())


def test_half_precision_trains_all_levels(batch: tuple) -> None:
    model = network("triangular", dtype="mixed_bfloat16")
    model.compile(keras.optimizers.SGD(0.1), method=Anytime())
    logs = model.train_on_batch(*batch, return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    assert model.call_paths(batch[0], model.paths)[0]["prediction"].dtype == "float32"


def test_the_step_is_one_entry_and_comes_back(batch: tuple) -> None:
    model = network("triangular")
    model.compile(keras.optimizers.SGD(0.1), method=Anytime(1.0))
    assert [type(entry) for entry in model.entries] == [Joint]
    again = network("triangular")
    again.compile_from_config(model.get_compile_config() or {})
    assert again.entries == model.entries
