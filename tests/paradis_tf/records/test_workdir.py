"""The run folder: made, resumed, locked, and what damage to its files leads to."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import keras
import pytest
from ml_collections import ConfigDict

from fusion.base.program import UserError
from paradis_tf.records import workdir as module
from paradis_tf.records.workdir import PACKAGES, Workdir, load_model, package_versions
from paradis_tf.supernet import Supernet

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
import threading
from paradis_tf.records.workdir import Workdir
with Workdir(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def config(**changes: Any) -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "epochs": 3,
            "switches": ("1.0", "0.5+0.5"),
            "optimizer": {"learning_rate": 0.1, "nesterov": True},
            "path": None,
            **changes,
        }
    )


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir.create(tmp_path / "run", config())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_create_writes_config_and_versions(tmp_path: Path) -> None:
    made = Workdir.create(tmp_path / "deep" / "run", config())
    assert names(made.path) == {"config.json", "versions.json", "checkpoints", "lock"}
    assert made.config() == {
        "seed": 0,
        "epochs": 3,
        "switches": ["1.0", "0.5+0.5"],
        "optimizer": {"learning_rate": 0.1, "nesterov": True},
        "path": None,
    }
    versions = json.loads((made.path / "versions.json").read_text())
    assert versions == package_versions()
    assert set(versions) == {"python", *PACKAGES}
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert Workdir.create(str(tmp_path), config()).config()["epochs"] == 3


def test_the_same_config_resumes_and_touches_nothing(workdir: Workdir) -> None:
    (workdir.path / "versions.json").write_text("as it was")
    before = workdir.config_file.read_bytes()
    again = Workdir.create(workdir.path, config(switches=["1.0", "0.5+0.5"]))
    assert again.path == workdir.path
    assert workdir.config_file.read_bytes() == before
    assert (workdir.path / "versions.json").read_text() == "as it was"
    assert Workdir.open(workdir.path).config() == workdir.config()


@pytest.mark.parametrize(
    ("changes", "held", "new"),
    [
        ({"epochs": 4}, "with config.epochs=3", "4"),
        ({"optimizer": {"learning_rate": 0.2, "nesterov": True}}, "with config.optimizer.learning_rate=0.1", "0.2"),
        ({"optimizer": {"learning_rate": 0.1}}, "with config.optimizer.nesterov=True", "None"),
        ({"switches": ("0.5+0.5", "1.0")}, "with config.switches=['1.0', '0.5+0.5']", "['0.5+0.5', '1.0']"),
        ({"grid": 8}, "without config.grid", "8"),
        ({"path": "a"}, "with config.path=None", "'a'"),
        ({"optimizer": 1}, "without config.optimizer", "1"),
        ({"seed": 1, "epochs": 4}, "with config.epochs=3", "4"),
    ],
)
def test_another_config_is_refused(workdir: Workdir, changes: dict[str, Any], held: str, new: str) -> None:
    before = workdir.config_file.read_bytes()
    with pytest.raises(UserError) as error:
        Workdir.create(workdir.path, config(**changes))
    assert f"--workdir={workdir.path} holds a run {held}, and {new} was asked for" in str(error.value)
    # An option that one side lacks may be of another version of the program.
    assert ("version of the program" in str(error.value)) == (held.startswith("without") or new == "None")
    assert workdir.config_file.read_bytes() == before


def test_a_folder_of_other_things_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        Workdir.create(tmp_path, config())
    assert names(tmp_path) == {"thesis.tex"}


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_a_config_that_json_cannot_hold_leaves_no_folder(tmp_path: Path, rate: float) -> None:
    with pytest.raises(UserError, match="the config cannot be kept as JSON"):
        Workdir.create(tmp_path / "run", config(optimizer={"learning_rate": rate}))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("file", ["versions.json", "config.json"])
def test_a_creation_that_was_cut_off_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    def write_json(path: Path, value: Any) -> None:
        if path.name == file:
            path.with_name(f"{file}x1.part").write_text("{")
            raise KeyboardInterrupt
        path.write_text("{}")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", write_json)
        with pytest.raises(KeyboardInterrupt):
            Workdir.create(tmp_path / "run", config())
    made = Workdir.create(tmp_path / "run", config())
    assert made.config()["epochs"] == 3
    assert json.loads((made.path / "versions.json").read_text()) == package_versions()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        UserError, match=rf"--workdir={re.escape(str(tmp_path / place))} cannot be made: Not a directory"
    ):
        Workdir.create(tmp_path / place, config())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["none", "empty", "file"])
def test_open_wants_a_run(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"--workdir={re.escape(str(tmp_path / place))} holds no run"):
        Workdir.open(tmp_path / place)
    assert names(tmp_path) == {"empty", "file"}


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        Workdir.open(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="cannot be made: File name too long"):
        Workdir.create(tmp_path / ("x" * 300), config())


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"epochs": 3', b"epochs: 3", b"\xff\xfe", b"\0\0\0\0", pytest.param(b"[" * 99999, id="deep")],
)
def test_a_damaged_config_is_named(workdir: Workdir, content: bytes) -> None:
    workdir.config_file.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is (not JSON|UTF-16 text)"):
        Workdir.open(workdir.path).config()
    with pytest.raises(UserError, match=r"config\.json is (not JSON|UTF-16 text)"):
        Workdir.create(workdir.path, config())
    assert workdir.config_file.read_bytes() == content


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "true", "{}"])
def test_a_file_that_is_no_config_is_named(workdir: Workdir, content: str) -> None:
    workdir.config_file.write_text(content)
    opened = Workdir.open(workdir.path)
    for use in (opened.config, opened.load_model, lambda: Workdir.create(workdir.path, config())):
        with pytest.raises(UserError, match=r"config\.json holds no config of a run"):
            use()
    assert workdir.config_file.read_text() == content


def test_a_byte_order_mark_is_no_part_of_a_config(workdir: Workdir) -> None:
    config = workdir.config()
    text = workdir.config_file.read_text()
    workdir.config_file.write_text(text, encoding="utf-8-sig")
    assert workdir.config() == config
    workdir.config_file.write_text(text, encoding="utf-16")
    with pytest.raises(UserError, match="config.json is UTF-16 text; legal: UTF-8, "):
        workdir.config()


def test_a_second_training_is_locked_out(workdir: Workdir) -> None:
    with workdir.locked():
        with pytest.raises(UserError, match=rf"--workdir={re.escape(str(workdir.path))} is in use"), workdir.locked():
            pass
        # The one refused has not freed the lock.
        with pytest.raises(UserError, match="is in use"), Workdir(workdir.path).locked():
            pass
    with workdir.locked():
        pass


def test_a_look_at_the_lock_does_not_turn_a_training_away(workdir: Workdir) -> None:
    with (workdir.path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        look = threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN))
        look.start()
        with workdir.locked():
            pass
        look.join()


def test_two_trainings_that_begin_at_once_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Any] = []

    def write_json(path: Path, value: Any) -> None:
        # The other comes between the first one's look at the folder and its config.
        if not refused:
            with pytest.raises(UserError, match="is in use by another training") as caught:
                Workdir.create(tmp_path / "run", config(epochs=9))
            refused.append(caught)
        path.write_text(json.dumps(value))

    monkeypatch.setattr(module, "write_json", write_json)
    assert Workdir.create(tmp_path / "run", config()).config()["epochs"] == 3
    with pytest.raises(UserError, match=r"config.epochs=3, and 9 was asked for"):
        Workdir.create(tmp_path / "run", config(epochs=9))


def test_a_lock_that_is_no_file_is_refused_or_taken(workdir: Workdir) -> None:
    (workdir.path / "lock").unlink()
    (workdir.path / "lock").mkdir()
    with pytest.raises(UserError, match="lock cannot be written: Is a directory"), workdir.locked():
        pass
    (workdir.path / "lock").rmdir()
    os.mkfifo(workdir.path / "lock")
    with workdir.locked():
        pass


def test_a_file_in_place_of_the_checkpoints_is_refused(workdir: Workdir) -> None:
    workdir.checkpoints.rmdir()
    workdir.checkpoints.write_text("mine")
    with pytest.raises(UserError, match="checkpoints is no folder; remove it, or give another --workdir"):
        Workdir.create(workdir.path, config())
    assert workdir.checkpoints.read_text() == "mine"


def test_the_lock_is_freed_by_an_error(workdir: Workdir) -> None:
    with pytest.raises(KeyError), workdir.locked():
        raise KeyError
    with workdir.locked():
        pass


def test_the_lock_ends_with_its_process(workdir: Workdir) -> None:
    command = [sys.executable, "-c", HOLD, str(workdir.path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use"), workdir.locked():
            pass
        other.kill()
        other.wait()
    with workdir.locked():
        pass


def test_metrics_grow_by_rows(workdir: Workdir) -> None:
    for epoch in (1, 2):
        workdir.metrics.append({"epoch": epoch, "loss/0.5+0.5": 1.5 / epoch})
    assert workdir.metrics_file.read_bytes() == b"epoch,loss/0.5+0.5\r\n1,1.5\r\n2,0.75\r\n"


HEADER = b"epoch,loss\r\n"
ROWS = HEADER + b"1,0.5\r\n2,0.4\r\n3,0.3\r\n"


@pytest.mark.parametrize(
    ("content", "epochs", "kept"),
    [
        (ROWS, 3, ROWS),
        (ROWS, 9, ROWS),
        (ROWS, 2, HEADER + b"1,0.5\r\n2,0.4\r\n"),
        (ROWS, 0, HEADER),
        (HEADER + b"9,0.5\r\n10,0.4\r\n11,0.3\r\n", 10, HEADER + b"9,0.5\r\n10,0.4\r\n"),
        (ROWS + b"4", 4, ROWS),
        (ROWS + b"4,", 4, ROWS),
        (ROWS + b"4,0.", 3, ROWS),
        (ROWS[:-2], 3, ROWS),
        (HEADER, 3, HEADER),
        (b"", 3, HEADER),
        (b"ep", 3, HEADER),
        (b"epoch,lo", 3, HEADER),
        (b"ep", 0, HEADER),
        (HEADER + b"x,0.5\r\n", 3, HEADER),
        (ROWS + b"\0\0\0,0\r\n", 3, ROWS),
        (ROWS + b"\xff,1\r\n", 3, ROWS),
    ],
    ids=[
        *("all", "more", "newer", "none", "two digits", "cut in the number", "cut before a value"),
        *("cut in a value", "no newline", "header"),
        *("empty", "cut in the header", "cut in its last name", "cut at first", "no number", "zeros", "no text"),
    ],
)
def test_whole_rows_of_checkpoints_are_kept(workdir: Workdir, content: bytes, epochs: int, kept: bytes) -> None:
    workdir.metrics_file.write_bytes(content)
    workdir.metrics.truncate(epochs)
    workdir.metrics.append({"epoch": epochs + 1, "loss": 0.25})
    assert workdir.metrics_file.read_bytes() == kept + f"{epochs + 1},0.25\r\n".encode()
    assert names(workdir.path) == {"config.json", "versions.json", "checkpoints", "lock", "metrics.csv"}


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        (None, "3 epochs from 1 to 3"),
        (b"", "3 epochs from 1 to 3"),
        (b"\r\n", "3 epochs from 1 to 3"),
        (b"epoch,lo", "3 epochs from 1 to 3"),
        (HEADER, "3 epochs from 1 to 3"),
        (HEADER + b"1,0.", "2 epochs from 2 to 3"),
        (ROWS[:-8], "epoch 3"),
        (HEADER + b"2,0.4\r\n", "2 epochs from 1 to 3"),
    ],
    ids=["none", "empty", "a line", "cut off in the header", "header", "one row", "two rows", "a row in the middle"],
)
def test_epochs_without_rows_are_named(
    workdir: Workdir, content: bytes | None, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        workdir.metrics_file.write_bytes(content)
    workdir.metrics.truncate(3)
    sentence = f"{workdir.metrics_file} was emptied, cut off or removed: the metrics of {lost} are lost\n"
    assert capsys.readouterr().out == sentence
    # No file is left that has no rows.
    assert workdir.metrics_file.exists() == bool(workdir.metrics.rows())


def test_whole_metrics_are_not_spoken_of(workdir: Workdir, capsys: pytest.CaptureFixture[str]) -> None:
    workdir.metrics.truncate(0)
    workdir.metrics_file.write_bytes(ROWS)
    workdir.metrics.truncate(3)
    assert capsys.readouterr().out == ""
    assert workdir.metrics_file.read_bytes() == ROWS


def test_the_newest_checkpoint(workdir: Workdir) -> None:
    assert workdir.newest_checkpoint() == (0, None)
    assert workdir.restore() == (0, None)
    for name in (
        "epoch_0002.keras",
        "epoch_9999.keras",
        "epoch_10000.keras",
        ".epoch_20000.part.keras",
        "epoch_30000.keras.part",
        "epoch_5.keras",
        "old_epoch_40000.keras",
        "epoch_x.keras",
        "model.keras",
    ):
        (workdir.checkpoints / name).touch()
    assert workdir.newest_checkpoint() == (10000, workdir.checkpoints / "epoch_10000.keras")


def test_a_removed_checkpoint_folder_holds_none(workdir: Workdir) -> None:
    workdir.checkpoints.rmdir()
    assert workdir.newest_checkpoint() == (0, None)


def test_an_unfinished_run_has_no_model(workdir: Workdir) -> None:
    (workdir.checkpoints / "epoch_0002.keras").touch()
    with pytest.raises(UserError, match=r"no finished model \(2 of 3 epochs done\)"):
        workdir.load_model()


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.json", content)
    return path


def test_a_damaged_model_is_named(workdir: Workdir) -> None:
    file = workdir.model_file
    whole = zipped(file, config="{}", metadata="{}").read_bytes()
    for content in (b"", b"PK", b"no model", whole[:20], whole[:-1], whole):
        file.write_bytes(content)
        with pytest.raises(
            UserError, match=r"model\.keras cannot be loaded.* Delete it and run paradis_tf.train again"
        ):
            workdir.load_model()
    for members in ({}, {"metadata": "{}"}, {"config": "{", "metadata": "{}"}, {"config": "{}"}):
        zipped(file, **members)
        with pytest.raises(UserError, match=r"model\.keras cannot be loaded"):
            workdir.load_model()


@pytest.fixture(scope="module")
def saved(mobilenet: Supernet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    mobilenet.save(path)
    return path


def test_a_changed_byte_of_a_model_is_noticed(workdir: Workdir, saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 255
    workdir.model_file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.keras cannot be loaded"):
        workdir.load_model()


@pytest.mark.parametrize("changes", [{"class_name": "Foo", "registered_name": "x>Foo"}, {"config": {}}], ids=str)
def test_a_model_of_another_make_is_named(workdir: Workdir, saved: Path, changes: dict[str, Any]) -> None:
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(workdir.model_file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, json.dumps(json.loads(content) | changes) if name == "config.json" else content)
    with pytest.raises(UserError, match=r"model\.keras cannot be loaded"):
        workdir.load_model()


def test_a_model_that_is_no_supernet_is_named(workdir: Workdir) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(workdir.model_file)
    with pytest.raises(UserError, match=r"model\.keras holds a Sequential; it takes a Supernet"):
        workdir.load_model()


def test_a_missing_or_damaged_checkpoint_is_named(workdir: Workdir) -> None:
    with pytest.raises(UserError, match=r"none\.keras cannot be loaded"):
        load_model(workdir.path / "none.keras")
    (workdir.checkpoints / "epoch_0001.keras").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"epoch_0001\.keras cannot be loaded"):
        workdir.restore()


@pytest.mark.parametrize("limit", [1_000, 100_000], ids=["at once", "in the weights"])
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(
    workdir: Workdir, mobilenet: Supernet, limit: int
) -> None:
    workdir.save_checkpoint(mobilenet, 1)
    legal = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The size of a file is limited, as a full disk limits it: the write itself fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, legal[1]))
    try:
        with pytest.raises(UserError, match=r"epoch_0002\.keras cannot be written: File too large"):
            workdir.save_checkpoint(mobilenet, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, legal)
    assert names(workdir.checkpoints) == {"epoch_0001.keras"}
    epochs, model = workdir.restore()
    assert epochs == 1
    assert model is not None
    assert model.model_id() == mobilenet.model_id()


def test_metrics_are_read_as_numbers(workdir: Workdir) -> None:
    assert workdir.metrics.rows() == []
    workdir.metrics_file.write_bytes(ROWS + b"4")
    assert workdir.metrics.rows() == [{"epoch": epoch, "loss": loss} for epoch, loss in ((1, 0.5), (2, 0.4), (3, 0.3))]
    workdir.metrics_file.write_bytes(HEADER + b"1,low\r\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged: could not convert string to float: 'low'"):
        workdir.metrics.rows()
    # More than Python's csv takes for one cell.
    workdir.metrics_file.write_bytes(HEADER + b"x" * 200_000)
    for use in (workdir.metrics.rows, lambda: workdir.metrics.truncate(3)):
        with pytest.raises(UserError, match=r"metrics\.csv is damaged: field larger than .*; delete it to go on"):
            use()
    assert workdir.metrics_file.stat().st_size > 200_000


def test_a_folder_in_place_of_the_metrics_is_named(workdir: Workdir) -> None:
    workdir.metrics_file.mkdir()
    workdir.metrics.truncate(3)
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read: Is a directory"):
        workdir.metrics.rows()
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read: Is a directory"):
        workdir.metrics.append({"epoch": 1})


def test_rows_of_other_columns_are_not_lost(workdir: Workdir) -> None:
    workdir.metrics.append({"epoch": 1, "loss": 0.5})
    before = workdir.metrics_file.read_bytes()
    for use in (
        lambda: workdir.metrics.append({"epoch": 2, "loss": 0.25, "new": 1.0}),
        lambda: workdir.metrics.check(["epoch", "loss", "new"]),
    ):
        with pytest.raises(UserError, match="has other columns than this run writes, it lacks new: another version"):
            use()
    with pytest.raises(UserError, match="it lacks a, b and has loss besides: another version"):
        workdir.metrics.check(["epoch", "a", "b"])
    assert workdir.metrics_file.read_bytes() == before
    for order in (["epoch", "loss"], ["loss", "epoch"]):
        workdir.metrics.check(order)
    workdir.metrics.append({"loss": 0.25, "epoch": 2})
    assert workdir.metrics_file.read_bytes() == before + b"2,0.25\r\n"


def test_evaluation(workdir: Workdir) -> None:
    with pytest.raises(
        UserError, match=rf"--workdir={re.escape(str(workdir.path))} is not evaluated; run paradis_tf.evaluate"
    ):
        workdir.evaluation()
    workdir.evaluation_file.write_text('[{"model_id": "ab", "switch": "1.0", "accuracy": 0.5}]')
    assert workdir.evaluation() == [{"model_id": "ab", "switch": "1.0", "accuracy": 0.5}]
    for content in (b"", b"[{", b"\xff"):
        workdir.evaluation_file.write_bytes(content)
        with pytest.raises(UserError, match=r"evaluation\.json is not (JSON|UTF-8 text)"):
            workdir.evaluation()
    for content in (b"{}", b"3", b"null", b"[1]", b'[{"accuracy": 0.5}]', b'[{"model_id": "ab", "switch": 1}]'):
        workdir.evaluation_file.write_bytes(content)
        with pytest.raises(UserError, match=r"evaluation\.json is no evaluation; run paradis_tf.evaluate again"):
            workdir.evaluation()
    workdir.evaluation_file.write_text('[{"model_id": "ab", "switch": "1.0", "metric": ["f1"], "f1": 0.5}]')
    with pytest.raises(UserError, match=r"evaluation\.json: metric is \['f1'\]; known are accuracy, psnr_y"):
        workdir.evaluation()
    workdir.evaluation_file.write_text('[{"model_id": "ab", "switch": "1.0", "metric": "psnr_y", "accuracy": 0.5}]')
    with pytest.raises(UserError, match=r"evaluation\.json: psnr_y is None; it is a number"):
        workdir.evaluation()
    workdir.evaluation_file.write_text('[{"model_id": "ab", "switch": "1.0", "accuracy": NaN}]')
    with pytest.raises(UserError, match=r"evaluation\.json: accuracy is nan; it is a finite number"):
        workdir.evaluation()
