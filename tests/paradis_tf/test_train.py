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

from fusion.base.program import UserError
from paradis_tf.configs import digits_mobilenet_v1
from paradis_tf.records.workdir import load_model
from paradis_tf.supernet import Supernet
from paradis_tf.training import run as training
from tests.conftest import narrow_resnet
from tests.paradis_tf.tiny_config import config_of, wait_until_stopped

CONFIG = "--config=paradis_tf/configs/digits_mobilenet_v1.py"
TINY = "--config=tests/paradis_tf/tiny_config.py"


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "paradis_tf.train", *flags]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*flags), capture_output=True, text=True, timeout=600)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.005)


def metrics(workdir: Path) -> tuple[list[str], np.ndarray]:
    with (workdir / "metrics.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    keep = [index for index, name in enumerate(header) if name not in ("seconds", "images_per_second")]
    return [header[i] for i in keep], np.array([[float(row[i]) for i in keep] for row in rows])


def assert_same_metrics(workdir: Path, expected: Path) -> None:
    (names, values), (expected_names, expected_values) = metrics(workdir), metrics(expected)
    assert names == expected_names
    np.testing.assert_allclose(values, expected_values, rtol=2e-3, atol=2e-3)


@pytest.fixture
def tiny_copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_a_killed_training_resumes_to_the_same_metrics(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_DATA", str(tiny_data))
    monkeypatch.setenv("TINY_STOP", "epoch_0002.keras")
    workdir = tmp_path / "run"
    with subprocess.Popen(
        command(TINY, f"--workdir={workdir}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until_stopped(process.pid)
        process.send_signal(signal.SIGKILL)
    monkeypatch.delenv("TINY_STOP")
    assert not (workdir / "model.keras").exists()
    last = max(int(file.stem.removeprefix("epoch_")) for file in (workdir / "checkpoints").glob("epoch_*.keras"))
    # As if it had been killed between the row and the checkpoint of the next epoch.
    rows = (workdir / "metrics.csv").read_text().splitlines()[: last + 1]
    (workdir / "metrics.csv").write_text("\n".join([*rows, f"{last + 1}{rows[1][1:]}", ""]))
    done = run(TINY, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"after epoch {last}" in done.stdout
    assert_same_metrics(workdir, tiny_run)


@pytest.mark.usefixtures("tiny_known")
def test_a_finished_run_is_left_alone(tiny_copy: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (tiny_copy / name).stat().st_mtime_ns for name in ("model.keras", "metrics.csv")}
    training.train(config_of(tiny_data), str(tiny_copy))
    assert "holds the finished run of 4 epochs; nothing to do" in capsys.readouterr().out
    shutil.rmtree(tiny_copy / "checkpoints")
    training.train(config_of(tiny_data), str(tiny_copy))
    assert "nothing to do" in capsys.readouterr().out
    assert {name: (tiny_copy / name).stat().st_mtime_ns for name in before} == before


def test_a_run_folder_holds_what_it_takes_to_know_the_run(tiny_run: Path) -> None:
    config = json.loads((tiny_run / "config.json").read_text())
    assert (config["model"], config["switches"]) == ({"name": "tiny"}, ["1.0", "0.5+0.5"])
    assert json.loads((tiny_run / "versions.json").read_text())["tensorflow"].startswith("2.")
    names, rows = metrics(tiny_run)
    assert {"loss/1.0", "accuracy/0.5+0.5", "val_accuracy/0.5+0.5", "learning_rate"} <= set(names)
    assert np.isfinite(rows).all()
    files = sorted(file.name for file in (tiny_run / "checkpoints").iterdir())
    assert files == ["epoch_0003.keras", "epoch_0004.keras"]


def test_evaluate_measures_a_part(tiny_copy: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    flags = (f"--workdir={tiny_copy}", "--part=validation", f"--json={table}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.paradis_tf.tiny_config", "paradis_tf.evaluate", *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(table.read_text())
    assert [(row["switch"], row["devices"], row["images"]) for row in rows] == [("1.0", 1, 12), ("0.5+0.5", 2, 12)]
    assert json.loads((tiny_copy / "evaluation_validation.json").read_text()) == rows
    [alone, other] = [one["accuracy"] for one in rows[1]["live_subsets"] if len(one["devices"]) == 1]
    *_, header, _, last_line = done.stdout.splitlines()
    assert header.split() == ["switch", "2", "left", "1", "left"]
    assert last_line.split() == ["0.5+0.5", f"{100 * rows[1]['accuracy']:.2f}", f"{50 * (alone + other):.2f}"]
    names, values = metrics(tiny_copy)
    last = dict(zip(names, values[-1], strict=True))
    # The model is the last epoch's, and the part the one that the epoch was judged by.
    assert [row["accuracy"] for row in rows] == pytest.approx([last["val_accuracy/1.0"], last["val_accuracy/0.5+0.5"]])


@pytest.mark.parametrize("full", [True, False], ids=["full output", "read-only folder"])
def test_what_was_measured_is_not_lost(tiny_copy: Path, full: bool) -> None:
    written = tiny_copy / "evaluation.json"
    if not full:
        # In place of a folder without leave to write, which root has everywhere.
        written.mkdir()
    with open("/dev/full", "w") as nothing:
        done = subprocess.run(
            [sys.executable, "-m", "tests.paradis_tf.tiny_config", "paradis_tf.evaluate", f"--workdir={tiny_copy}"],
            stdout=nothing if full else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    if full:
        assert said == "error: standard output cannot be written: No space left on device."
        assert [row["switch"] for row in json.loads(written.read_text())] == ["1.0", "0.5+0.5"]
    else:
        assert said == f"error: file '{written}' cannot be written: Is a directory."
        assert done.stdout.splitlines()[-1].split()[0] == "0.5+0.5"
        assert any(line.split()[:1] == ["-,1"] for line in done.stdout.splitlines())


@pytest.mark.usefixtures("tiny_known")
def test_a_damaged_checkpoint_is_passed_over(
    tiny_copy: Path, tiny_run: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, newest = tiny_copy / "model.keras", tiny_copy / "checkpoints" / "epoch_0004.keras"
    for file in (model, newest):
        file.write_bytes(file.read_bytes()[:20000])
    training.train(config_of(tiny_data), str(tiny_copy))
    output = capsys.readouterr().out
    assert f"passing over {model}, which is damaged; it is made again" in output
    assert f"passing over {newest}, which is damaged" in output
    load_model(model)
    assert "after epoch 3" in output
    assert_same_metrics(tiny_copy, tiny_run)


@pytest.mark.usefixtures("tiny_known")
@pytest.mark.parametrize("keep", ["last", "best"])
def test_lost_metrics_are_said_and_go_on(
    tiny_copy: Path, tiny_run: Path, tiny_data: Path, keep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (tiny_copy / "model.keras", tiny_copy / "checkpoints" / "epoch_0004.keras"):
        file.unlink()
    settings = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps(settings | {"keep": keep}))
    (tiny_copy / "metrics.csv").write_text("")
    config = config_of(tiny_data)
    config.keep = keep
    training.train(config, str(tiny_copy), tensorboard=True)
    output = capsys.readouterr().out
    assert f"{tiny_copy / 'metrics.csv'} was emptied, cut off or removed: the metrics of 3 epochs from 1 to 3" in output
    (names, values), (expected_names, expected_values) = metrics(tiny_copy), metrics(tiny_run)
    assert names == expected_names
    np.testing.assert_allclose(values, expected_values[3:], rtol=2e-3, atol=2e-3)
    load_model(tiny_copy / "model.keras")
    (tiny_copy / "metrics.csv").write_text("")
    (tiny_copy / "model.keras").unlink()
    training.train(config, str(tiny_copy))
    assert "the metrics of 4 epochs from 1 to 4 are lost" in capsys.readouterr().out
    assert not (tiny_copy / "metrics.csv").exists()


@pytest.mark.usefixtures("tiny_known")
def test_other_columns_are_refused_before_the_first_epoch(
    tiny_copy: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (tiny_copy / "model.keras", tiny_copy / "checkpoints" / "epoch_0004.keras"):
        file.unlink()
    header, *rows = (tiny_copy / "metrics.csv").read_text().splitlines()
    content = "\n".join([header.replace("accuracy/1.0", "top5/1.0"), *rows[:3], ""])
    (tiny_copy / "metrics.csv").write_text(content)
    with pytest.raises(UserError, match="lacks accuracy/1.0, val_accuracy/1.0 and has top5/1.0, val_top5/1.0 bes"):
        training.train(config_of(tiny_data), str(tiny_copy))
    assert "epoch 4/4" not in capsys.readouterr().out
    assert (tiny_copy / "metrics.csv").read_text() == content


@pytest.mark.usefixtures("tiny_known")
def test_a_checkpoint_without_an_optimizer_is_refused(tiny_copy: Path, tiny_data: Path) -> None:
    """As those of older versions are read, and a finished model that was put there."""
    shutil.copy(tiny_copy / "model.keras", tiny_copy / "checkpoints" / "epoch_0003.keras")
    for file in (tiny_copy / "model.keras", tiny_copy / "checkpoints" / "epoch_0004.keras"):
        file.unlink()
    with pytest.raises(UserError, match="trained with another optimizer, or without one, .* older version"):
        training.train(config_of(tiny_data), str(tiny_copy))


@pytest.mark.usefixtures("tiny_known")
def test_a_checkpoint_of_another_network_is_refused(tiny_copy: Path, tiny_data: Path) -> None:
    (tiny_copy / "model.keras").unlink()
    Supernet(narrow_resnet(10, (8, 8, 3), 5), ["1.0", "0.5+0.5"]).save(tiny_copy / "checkpoints" / "epoch_0004.keras")
    with pytest.raises(UserError, match=rf"the model in {tiny_copy / 'checkpoints'} has architecture"):
        training.train(config_of(tiny_data), str(tiny_copy))
    assert not (tiny_copy / "model.keras").exists()


@pytest.mark.usefixtures("tiny_known")
def test_a_checkpoint_of_another_training_is_refused(
    tiny_copy: Path, tiny_data: Path, tiny_net: Callable[..., Supernet]
) -> None:
    (tiny_copy / "model.keras").unlink()
    config = config_of(tiny_data)
    newest = tiny_copy / "checkpoints" / "epoch_0004.keras"
    method = load_model(newest).method
    later = newest.rename(newest.with_name("epoch_0009.keras"))
    with pytest.raises(UserError, match="is of epoch 9, and the run has 4; it is another run's"):
        training.train(config, str(tiny_copy))
    later.unlink()
    for optimizer, average_decay in ((keras.optimizers.Adam(), 0.9), (keras.optimizers.SGD(0.1, 0.9), 0.0)):
        other = tiny_net(("1.0", "0.5+0.5"))
        other.compile(optimizer, method=method, average_decay=average_decay)
        other.save(newest)
        with pytest.raises(UserError, match=r"was trained with another optimizer.* config.optimizer gives \(sgd\)"):
            training.train(config, str(tiny_copy))
    assert not (tiny_copy / "model.keras").exists()
    assert metrics(tiny_copy)[1].shape[0] == 4


@pytest.mark.usefixtures("tiny_known")
def test_a_training_that_diverges_says_so_and_keeps_no_broken_model(tiny_data: Path, tmp_path: Path) -> None:
    config = config_of(tiny_data)
    config.update_from_flattened_dict({"switches": ("1.0", "0.5+0.5"), "optimizer.learning_rate": 1e30})
    config.optimizer.warmup_epochs = 0.0
    with pytest.raises(
        UserError, match=r"training has diverged: the loss of switch 1\.0 was not finite in step \d+ of "
    ):
        training.train(config, str(tmp_path / "run"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.usefixtures("tiny_known")
def test_every_option_of_a_config_reaches_the_run(tiny_data: Path, tmp_path: Path) -> None:
    config = config_of(tiny_data)
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
    # 108 images in batches of 16 are 6 steps.
    assert (adam._learning_rate.shape, adam._learning_rate.drop_steps) == ("steps", (9,))
    finished = workdir.load_model()
    assert finished.dtype_policy.name == "float32"
    assert finished.model_id() != model.model_id()
    part: Any = training.load_dataset(config, None).validation
    measured = float(model.task.loss(part.labels, finished(part.images)["prediction"]))
    rows = workdir.metrics.rows()
    # The rows are of the average of the weights, computed in float16.
    best = max(rows, key=lambda row: (row["val_accuracy/0.5+0.5"], row["epoch"]))
    assert measured == pytest.approx(best["val_loss"], rel=0.01)
    assert len(list((workdir.path / "tensorboard").glob("*/events.out.tfevents.*"))) == 2


@pytest.mark.usefixtures("tiny_known")
def test_another_config_is_refused(tiny_copy: Path, tiny_data: Path) -> None:
    config = config_of(tiny_data)
    config.seed = 5
    with pytest.raises(UserError, match="config.seed=0, and 5 was asked for"):
        training.train(config, str(tiny_copy))


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_training_that_is_stopped_says_how_to_go_on(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    monkeypatch.setenv("TINY_DATA", str(tiny_data))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    workdir = tmp_path / "run"
    with subprocess.Popen(
        command(TINY, "--config.epochs=100", f"--workdir={workdir}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(workdir / "checkpoints" / "epoch_0001.keras", process)
        process.send_signal(number)
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert errors.strip().splitlines()[-1] == word
    assert "Traceback" not in errors
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
    "architecture": ({"model.name": "vgg"}, "architecture 'vgg' is unknown; known are i_resnext, mobilenet_v1, resnet"),
    "method": ({"method.name": "magic"}, "method 'magic' is unknown; known are anytime, individual, nested, paradis"),
    "data": ({"dataset.name": "npz", "dataset.path": "/nowhere.npz"}, "/nowhere.npz does not exist"),
    "data of the other task": (
        {"dataset.name": "sr"},
        "dataset 'sr' does not take classes, image_size, path; it takes",
    ),
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


@pytest.mark.usefixtures("tiny_known")
def test_a_folder_of_something_else_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        training.train(config_of(tiny_data), str(tmp_path))
