"""Teachers without a pass of their own, drawn passes, and the average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.methods import Paradis, USSlimmable
from paradis_tf.methods.passes import Method, Pass, Teacher, distillation
from paradis_tf.operations import SlicedConv2D, SlicedDense
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch
from paradis_tf.training.step import TrainableSupernet

# Without sets of live devices.
NEVER: dict[str, Any] = dict(live_weight=0.0, final_live_weight=0.0)


def weights_of(model: Supernet) -> list[np.ndarray]:
    return [weight.numpy() for layer in model.shared_layers for weight in layer.weights]


def kernels_of(model: Supernet) -> list[keras.Variable]:
    return [layer.kernel for layer in model.shared_layers if isinstance(layer, SlicedConv2D | SlicedDense)]


def gradient(model: Supernet, one: Pass, batch: tuple, taught: dict[str, Any]) -> list[np.ndarray]:
    kernels = [kernel.value for kernel in kernels_of(model)]
    with tf.GradientTape() as tape:
        loss = one.loss(
            model.task, batch[1], model(batch[0], path=one.path, training=True), {each: taught for each in one.teachers}
        )
    return [tf.convert_to_tensor(part).numpy() for part in tape.gradient(loss, kernels)]


def test_the_average_follows_the_weights_of_every_step(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("1.0", "4x0.25"))
    model.compile(keras.optimizers.SGD(0.1), method=Paradis(), average_decay=0.5)
    expected = weights_of(model)
    for step in range(1, 13):
        model.train_on_batch(*batch)
        decay = min(0.5, step / (10 + step))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights_of(model), strict=True)]
    for found, wanted, other in zip(weights_of(model.finished()), expected, weights_of(model), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert np.abs(found - other).max() > 1e-4


def test_validation_is_on_the_average_and_moves_no_weight(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("1.0", "4x0.25"))
    model.compile(keras.optimizers.SGD(0.5), method=Paradis(), average_decay=0.9)
    model.fit(*batch, batch_size=4, epochs=3, verbose=0)
    trained = weights_of(model)
    found = model.evaluate(*batch, batch_size=5, verbose=0, return_dict=True)
    for weight, value in zip(weights_of(model), trained, strict=True):
        np.testing.assert_array_equal(weight, value)
    network = model.finished()
    for switch in model.switches:
        losses = []
        for one in (network, model):
            logits = one(batch[0], path=switch)["prediction"].numpy().astype(np.float64)
            losses.append((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), batch[1]]).mean())
        assert found[f"loss/{switch}"] == pytest.approx(losses[0], rel=1e-4)
        assert abs(losses[0] - losses[1]) > 1e-3


def test_the_average_survives_saving(tmp_path, batch: tuple) -> None:
    architecture = {"name": "mobilenet_v1", "image_shape": (8, 8, 3), "classes": 5, "width_multiplier": 0.125}
    model = TrainableSupernet(architecture, ("1.0", "0.5+0.5"))
    model.compile(keras.optimizers.SGD(0.1), method=Paradis(teacher="average"), average_decay=0.5, loss={})
    rng = np.random.default_rng(0)
    for kept in model._average:
        kept.assign(rng.normal(size=kept.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.average_decay == 0.5
    for found, wanted in zip(loaded._average, model._average, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(weights_of(loaded), weights_of(model), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_average_of_the_weights_teaches(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    teacher, model = tiny_net(("1.0", "4x0.25")), tiny_net(("1.0", "4x0.25"))
    for layer in teacher.shared_layers:
        layer.set_weights([value * 0.9 for value in layer.get_weights()])
    taught = {name: value.numpy() for name, value in teacher(batch[0], path="1.0").items()}
    model.compile(
        keras.optimizers.SGD(1.0),
        method=Paradis(teacher="average", **NEVER),
        average_decay=0.9,
    )
    for kept, value in zip(model._average, weights_of(teacher), strict=True):
        kept.assign(value)
    wide, student = model.entries
    assert isinstance(wide, Pass)
    assert isinstance(student, Pass)
    expected = [
        a + b for a, b in zip(gradient(model, wide, batch, {}), gradient(model, student, batch, taught), strict=True)
    ]
    before = [kernel.numpy() for kernel in kernels_of(model)]
    model.train_on_batch(*batch)
    for kernel, old, wanted in zip(kernels_of(model), before, expected, strict=True):
        np.testing.assert_allclose(old - kernel.numpy(), wanted, atol=2e-5)
    with pytest.raises(UserError, match="learns from the average of the weights; optimizer.average_decay is 0"):
        model.compile("sgd", method=Paradis(teacher="average"))


class Taught(Method):
    """One switch that learns from another network."""

    def __init__(self, network: Supernet | None) -> None:
        self.fixed_teacher = network

    def passes(self, paths: Any, widest: Any) -> tuple[Pass, ...]:
        return (Pass(widest, distillation(Teacher(Switch.parse("1.0"), "fixed"), 0.5, 1.0, 2.0)),)

    def get_config(self) -> dict[str, Any]:
        return {}


def test_another_network_teaches_and_learns_nothing(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    teacher, model = tiny_net(("1.0",)), tiny_net(("4x0.25",))
    for layer in teacher.shared_layers:
        layer.set_weights([value * 0.9 for value in layer.get_weights()])
    taught = {name: value.numpy() for name, value in teacher(batch[0]).items()}
    kept = weights_of(teacher)
    model.compile(keras.optimizers.SGD(1.0), method=Taught(teacher))
    (one,) = model.entries
    assert isinstance(one, Pass)
    expected = gradient(model, one, batch, taught)
    before = [kernel.numpy() for kernel in kernels_of(model)]
    model.train_on_batch(*batch)
    for kernel, old, wanted in zip(kernels_of(model), before, expected, strict=True):
        np.testing.assert_allclose(old - kernel.numpy(), wanted, atol=2e-5)
    for found, wanted in zip(weights_of(teacher), kept, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(model.weights) == len(tiny_net(("4x0.25",)).weights)
    model.compile(keras.optimizers.SGD(1.0), method=Taught(None))
    with pytest.raises(ValueError, match="fixed teacher, and Taught has none"):
        model.train_on_batch(*batch)


def test_random_widths_are_drawn_by_the_step(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    """In 24 steps of one draw each of two widths is run, the same ones again when the steps are repeated."""
    widths = ("1.0", "0.75", "0.5", "0.25")

    def run(seed: int = 0) -> tuple[list[tuple[bool, bool]], list[np.ndarray]]:
        model = tiny_net(widths)
        model.compile(keras.optimizers.SGD(0.01), method=USSlimmable(random_widths=1), seed=seed)
        drawn = []
        for _ in range(24):
            logs = model.train_on_batch(*batch, return_dict=True)
            model.reset_metrics()
            assert logs["loss/1.0"] > 0 < logs["loss/0.25"]
            drawn.append((bool(logs["loss/0.75"]), bool(logs["loss/0.5"])))
        return drawn, weights_of(model)

    drawn, weights = run()
    assert set(drawn) == {(True, False), (False, True)}
    again, same = run()
    assert again == drawn
    assert run(seed=1)[0] != drawn
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_students_weight_changes_in_the_course_of_a_training(
    tiny_net: Callable[..., Supernet], batch: tuple
) -> None:
    """Down to nothing in four steps, the first three have the weights 1, 3/4 and 1/2."""
    faded, steady = tiny_net(("1.0", "4x0.25")), tiny_net(("1.0", "4x0.25"))
    for layer, like in zip(steady.shared_layers, faded.shared_layers, strict=True):
        layer.set_weights(like.get_weights())
    faded.compile(keras.optimizers.SGD(0.1), method=Paradis(final_student_weight=0.0, **NEVER), total_steps=4)
    for weight in (1.0, 0.75, 0.5):
        method = Paradis(student_weight=weight, final_student_weight=weight, **NEVER)
        steady.compile(keras.optimizers.SGD(0.1), method=method)
        for model in (faded, steady):
            found = model.train_on_batch(*batch, return_dict=True)
        for one, other in zip(weights_of(faded), weights_of(steady), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        # The loss of a switch is told as it is, their sum as it is learnt from.
        parts = found["loss/1.0"] + weight * found["loss/4x0.25"]
        assert found["loss"] == pytest.approx(parts, rel=1e-5)


def test_without_a_length_the_students_weight_stays(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("1.0", "4x0.25"))
    model.compile(keras.optimizers.SGD(0.1), method=Paradis(student_weight=0.5, final_student_weight=0.0, **NEVER))
    for _ in range(2):
        found = model.train_on_batch(*batch, return_dict=True)
        assert found["loss"] == pytest.approx(found["loss/1.0"] + 0.5 * found["loss/4x0.25"], rel=1e-5)
        model.reset_metrics()
    with pytest.raises(ValueError, match="total_steps is -1"):
        model.compile("sgd", method=Paradis(), total_steps=-1)
