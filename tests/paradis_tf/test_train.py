"""The training program as its user meets it: it resumes after SIGKILL, and refuses bad input in one sentence."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusion.base.program import UserError
from paradis_tf import models
from paradis_tf.configs import digits_mobilenet_v1
from paradis_tf.records.workdir import load_model
from paradis_tf.supernet import Supernet
from paradis_tf.training import run as training

CONFIG = "--config=paradis_tf/configs/digits_mobilenet_v1.py"
SMALL = (
    CONFIG,
    "--config.model.width_multiplier=0.125",
    "--config.switches=('1.0','0.5+0.5')",
    "--config.batch_size=64",
    "--config.epochs=4",
)


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "paradis_tf.train", *flags]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*flags), capture_output=True, text=True, timeout=300)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.005)


def metrics(workdir: Path) -> tuple[list[str], np.ndarray]:
    with (workdir / "metrics.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    keep = [index for index, name in enumerate(header) if name not in ("seconds", "images_per_second")]
    return [header[i] for i in keep], np.array([[float(row[i]) for i in keep] for row in rows])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(*SMALL, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_killed_training_resumes_to_the_same_metrics(undisturbed: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with subprocess.Popen(
        command(*SMALL, f"--workdir={workdir}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(workdir / "checkpoints" / "epoch_0002.keras", process)
        process.send_signal(signal.SIGKILL)
    assert not (workdir / "model.keras").exists()
    # As if it had been killed between the row and the checkpoint of the third epoch.
    rows = (workdir / "metrics.csv").read_text().splitlines()
    (workdir / "metrics.csv").write_text("\n".join([*rows[:3], "3" + rows[2][1:], ""]))
    done = run(*SMALL, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "after epoch 2" in done.stdout
    (names, expected), (found_names, found) = metrics(undisturbed), metrics(workdir)
    assert names == found_names
    np.testing.assert_array_equal(found[:, 0], [1, 2, 3, 4])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_a_finished_run_is_left_alone(undisturbed: Path) -> None:
    before = (undisturbed / "model.keras").stat().st_mtime_ns
    done = run(*SMALL, f"--workdir={undisturbed}")
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert (undisturbed / "model.keras").stat().st_mtime_ns == before


def test_a_run_folder_holds_what_it_takes_to_know_the_run(undisturbed: Path) -> None:
    config = json.loads((undisturbed / "config.json").read_text())
    assert (config["model"]["width_multiplier"], config["switches"]) == (0.125, ["1.0", "0.5+0.5"])
    assert json.loads((undisturbed / "versions.json").read_text())["tensorflow"].startswith("2.")
    names, rows = metrics(undisturbed)
    assert {"loss/1.0", "accuracy/0.5+0.5", "val_accuracy/0.5+0.5", "learning_rate"} <= set(names)
    assert np.isfinite(rows).all()
    assert sorted(file.name for file in (undisturbed / "checkpoints").iterdir()) == [
        "epoch_0003.keras",
        "epoch_0004.keras",
    ]


def test_evaluate_measures_the_test_part(undisturbed: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    done = subprocess.run(
        [sys.executable, "-m", "paradis_tf.evaluate", f"--workdir={undisturbed}", f"--json={table}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(table.read_text())
    assert [(row["switch"], row["devices"], row["images"]) for row in rows] == [("1.0", 1, 359), ("0.5+0.5", 2, 359)]
    assert json.loads((undisturbed / "evaluation.json").read_text()) == rows
    assert all(0 <= row["accuracy"] <= row["top5_accuracy"] <= 1 for row in rows)
    assert done.stdout.splitlines()[-1].split()[0] == "-,1"


def test_the_validation_part_has_a_file_of_its_own(undisturbed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paradis_tf.evaluate", f"--workdir={undisturbed}", "--part=validation"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((undisturbed / "evaluation_validation.json").read_text())
    assert [(row["part"], row["images"]) for row in rows] == [("validation", 144)] * 2
    names, values = metrics(undisturbed)
    last = dict(zip(names, values[-1], strict=True))
    # The model is the last epoch's, and the part the one that the epoch was judged by.
    assert [row["accuracy"] for row in rows] == pytest.approx([last["val_accuracy/1.0"], last["val_accuracy/0.5+0.5"]])


def test_a_damaged_checkpoint_is_passed_over(undisturbed: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    model, newest = workdir / "model.keras", workdir / "checkpoints" / "epoch_0004.keras"
    for file in (model, newest):
        file.write_bytes(file.read_bytes()[:20000])
    done = run(*SMALL, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"passing over {model}, which is damaged; it is made again" in done.stdout
    assert f"passing over {newest}, which is damaged" in done.stdout
    load_model(model)
    assert "after epoch 3" in done.stdout
    (_, expected), (_, found) = metrics(undisturbed), metrics(workdir)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_a_checkpoint_of_another_network_is_refused(undisturbed: Path, tmp_path: Path, mobilenet: Supernet) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "model.keras").unlink()
    mobilenet.save(workdir / "checkpoints" / "epoch_0004.keras")
    done = run(*SMALL, f"--workdir={workdir}")
    assert done.returncode == 2
    assert f"the model in {workdir / 'checkpoints'} has architecture" in done.stderr
    assert not (workdir / "model.keras").exists()


def test_a_checkpoint_of_another_training_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "model.keras").unlink()
    config = digits_mobilenet_v1.get_config()
    values = {"model.width_multiplier": 0.125, "switches": ("1.0", "0.5+0.5"), "batch_size": 64, "epochs": 4}
    config.update_from_flattened_dict(values)
    newest = workdir / "checkpoints" / "epoch_0004.keras"
    model = load_model(newest)
    later = newest.rename(newest.with_name("epoch_0009.keras"))
    with pytest.raises(UserError, match="is of epoch 9, and the run has 4; it is another run's"):
        training.train(config, str(workdir))
    later.unlink()
    for optimizer, average_decay in ((keras.optimizers.Adam(), 0.0), (model.optimizer, 0.9)):
        model.compile(optimizer, method=model.method, average_decay=average_decay)
        model.save(newest)
        with pytest.raises(UserError, match=r"was trained with another optimizer.* config.optimizer gives \(sgd\)"):
            training.train(config, str(workdir))
    assert not (workdir / "model.keras").exists()
    assert metrics(workdir)[1].shape[0] == 4


def test_a_training_that_diverges_says_so_and_keeps_no_broken_model(tmp_path: Path) -> None:
    config = digits_mobilenet_v1.get_config()
    values = {"model.width_multiplier": 0.125, "switches": ("1.0",), "epochs": 2, "optimizer.learning_rate": 1e30}
    config.update_from_flattened_dict({**values, "optimizer.warmup_epochs": 0.5})
    with pytest.raises(
        UserError, match=r"training has diverged: the loss of switch 1\.0 was not finite in step \d+ of "
    ):
        training.train(config, str(tmp_path / "run"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "model.keras").exists()


def test_every_option_of_a_config_reaches_the_run(
    tmp_path: Path, tiny_net: Callable[..., Supernet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.ARCHITECTURES, "tiny", type(tiny_net().architecture))
    config = digits_mobilenet_v1.get_config()
    with config.unlocked():
        config.model = ConfigDict({"name": "tiny"})
    values = {
        "switches": ("0.5+0.5",),
        "epochs": 2,
        "precision": "mixed_float16",
        "keep": "best",
        "optimizer.name": "adam",
        "optimizer.momentum": 0.8,
        "optimizer.schedule": "steps",
        "optimizer.step_epochs": (1.5,),
        "optimizer.clip_norm": 3.0,
        "optimizer.weight_decay": 0.01,
        "optimizer.decay_all": True,
        "optimizer.average_decay": 0.9,
        "loss.label_smoothing": 0.1,
    }
    config.update_from_flattened_dict(values)
    workdir = training.train(config, str(tmp_path / "run"), tensorboard=True)
    _, model = workdir.restore()
    assert model is not None
    assert model.dtype_policy.name == "mixed_float16"
    assert (model.clip_norm, model.weight_decay, model.decay_all, model.average_decay) == (3.0, 0.01, True, 0.9)
    assert model.task.get_config() == {"label_smoothing": 0.1}
    adam = model.optimizer.inner_optimizer
    assert (type(adam).__name__, adam.beta_1) == ("Adam", 0.8)
    assert (adam._learning_rate.shape, adam._learning_rate.drop_steps) == ("steps", (30,))
    finished = workdir.load_model()
    assert finished.dtype_policy.name == "float32"
    assert finished.model_id() != model.model_id()
    part: Any = training.load_dataset(config, None).validation
    found = finished.evaluate(part.images, part.labels, verbose=0, return_dict=True)
    rows = workdir.metrics.rows()
    # The rows are of the average of the weights, computed in float16.
    best = max(rows, key=lambda row: (row["val_accuracy/0.5+0.5"], row["epoch"]))
    assert found["loss"] == pytest.approx(best["val_loss"], rel=0.01)
    assert len(list((workdir.path / "tensorboard").glob("*/events.out.tfevents.*"))) == 2


def test_another_config_is_refused(undisturbed: Path) -> None:
    done = run(*SMALL, "--config.seed=5", f"--workdir={undisturbed}")
    assert done.returncode == 2
    assert "config.seed=0, and 5 was asked for" in done.stderr


def test_control_c_says_how_to_go_on(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with subprocess.Popen(
        command(*SMALL, f"--workdir={workdir}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(workdir / "checkpoints" / "epoch_0001.keras", process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip() == "interrupted"
    assert f"the same command resumes {workdir}" in output


# Refused on the command line, before TensorFlow is loaded.
BAD_FLAGS = {
    "unknown key": (["--config.epoch=3"], "config has no key 'epoch' (did you mean 'epochs'?)"),
    "unknown nested key": (["--config.model.depth=3"], "config.model has no key 'depth'; it has form, name"),
    "type": (["--config.epochs=many"], "invalid literal"),
    "key twice": (
        ["--config.switches=('1.0',)", "--config.switches=('0.5+0.5',)"],
        "--config.switches is given 2 times; give it once",
    ),
    "argument": (["more"], "unexpected argument 'more'"),
}


@pytest.mark.parametrize(("flags", "sentence"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_bad_flags_are_one_sentence_and_leave_nothing(flags: list[str], sentence: str, tmp_path: Path) -> None:
    done = run(CONFIG, *flags, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "overlapping switch": ({"switches": ("0.75+0.5",)}, "slices would overlap"),
    "unknown switch": ({"switches": ("0.3",)}, "off the grid of 1/4; legal on the grid of 1/4: 1.0, 0.75+0.25"),
    "switch twice": ({"switches": ("0.5+0.5", "2x0.5")}, "listed twice"),
    "grid": ({"model.width_multiplier": 0.3}, "'block_1_pointwise_conv' has 19 channels"),
    "architecture": ({"model.name": "vgg"}, "architecture 'vgg' is unknown; known are mobilenet_v1, resnet"),
    "method": ({"method.name": "magic"}, "method 'magic' is unknown; known are individual, paradis"),
    "data": ({"dataset.name": "npz", "dataset.path": "/nowhere.npz"}, "/nowhere.npz does not exist"),
    "data of the other task": ({"dataset.name": "sr"}, "dataset 'sr' does not take image_size, path; it takes"),
    "no name": ({"dataset.name": "tfds:"}, "dataset 'tfds:' has no name"),
    "batch": ({"batch_size": 5000}, "batch_size is 5000; it lies between 1 and the 1294 training images"),
    "padding": ({"augmentation.crop_padding": 16}, "augmentation.crop_padding is 16"),
    "rate": ({"optimizer.learning_rate": -1.0}, "config.optimizer.learning_rate is -1.0; it is above 0"),
    "epochs": ({"epochs": 0}, "config.epochs is 0; it is at least 1"),
    "no batch": ({"batch_size": 0}, "config.batch_size is 0; it is at least 1"),
}


@pytest.mark.parametrize(("values", "sentence"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_bad_values_are_refused_before_the_folder_is_made(values: dict, sentence: str, tmp_path: Path) -> None:
    config = digits_mobilenet_v1.get_config()
    config.update_from_flattened_dict(values)
    with pytest.raises(UserError) as caught:
        training.train(config, str(tmp_path / "run"))
    assert sentence in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_bad_value_on_the_command_line_ends_in_one_sentence(tmp_path: Path) -> None:
    done = run(CONFIG, "--config.switches=('0.75+0.5',)", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: switch '0.75+0.5': widths 0.75+0.5 add up to 1.25")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (["--config=/nowhere/config.py"], "--config=/nowhere/config.py gives no configuration"),
        (["--config=/nowhere/config.py", "--config.epochs=3"], "--config=/nowhere/config.py gives no configuration"),
        (["--config=README.md"], "--config=README.md gives no configuration"),
        (["--config=paradis_tf/switches.py", "--config.epochs=3"], "it defines no get_config()"),
        (["--config", "paradis_tf/configs/defaults.py", "--config.epoch=3"], "did you mean 'epochs'?"),
        ([], "--config is missing"),
    ],
)
def test_an_unusable_config_is_named(config: list[str], sentence: str, tmp_path: Path) -> None:
    done = run(*config, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_flag_is_named() -> None:
    done = run(CONFIG)
    assert (done.returncode, done.stderr) == (2, "error: --workdir is missing.\n")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = run(*SMALL, f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "is not empty and holds no run" in done.stderr
