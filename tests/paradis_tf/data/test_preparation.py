"""Prepared sets: what is in their files, that they are the same each time, and what happens to one that is cut off."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from fusion.base import pictures
from fusion.base.program import UserError
from paradis_tf.data import pipeline, preparation, sources, squares
from paradis_tf.data.datasets import load
from paradis_tf.data.encoded import central
from paradis_tf.data.pipeline import reading
from tests.paradis_tf.data.conftest import COUNTS, write_images

Make = Callable[..., Path]
SIZE = 28


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets in files of 5 images."""
    monkeypatch.setattr(sources, "_FEWEST", 5)


def prepare(root: Path, target: Path, size: int = SIZE, skip_broken: bool = False) -> dict[str, Any]:
    return preparation.prepare(sources.plan(str(root), None, []), target, size, skip_broken, 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_are_tfrecords_of_all_images(image_folder: Make, tmp_path: Path) -> None:
    root = image_folder()
    manifest = prepare(root, tmp_path / "set")
    assert sorted(contents(tmp_path / "set")) == [
        "manifest.json",
        "test-00000-of-00001.tfrecord",
        "test.index.npy",
        "train-00000-of-00003.tfrecord",
        "train-00001-of-00003.tfrecord",
        "train-00002-of-00003.tfrecord",
        "train.index.npy",
    ]
    assert json.loads((tmp_path / "set" / "manifest.json").read_text()) == manifest
    assert (manifest["classes"], manifest["size"], manifest["left_out"]) == (["ant", "bee", "wasp"], SIZE, [])
    kind = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
    }
    for role, name in (("train", "train"), ("test", "val")):
        entry = manifest["parts"][role]
        files = [tmp_path / "set" / shard["file"] for shard in entry["shards"]]
        for file, shard in zip(files, entry["shards"], strict=True):
            assert (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) == (
                shard["bytes"],
                shard["sha256"],
            )
        paths = sorted((root / name).glob("*/*"))
        # TensorFlow's own reader checks the sums of each record.
        records = list(tf.data.TFRecordDataset([str(file) for file in files]))
        assert len(records) == entry["images"] == len(paths)
        for record, path in zip(records, paths, strict=True):
            example = tf.io.parse_single_example(record, kind)
            assert example["image/filename"].numpy().decode() == str(path)
            assert example["image/class/text"].numpy().decode() == path.parent.name
            assert ("ant", "bee", "wasp")[int(example["image/class/label"])] == path.parent.name
            assert Image.open(io.BytesIO(example["image/encoded"].numpy())).format == "JPEG"


def test_a_prepared_set_is_read_as_its_source(image_folder: Make, tmp_path: Path) -> None:
    root = image_folder()
    prepare(root, tmp_path / "set")
    dataset, source = load("prepared", str(tmp_path / "set")), load("folder", str(root), image_size=SIZE)
    assert dataset.class_names == source.class_names
    assert dataset.image_shape == (SIZE, SIZE, 3)
    for found, expected in ((dataset.train, source.train), (dataset.validation, source.validation)):
        np.testing.assert_array_equal(found.labels, expected.labels)
        # JPEG once more, and reduced in two steps.
        assert np.abs(found.images[:].astype(int) - expected.images[:]).mean() < 4
    assert load("prepared", str(tmp_path / "set"), image_size=20).image_shape == (20, 20, 3)


def test_what_training_leaves_out_is_not_prepared(
    image_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = image_folder()
    (root / "train" / "ant" / ".hidden").mkdir()
    shutil.copy(next((root / "train" / "ant").glob("*.jpg")), root / "train" / "ant" / ".hidden" / "0.jpg")
    (root / "train" / "ant" / "all").symlink_to(root)
    manifest = prepare(root, tmp_path / "set")
    assert manifest["parts"]["train"]["images"] == 12
    assert "left out 1 hidden and 1 folder met before\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("height", "width", "size", "stored"),
    [(512, 700, 224, (256, 350)), (40, 30, SIZE, (40, 30)), (640, 64, SIZE, (320, 32)), (5, 9, SIZE, (5, 9))],
)
def test_images_are_reduced_to_a_short_side_of_eight_sevenths(
    height: int, width: int, size: int, stored: tuple[int, int]
) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 90)).save(stream, "PNG")
    found = Image.open(io.BytesIO(preparation.reduced(stream.getvalue(), "x", size)))
    assert (found.format, (found.height, found.width)) == ("JPEG", stored)
    assert np.abs(np.asarray(found).astype(int) - (200, 30, 90)).max() < 5


