from collections.abc import Callable

import numpy as np
import pytest

from export.compression import folded, quantization, training
from export.compression.settings import Compression
from fusion.base.program import UserError
from paradis_tf.supernet import Supernet
from tests.export.compression.conftest import normalized


def test_batches_take_every_image_before_any_comes_again() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.ones((1, 1, 2, 1), np.uint8)
    batches = list(training.batches(images, Compression(steps=3, batch_size=4)))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    drawn = np.concatenate(batches)[:, 0, 0, 0].tolist()
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    again = np.concatenate(list(training.batches(images, Compression(steps=3, batch_size=4))))
    assert again[:, 0, 0, 0].tolist() == drawn


def test_training_lowers_the_loss_of_a_network_that_rounds_badly(
    tiny_net: Callable[..., Supernet], images: np.ndarray
) -> None:
    model = tiny_net(("0.5+0.5",))
    layers = {layer.name: layer for layer in model.shared_layers}
    # One large weight on a feature that hardly speaks: the classifier's steps are too coarse for all others.
    norm, kernel = layers["pointwise_norm"], layers["logits"].kernel
    quiet = np.arange(norm.gamma.shape[0]) % 8 == 0
    for weight in (norm.gamma, norm.beta):
        weight.assign(np.where(quiet, 0.01, weight.numpy()))
    value = kernel.numpy() * 3
    value[::8, 0] = 100
    kernel.assign(value)
    switch, asked = model.switches[0], Compression(quantization_aware=True, steps=30, batch_size=48, learning_rate=1e-3)
    teachers = [folded.fold(model, switch, device) for device in range(2)]
    students = [
        quantization.wrap(
            folded.fold(model, switch, device, True), folded.weights_of(teachers[device]), asked, normalized(images)
        )
        for device in range(2)
    ]
    told: list[str] = []
    losses = training.train(students, teachers, model.task, asked, images, "quantization", "tiny", told.append)
    assert len(losses) == 30
    # The first is of the calibrated ranges alone.
    assert np.mean(losses[-10:]) < 0.6 * losses[0]
    assert told[-1].startswith("tiny, quantization: step 30/30, loss ") and told[-1].endswith(", 0:00 left")


def test_a_loss_that_is_not_finite_is_named(tiny_net: Callable[..., Supernet], images: np.ndarray) -> None:
    model = tiny_net(("1.0",))
    teacher = folded.fold(model, model.switches[0], 0)
    student = folded.fold(model, model.switches[0], 0, True)
    folded.load(student, {"logits/bias": np.full(5, np.nan, np.float32)})
    with pytest.raises(
        UserError, match=r"tiny, quantization: the loss was not finite in step 1 of 5; lower the learning rate"
    ):
        training.train(
            [student], [teacher], model.task, Compression(steps=5), images, "quantization", "tiny", lambda text: None
        )
