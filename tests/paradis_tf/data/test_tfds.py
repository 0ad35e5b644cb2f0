"""Sets of TensorFlow Datasets, on a stand-in of the package: what is read, and what is said when it cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf.data import preparation, sources
from paradis_tf.data.datasets import load
from tests.image_files import chunk, exif, lying, png

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 9, 8, 3), dtype=np.uint8)


class Image:
    def __init__(self, shape: tuple) -> None:
        self.shape = shape


class ClassLabel:
    names = ("ant", "bee")


class FeaturesDict(dict):
    pass


class Items(list):
    def as_numpy_iterator(self) -> Iterator:
        return iter(self)


class Builder:
    """30 images, 20 of them for training; split `test` has no labels."""

    def __init__(self, name: str, data_dir: str | None) -> None:
        if name == "unknown":
            raise LookupError("Dataset unknown not found.\nDid you mean ...")
        self.name = name
        sides = (None, None) if name == "many" else (9, 8)
        counts = {"train": 20, "validation": 10, **({"test": 5} if name == "unlabelled" else {})}
        kinds: dict[str, Any] = {"image": Image((*sides, 3)), "label": ClassLabel()}
        if name == "boxes":
            kinds = {"image": Image((9, 8, 3)), "objects": object()}
        self.info = SimpleNamespace(
            splits={} if data_dir == "empty" else {k: SimpleNamespace(num_examples=n) for k, n in counts.items()},
            features=FeaturesDict(kinds),
            full_name=f"{name}/1.0.0",
        )

    def as_dataset(self, split: str, decoders: Any, shuffle_files: bool, read_config: Any) -> Items:
        assert not shuffle_files and read_config.interleave_cycle_length == 1
        part, _, bounds = split.partition("[")
        start, stop = (int(bound) for bound in bounds.rstrip("]").split(":")) if bounds else (0, None)
        first = {"train": 0, "validation": 20, "test": 0}[part]
        images = PIXELS[first : first + self.info.splits[part].num_examples][start:stop]
        return Items(
            {"image": self.encode(image) if decoders else image, "label": -1 if part == "test" else (start + n) % 2}
            for n, image in enumerate(images)
        )

    def encode(self, image: np.ndarray) -> bytes:
        if self.name == "broken":
            return b"no image"
        orientation = {"turned": 3, "upended": 6}.get(self.name, 1)
        return png(lying(image, orientation), 2, 8, chunk(b"eXIf", exif(orientation)[6:]))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(
        builder=Builder,
        ReadConfig=lambda **options: SimpleNamespace(**options),
        decode=SimpleNamespace(SkipDecoding=lambda: "skip"),
        features=SimpleNamespace(Image=Image, ClassLabel=ClassLabel, FeaturesDict=FeaturesDict),
    )
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)


@pytest.mark.usefixtures("package")
def test_images_of_one_size_are_read_into_memory() -> None:
    dataset = load("tfds:fixed", validation_fraction=0.25)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [15, 5, 10]
    assert dataset.class_names == ("ant", "bee")
    np.testing.assert_array_equal(dataset.test.images, PIXELS[20:])
    np.testing.assert_array_equal(dataset.test.labels, np.arange(10) % 2)


@pytest.mark.usefixtures("package")
def test_images_in_memory_are_upright() -> None:
    np.testing.assert_array_equal(load("tfds:turned").test.images, PIXELS[20:])
    np.testing.assert_array_equal(load("tfds:upended").test.images, PIXELS[20:])


@pytest.mark.usefixtures("package")
def test_images_of_many_sizes_are_to_be_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="paradis_tf.prepare --source=tfds:many --target=FOLDER"):
        load("tfds:many")
    monkeypatch.setattr(sources, "_FEWEST", 8)
    plan = sources.plan("tfds:many", None, [])
    manifest = preparation.prepare(plan, tmp_path / "set", 8, False, 1)
    assert [shard["images"] for shard in manifest["parts"]["train"]["shards"]] == [8, 8, 4]
    dataset = load("prepared", str(tmp_path / "set"))
    assert dataset.class_names == ("ant", "bee")
    np.testing.assert_array_equal(dataset.test.labels, np.arange(10) % 2)
    # Noise as JPEG keeps its means, over which small differences cancel out.
    assert abs(dataset.test.images[:].mean() - PIXELS[20:, :8].mean()) < 3


@pytest.mark.usefixtures("package")
def test_a_part_without_labels_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tfds:unlabelled test 0' has label -1.*--parts=train,validation"):
        preparation.prepare(sources.plan("tfds:unlabelled", None, []), tmp_path / "one", 8, False, 1)
    plan = sources.plan("tfds:unlabelled", None, ["train", "validation"])
    assert preparation.prepare(plan, tmp_path / "two", 8, False, 1)["parts"]["test"]["images"] == 10


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "data_dir", "sentence"),
    [
        ("fixed", "empty", "'tfds:fixed' is not prepared in empty, .*run: tfds build fixed --data_dir=empty"),
        ("unknown", None, r"'tfds:unknown' cannot be opened by tensorflow-datasets \(Dataset unknown not found.\)"),
        ("boxes", None, "'tfds:boxes' has the features .*objects.*; it takes an image and a label"),
        ("unlabelled", None, "y_test holds label -1"),
        ("broken", None, "file 'tfds:broken train 0' is not an image that can be read"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, data_dir: str | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(f"tfds:{name}", data_dir=data_dir)


def test_the_package_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="'tfds:fixed' needs the package tensorflow-datasets.*run: pip install"):
        load("tfds:fixed")


@pytest.mark.usefixtures("package")
def test_a_set_too_large_for_memory_is_to_be_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paradis_tf.data.datasets._MOST_BYTES", 30 * 9 * 8 * 3 - 1)
    with pytest.raises(UserError, match="GiB of images; run: python -m paradis_tf.prepare"):
        load("tfds:fixed")
