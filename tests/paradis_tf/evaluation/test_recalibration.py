"""Recalibrated statistics against NumPy, and the program that puts them into a run folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf.evaluation.recalibration import recalibrate
from paradis_tf.operations import SwitchableBatchNormalization
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet
from tests.conftest import TinyNet, randomize


def some_batches(*sizes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(9)
    return [(rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8), np.zeros(size, np.int64)) for size in sizes]


def stem(model: Supernet, images: np.ndarray) -> np.ndarray:
    """The first convolution of the tiny network by NumPy: 3x3, stride 2, `same` padding, (pixels, 8)."""
    kernel = model.shared_layers[0].kernel.numpy().astype(np.float64)
    padded = np.pad((images.astype(np.float64) - 128) / 128, [(0, 0), (0, 1), (0, 1), (0, 0)])
    found = np.zeros((len(images), 4, 4, 8))
    for i in range(3):
        for j in range(3):
            found += padded[:, i : i + 7 : 2, j : j + 7 : 2] @ kernel[i, j]
    return found.reshape(-1, 8)


def norms(model: Supernet) -> list[SwitchableBatchNormalization]:
    return [layer for layer in model.shared_layers if isinstance(layer, SwitchableBatchNormalization)]


@pytest.mark.parametrize("normalization", ["private", "shared_affine"])
def test_the_first_norm_has_the_average_of_the_batches(tiny_net: Callable[..., Supernet], normalization: str) -> None:
    model = tiny_net(("1.0", "0.5+0.25+0.25"), normalization=normalization)
    batches = some_batches(8, 8, 8)
    assert recalibrate(model, batches) == 24
    outputs = [stem(model, images) for images, _ in batches]
    mean = np.concatenate(outputs).mean(axis=0)
    variance = np.mean([each.var(axis=0, ddof=1) for each in outputs], axis=0)
    for switch in model.switches:
        for device, slice in enumerate(switch.slices):
            first, last = slice.channels(8, "stem")
            *_, found_mean, found_variance = norms(model)[0].static_weights(switch.cut(device))
            np.testing.assert_allclose(found_mean, mean[first:last], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found_variance, variance[first:last], rtol=1e-4)


def test_unequal_batches_count_by_their_images(tiny_net: Callable[..., Supernet]) -> None:
    model = tiny_net(("1.0",))
    batches = some_batches(7, 2)
    recalibrate(model, batches)
    mean = stem(model, np.concatenate([images for images, _ in batches])).mean(axis=0)
    np.testing.assert_allclose(norms(model)[0].moving_mean, mean, rtol=1e-4, atol=1e-5)


def test_one_batch_makes_inference_equal_training(tiny_net: Callable[..., Supernet]) -> None:
    """The deeper norms, too: what they saw was normalized by the norms before them."""
    model = tiny_net(("1.0", "0.5+0.25+0.25"))
    batches = some_batches(64)
    trained = {switch: model(batches[0][0], path=switch, training=True)["prediction"] for switch in model.switches}
    recalibrate(model, batches)
    for switch, prediction in trained.items():
        # The collected variance is the unbiased one, of 64 * 16 pixels.
        np.testing.assert_allclose(model(batches[0][0], path=switch)["prediction"], prediction, rtol=0.01, atol=0.01)


def test_what_was_there_before_has_no_part_in_it(tiny_net: Callable[..., Supernet]) -> None:
    first, second = (tiny_net(("1.0", "0.5+0.5")) for _ in range(2))
    for layer in norms(second):
        layer.moving_mean.assign(np.full(layer.moving_mean.shape, 1e6, np.float32))
        layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1e-3, np.float32))
    before = {weight.path: weight.numpy().copy() for weight in first.weights}
    for model in (first, second):
        recalibrate(model, some_batches(8, 8))
    for one, other in zip(first.weights, second.weights, strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()
        moving = one.name.startswith("moving_")
        assert (one.numpy().tobytes() == before[one.path].tobytes()) is not moving


def test_what_cannot_be_recalibrated_is_refused(tiny_net: Callable[..., Supernet]) -> None:
    model = tiny_net(("1.0", "0.5+0.5"))
    with pytest.raises(UserError, match="switch '1.0' got no images"):
        recalibrate(model, [])
    with pytest.raises(UserError, match=r"switch '0\.5\+0\.5' got no images"):
        recalibrate(model, iter(some_batches(4)))
    model.shared_layers[0].kernel.assign(np.full((3, 3, 3, 8), 3e38, np.float32))
    with pytest.raises(UserError, match="layer 'stem_norm' in switch '1.0' are not finite"):
        recalibrate(model, some_batches(4))


@pytest.mark.parametrize("connectivity", ["dense", "triangular", "diagonal"])
def test_one_batch_makes_levels_answer_as_in_training(connectivity: str) -> None:
    model = randomize(Supernet(TinyNet(), levels=4, connectivity=connectivity), seed=11)
    batches = some_batches(64)
    trained = {level: model(batches[0][0], path=level, training=True)["prediction"] for level in model.paths}
    told: list[str] = []
    assert recalibrate(model, batches, told.append) == 64
    runs = 4 if connectivity == "dense" else 1
    assert told == [f"recalibrating level {level}" for level in (4, 3, 2, 1)][:runs]
    for level, prediction in trained.items():
        np.testing.assert_allclose(model(batches[0][0], path=level)["prediction"], prediction, rtol=0.01, atol=0.01)


def program(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.paradis_tf.tiny_config", "paradis_tf.recalibrate", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.usefixtures("tiny_known")
def test_the_program_replaces_the_model_of_a_run(tiny_run: Path, tmp_path: Path) -> None:
    workdir = Workdir.open(shutil.copytree(tiny_run, tmp_path / "run"))
    before = workdir.load_model()
    done = program(f"--workdir={workdir.path}", "--images=40", f"--json={tmp_path / 'table.json'}")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [(row["switch"], row["devices"]) for row in rows] == [("1.0", 1), ("0.5+0.5", 2)]
    assert {(row["images"], row["validation_images"]) for row in rows} == {(48, 12)}
    assert "accuracy on 12 validation images, statistics of 48 training images" in done.stdout
    after = workdir.load_model()
    assert after.model_id() == rows[0]["model_id"] != before.model_id()
    for old, new in zip(before.trainable_weights, after.trainable_weights, strict=True):
        assert old.numpy().tobytes() == new.numpy().tobytes()
    assert not list(workdir.path.glob(".*"))