def test_a_small_jpeg_stays_as_it_is(image_folder: Make) -> None:
    path = next(image_folder().glob("train/*/*.jpg"))
    assert preparation.reduced(path.read_bytes(), "x", 224) == path.read_bytes()
    assert preparation.reduced(path.read_bytes(), "x", 16) != path.read_bytes()


def test_an_image_too_long_for_jpeg_counts_as_broken() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (70_000, 1)).save(stream, "PNG")
    with pytest.raises(UserError, match="image x cannot be stored as JPEG"):
        preparation.reduced(stream.getvalue(), "x", SIZE)


def test_the_same_source_gives_the_same_bytes(image_folder: Make, tmp_path: Path) -> None:
    root = image_folder()
    prepare(root, tmp_path / "one")
    prepare(root, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_preparation_that_was_cut_off_goes_on(
    image_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, target = image_folder(), tmp_path / "set"
    prepare(root, tmp_path / "whole")
    write = preparation.write_shard
    written: list[str] = []

    def dies(stopping: threading.Event, shard: preparation.Shard) -> None:
        if len(written) == 2:
            (target / "work" / f"{shard.path.name}.part").write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(shard.path.name)
        write(stopping, shard)

    monkeypatch.setattr(preparation, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, target)
    with pytest.raises(UserError, match="there is no manifest.json.*goes on where it was stopped"):
        load("prepared", str(target))
    kept = {name: (target / name).stat().st_mtime_ns for name in written}
    monkeypatch.setattr(preparation, "write_shard", write)
    prepare(root, target)
    assert contents(target) == contents(tmp_path / "whole")
    assert {name: (target / name).stat().st_mtime_ns for name in written} == kept
    assert "going on after 10 of 16 images" in capsys.readouterr().out


def test_a_finished_set_is_checked(image_folder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, target = image_folder(), tmp_path / "set"
    manifest = prepare(root, target)
    assert prepare(root, target) == manifest
    assert "is finished; checking its 6 files" in capsys.readouterr().out
    file = target / "train-00001-of-00003.tfrecord"
    whole = file.read_bytes()
    file.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    with pytest.raises(UserError, match=rf"'{file}' of the finished set changed"):
        prepare(root, target)


def test_another_source_or_size_is_refused(image_folder: Make, tmp_path: Path) -> None:
    root, target = image_folder(), tmp_path / "set"
    spoiled = next(root.glob("train/ant/*"))
    whole = spoiled.read_bytes()
    spoiled.write_bytes(b"")
    with pytest.raises(UserError, match="1 of 16 images cannot be used"):
        prepare(root, target)
    with pytest.raises(UserError, match="holds a part of a set of another source or size"):
        prepare(root, target, size=32)
    spoiled.write_bytes(whole)
    with pytest.raises(UserError, match="or the source has changed since"):
        prepare(root, target)
    shutil.rmtree(target)
    prepare(root, target)
    with pytest.raises(UserError, match="finished set with size 28, and 32 was asked for"):
        prepare(root, target, size=32)


def test_broken_images_are_refused_or_left_out(image_folder: Make, tmp_path: Path) -> None:
    root, target = image_folder(), tmp_path / "set"
    broken = sorted(root.glob("train/ant/*"))[1]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match=rf"1 of 16 images cannot be used: '{broken}' .*--skip_broken"):
        prepare(root, target)
    manifest = prepare(root, target, skip_broken=True)
    assert manifest["left_out"] == [str(broken)]
    dataset = load("prepared", str(target))
    assert len(dataset.train) + len(dataset.validation) == manifest["parts"]["train"]["images"] == 11
    assert dataset.train.images[:].shape == (10, SIZE, SIZE, 3)


def test_a_class_of_broken_images_is_refused(image_folder: Make, tmp_path: Path) -> None:
    root = image_folder()
    for path in root.glob("train/wasp/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no image of 'wasp' can be used"):
        prepare(root, tmp_path / "set", skip_broken=True)


def test_a_folder_of_something_else_and_two_at_once_are_refused(image_folder: Make, tmp_path: Path) -> None:
    root, target = image_folder(), tmp_path / "set"
    with pytest.raises(UserError, match="is not empty and holds no prepared set"):
        prepare(root, root)
    with (
        preparation._work_folder(target, {}),
        pytest.raises(UserError, match="is being prepared by another process"),
    ):
        prepare(root, target)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        prepare(root, tmp_path / "file" / "set")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], None]:
    def shorten(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])

    return shorten


def text(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "manifest.json").write_text(content)

    return write


