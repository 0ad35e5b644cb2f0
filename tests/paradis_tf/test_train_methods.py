"""Training by each method, from the config to the finished model, on a few tiny images."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusion.base.program import UserError
from paradis_tf import models
from paradis_tf.evaluation.recalibration import recalibrate
from paradis_tf.operations import SwitchableBatchNormalization
from paradis_tf.records.workdir import Workdir, load_model
from paradis_tf.supernet import Supernet
from paradis_tf.training import run as training
from paradis_tf.training.teachers import check_teacher
from tests.paradis_tf.tiny_config import config_of

pytestmark = pytest.mark.usefixtures("tiny_known")


def config_for(data: Path, method: str, switches: tuple[str, ...]) -> ConfigDict:
    config = config_of(data, method)
    config.epochs = 1
    config.switches = switches
    config.optimizer.update(warmup_epochs=0.0, average_decay=0.0)
    return config


def statistics_of(model: Supernet) -> list[np.ndarray]:
    norms = [layer for layer in model.shared_layers if isinstance(layer, SwitchableBatchNormalization)]
    return [weight.numpy() for norm in norms for weight in (norm.moving_mean, norm.moving_variance)]


def test_us_slimmable_ends_with_statistics_of_plain_averages(tiny_data: Path, tmp_path: Path) -> None:
    config = config_for(tiny_data, "us_slimmable", ("1.0", "0.5", "0.25"))
    assert config.normalization == "shared_affine"
    workdir = training.train(config, str(tmp_path / "run"))
    finished = workdir.load_model()
    trained = load_model(workdir.checkpoints / "epoch_0001.keras")
    norm = finished.get_layer("stem_norm")
    assert norm.gamma.shape == (8,)
    found = statistics_of(finished)
    assert any(np.abs(new - old).max() > 1e-3 for new, old in zip(found, statistics_of(trained), strict=True))
    # The batches that training has seen first, on the finished weights.
    dataset = training.load_dataset(config, None)
    recalibrate(finished, training.calibration_batches(config, dataset, 5000))
    for new, old in zip(statistics_of(finished), found, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)


def test_a_teacher_is_needed_for_training_alone(tiny_data: Path, tmp_path: Path) -> None:
    teacher = training.train(config_for(tiny_data, "individual", ("1.0",)), str(tmp_path / "teacher"))
    config = config_for(tiny_data, "individual", ("4x0.25",))
    config.method.teacher = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere.*holds no run"):
        training.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    config.method.teacher = str(teacher.path)
    training.train(config, str(tmp_path / "run"))
    shutil.rmtree(teacher.path)
    workdir = Workdir.open(tmp_path / "run")
    model, dataset = training.load_run(workdir, None)
    assert [str(switch) for switch in model.switches] == ["4x0.25"]
    assert np.isfinite(keras.ops.convert_to_numpy(model(dataset.test.images)["prediction"])).all()


def test_a_teacher_without_the_full_width_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    teacher = training.train(config_for(tiny_data, "slimmable", ("0.5", "0.25")), str(tmp_path / "teacher"))
    config = config_for(tiny_data, "individual", ("4x0.25",))
    config.method.teacher = str(teacher.path)
    with pytest.raises(UserError, match=r"has no switch 1.0; it has 0.5, 0.25"):
        training.train(config, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "weight", "said"),
    [
        ({"classes": 4}, 0.0, "the teacher has classes 3, and the network 4; they agree."),
        (
            {"width_multiplier": 0.5},
            1.0,
            "the teacher has width_multiplier 0.25, and the network 0.5; they agree to be",
        ),
        ({"width_multiplier": 0.5}, 0.0, ""),
    ],
    ids=["classes", "features", "wider"],
)
def test_a_teacher_of_another_network_is_refused(changes: dict, weight: float, said: str) -> None:
    options = {"image_shape": (16, 16, 3), "classes": 3, "width_multiplier": 0.25, "form": "32"}
    teacher = Supernet({"name": "mobilenet_v1", **options}, ["1.0"])
    with pytest.raises(UserError, match=re.escape(said)) if said else contextlib.nullcontext():
        check_teacher(teacher, models.create(name="mobilenet_v1", **(options | changes)), bool(weight))


def test_a_teacher_for_another_task_is_refused() -> None:
    teacher = Supernet({"name": "wdsr", "image_shape": (16, 16, 3), "scale": 2, "blocks": 1, "filters": 8}, ["1.0"])
    network = models.create(name="mobilenet_v1", image_shape=(16, 16, 3), classes=3, width_multiplier=0.25, form="32")
    with pytest.raises(UserError, match=r"the teacher is for super_resolution, and the network for classification\."):
        check_teacher(teacher, network, False)