def manifest(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / "manifest.json").read_text())
        edit(found)
        (folder / "manifest.json").write_text(json.dumps(found))

    return change


def of_train(found: dict[str, Any]) -> dict[str, Any]:
    return found["parts"]["train"]["shards"][0]


def other_labels(folder: Path) -> None:
    rows = np.load(folder / "train.index.npy")
    rows["label"] = (rows["label"] + 1) % 3
    np.save(folder / "train.index.npy", rows)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (remove("manifest.json"), "holds no prepared set"),
    "half a manifest": (text("{"), "manifest.json is not JSON"),
    "manifest of a list": (text("[]"), "is no manifest of a prepared set of version 2"),
    "other version": (text('{"schema_version": 3}'), "is no manifest of a prepared set of version 2"),
    "empty manifest": (text('{"schema_version": 2}'), "is damaged"),
    "deep manifest": (text("[" * 99999), "manifest.json is not JSON"),
    "no size": (manifest(lambda found: found.update(size="28")), "manifest.json is damaged"),
    "no classes": (manifest(lambda found: found.update(classes=3)), "manifest.json is damaged"),
    "classes by number": (manifest(lambda found: found.update(classes=[0, 1, 2])), "manifest.json is damaged"),
    "a list of parts": (manifest(lambda found: found.update(parts=[])), "manifest.json is damaged"),
    "no sum": (manifest(lambda found: found["parts"]["test"].pop("index_sha256")), "manifest.json is damaged"),
    "bytes as text": (manifest(lambda found: of_train(found).update(bytes="1")), "manifest.json is damaged"),
    "file elsewhere": (manifest(lambda found: of_train(found).update(file="../x")), "manifest.json is damaged"),
    "no file name": (manifest(lambda found: of_train(found).update(file="a\0")), "manifest.json is damaged"),
    "no file": (remove("train-00001-of-00003.tfrecord"), "00001-of-00003.tfrecord cannot be read: No such file"),
    "short file": (cut("test-00000-of-00001.tfrecord"), "bytes; the manifest says"),
    "no index": (remove("test.index.npy"), "test.index.npy cannot be read"),
    "short index": (cut("test.index.npy"), "test.index.npy changed since the set was prepared"),
    "other labels": (other_labels, "train.index.npy changed since the set was prepared"),
    "other count": (
        manifest(lambda found: found["parts"]["train"].update(images=11)),
        "train.index.npy does not fit the manifest",
    ),
}


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_FEWEST", 5)
        prepare(write_images(folder / "images", COUNTS), folder / "set")
    return folder / "set"


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_set_is_refused(
    whole_set: Path, tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(whole_set, tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(UserError, match=sentence):
        load("prepared", str(tmp_path / "set"))


def test_a_finished_set_with_a_damaged_manifest_is_not_whole(image_folder: Make, tmp_path: Path) -> None:
    root, target = image_folder(), tmp_path / "set"
    prepare(root, target)
    whole = (target / "manifest.json").read_text()
    for edit in (lambda found: found.pop("parts"), lambda found: found["classes"].pop()):
        manifest(edit)(target)
        with pytest.raises(UserError, match=r"manifest\.json is damaged; .*prepare (it|the set) again"):
            prepare(root, target)
        (target / "manifest.json").write_text(whole)


@pytest.mark.parametrize("content", [b"", b"{x", b"\xff\xfe", pytest.param(b"[" * 99999, id="deep")])
def test_a_damaged_plan_is_named(image_folder: Make, tmp_path: Path, content: bytes) -> None:
    root, target = image_folder(), tmp_path / "set"
    (target / "work").mkdir(parents=True)
    (target / "work" / "plan.json").write_bytes(content)
    with pytest.raises(UserError, match=r"plan\.json is damaged; delete .*set and prepare"):
        prepare(root, target)


def test_a_changed_byte_names_its_file_in_training(image_folder: Make, tmp_path: Path) -> None:
    prepare(image_folder(), tmp_path / "set")
    part = load("prepared", str(tmp_path / "set")).train
    # In the middle of a JPEG's data, which can be decoded all the same.
    file = tmp_path / "set" / "train-00000-of-00003.tfrecord"
    content = bytearray(file.read_bytes())
    content[int(part.images._offsets[0] + part.images._lengths[0]) - 40] ^= 1
    file.write_bytes(content)
    part.images.decode(0)
    batches = pipeline.evaluation_batches(part, 4)
    with pytest.raises(UserError, match=rf"image 0 in '{file}' has changed .*; prepare the set again"), reading():
        list(batches)


def test_a_file_that_cannot_be_written_is_named_before_the_work(
    image_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sources.plan(str(image_folder()), None, [])
    monkeypatch.setattr(squares, "in_threads", lambda *arguments: pytest.fail("it worked in vain"))
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        squares.prepare(plan, tmp_path / ("x" * 300 + ".npz"), 20, False, 1)


def test_squares_on_a_full_disk_leave_nothing(image_folder: Make, tmp_path: Path) -> None:
    plan = sources.plan(str(image_folder()), None, [])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(UserError, match=r"--target=.*\.npz cannot be written: File too large"):
            squares.prepare(plan, tmp_path / "set.npz", 40, False, 1)
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.npz")) + list(tmp_path.glob(".*"))


def test_squares(image_folder: Make, tmp_path: Path) -> None:
    root, target = image_folder(counts={"train": 12, "val": 7, "test": 4}), tmp_path / "set.npz"
    plan = sources.plan(str(root), None, [])
    squares.prepare(plan, target, 20, False, 1)
    first = target.read_bytes()
    squares.prepare(plan, target, 20, False, 1)
    assert target.read_bytes() == first
    assert [path.name for path in tmp_path.glob("*.npz")] + [path.name for path in tmp_path.glob(".*")] == ["set.npz"]
    dataset = load("npz", str(target))
    assert dataset.class_names == ("ant", "bee", "wasp")
    for part, name in ((dataset.train, "train"), (dataset.validation, "val"), (dataset.test, "test")):
        paths = sorted((root / name).glob("*/*"))
        expected = [central(tf.constant(pictures.read(path)), 20).numpy() for path in paths]
        np.testing.assert_array_equal(part.images, expected)
        np.testing.assert_array_equal(part.labels, [("ant", "bee", "wasp").index(path.parent.name) for path in paths])


def test_squares_of_broken_images_and_of_too_many(
    image_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, target = image_folder(), tmp_path / "set.npz"
    broken = sorted(root.glob("val/*/*"))[0]
    broken.write_bytes(b"")
    plan = sources.plan(str(root), None, [])
    with pytest.raises(UserError, match="1 of 16 images cannot be used"):
        squares.prepare(plan, target, 20, False, 1)
    assert not target.exists()
    assert len(squares.prepare(plan, target, 20, True, 1)["y_test"]) == 3
    monkeypatch.setattr(squares, "_MOST_BYTES", 16 * 20 * 20 * 3 - 1)
    with pytest.raises(UserError, match="16 images of 20x20 are .* give a folder as --target"):
        squares.prepare(plan, target, 20, True, 1)


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "paradis_tf.prepare", *flags]


BAD_FLAGS = {
    "no source": (["--target=x"], "--source is missing"),
    "no target": (["--source=x"], "--target is missing"),
    "size": (["--source=x", "--target=x", "--size=0"], "--size is 0; it lies between 1 and 4096"),
    "processes": (["--source=x", "--target=x", "--processes=-1"], "--processes is -1"),
    "file": (["--source=x", "--target=nowhere/x.npz"], "--target=nowhere/x.npz cannot be written"),
    "long folder": (["--source=x", f"--target={'x' * 300}/x.npz"], "x.npz cannot be written"),
}


@pytest.mark.parametrize(("flags", "sentence"), BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_bad_flags_are_one_sentence(flags: list[str], sentence: str) -> None:
    done = subprocess.run(command(*flags), capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert sentence in done.stderr


def test_the_program(image_folder: Make, tmp_path: Path) -> None:
    target = tmp_path / "set"
    flags = (f"--source={image_folder()}", f"--target={target}", "--size=28", "--processes=1", "--parts=train,val")
    done = subprocess.run(command(*flags), capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "images: 16 images of 3 classes",
        "prepared 16/16, 0:00 left",
        f"finished: {target}: train 12, test 4; --config.dataset.name=prepared --config.dataset.path={target}",
    ]
    assert len(load("prepared", str(target)).test) == 4


@pytest.mark.slow
def test_the_program_killed_and_started_again(image_folder: Make, tmp_path: Path) -> None:
    root, target = image_folder(counts={"train": 120, "val": 60}), tmp_path / "set"
    flags = (f"--source={root}", f"--target={target}", "--size=28", "--processes=2")
    with subprocess.Popen(command(*flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(target.glob("work/*.tfrecord.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    done = subprocess.run(command(*flags), capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"finished: {target}: train 120, test 60" in done.stdout
    dataset = load("prepared", str(target))
    assert dataset.train.images[:3].shape == (3, 28, 28, 3)
    assert not (target / "work").exists()
