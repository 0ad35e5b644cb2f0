"""Folders of image pairs, good and bad."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusion.base.program import UserError
from paradis_tf.configs import defaults
from paradis_tf.data.pairs import super_resolution
from paradis_tf.data.pairs.bicubic import shrink
from paradis_tf.data.pairs.super_resolution import PairDataset

RNG = np.random.default_rng(8)


def write(folder: Path, sides: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """PNG files of random pixels, (height, width) by name."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {name: RNG.integers(0, 256, (*side, 3), dtype=np.uint8) for name, side in sides.items()}
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return images


def load(root: Path, **options: Any) -> PairDataset:
    table = dict(defaults.get_super_resolution_config().dataset)
    table |= {"train": ["train"], "test": ["Five/HR"], "patch_size": 16, "validation_fraction": 0.25}
    return super_resolution.load(**{**table, "data_dir": str(root), **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "train", {"a": (40, 51), "b": (45, 40), "c": (64, 64), "d": (33, 70)})
    write(tmp_path / "Five" / "HR", {"baby": (41, 43), "bird": (50, 36)})
    return tmp_path


def test_pairs_are_cropped_and_shrunk(root: Path) -> None:
    data = load(root)
    assert data.test.names == ("Five/baby", "Five/bird") and data.test.sets == ("Five",)
    assert [image.shape for image in data.test.high] == [(40, 42, 3), (50, 36, 3)]
    for low, high in zip(data.test.low, data.test.high, strict=True):
        np.testing.assert_array_equal(low, shrink(high, 2))
    baby = np.asarray(Image.open(root / "Five" / "HR" / "baby.png"))
    np.testing.assert_array_equal(data.test.high[0], baby[:40, :42])
    assert data.architecture_options == {"image_shape": (16, 16, 3), "scale": 2}


def test_the_validation_part_is_held_out_by_the_seed(root: Path) -> None:
    first, again, other = load(root), load(root), load(root, seed=3)
    assert (len(first.validation), len(first.train.pairs)) == (1, 3)
    assert set(first.validation.names) | set(first.train.pairs.names) == {f"train/{name}" for name in "abcd"}
    assert first.validation.names == again.validation.names
    assert first.validation.names != other.validation.names


def test_given_low_resolution_images_are_taken(root: Path) -> None:
    low = write(root / "Five" / "LR", {"baby": (20, 21), "bird": (25, 18)})
    data = load(root, test_low=["Five/LR"], validation=["Five/HR"])
    np.testing.assert_array_equal(data.test.low[1], low["bird"])


def test_names_may_end_with_the_scale_as_published_ones_do(root: Path) -> None:
    low = write(root / "Five" / "X2", {"babyx2": (20, 21), "birdx2": (25, 18)})
    data = load(root, test_low=["Five/X2"], validation=["Five/HR"])
    assert [name.rpartition("/")[2] for name in data.test.names] == ["baby", "bird"]
    np.testing.assert_array_equal(data.test.low[1], low["birdx2"])
    assert data.validation.names == data.test.names
    assert len(data.train.pairs) == 4


def test_grey_images_become_rgb(root: Path) -> None:
    grey = RNG.integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(grey).save(root / "train" / "grey.png")
    data = load(root, validation=["Five/HR"])
    found = data.train.pairs.high[data.train.pairs.names.index("train/grey")]
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_broken_and_small_images_are_refused_or_left_out(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "train" / "cut.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    with pytest.raises(UserError, match=r"cut.jpg' is not an image that can be read"):
        load(root)
    (root / "train" / "cut.jpg").unlink()
    write(root / "train", {"tiny": (20, 64)})
    with pytest.raises(UserError, match=r"tiny.png is 64x20 pixels; its sides are at least 32"):
        load(root)
    (root / "train" / "cut.jpg").write_bytes(b"")
    data = load(root, skip_broken=True)
    assert len(data.train.pairs) + len(data.validation) == 4
    printed = capsys.readouterr().out
    assert printed.count("left out") == 2 and "cut.jpg" in printed and "tiny.png" in printed


def test_hidden_files_pipes_and_folders_are_left_out(root: Path, capsys: pytest.CaptureFixture) -> None:
    write(root / "train" / "below", {"e": (40, 40)})
    for name in (".hidden.png", "._0.png"):
        (root / "train" / name).write_bytes(b"no image")
    (root / "train" / "notes.txt").write_text("")
    os.mkfifo(root / "train" / "x.png")
    (root / "more").mkdir()
    (root / "more" / "linked.png").symlink_to(root / "train" / "a.png")
    data = load(root, train=["train", "more"])
    assert len(data.train.pairs) + len(data.validation) == 5
    printed = capsys.readouterr().out
    assert printed == (
        f"config.dataset.train: of folder '{root / 'train'}' left out 1 .txt, 2 hidden, 1 pipe or device and 1 folder\n"
    )


def no_partner(root: Path) -> dict:
    write(root / "low", {"baby": (20, 21)})
    return {"test_low": ["low"]}


def wrong_size(root: Path) -> dict:
    write(root / "low", {"baby": (20, 21), "bird": (26, 18)})
    return {"test_low": ["low"]}


def floats(root: Path) -> dict:
    Image.fromarray(np.zeros((40, 40), np.float32)).save(root / "train" / "deep.tif")
    return {}


def twins(root: Path) -> dict:
    Image.new("RGB", (40, 40)).save(root / "train" / "a.bmp")
    return {}


def empty(root: Path) -> dict:
    (root / "none").mkdir()
    return {"train": ["none"]}


BAD = [
    (no_partner, "image 'bird' is in .*HR and not in .*low; each pair has one name"),
    (wrong_size, "image .*low/bird.png is 18x26; bird.png of 36x50 at scale 2 takes 18x25"),
    (floats, "image .*deep.tif' holds floating-point numbers"),
    (twins, "has a.bmp and a.png"),
    (empty, "folder .*none has no images"),
    (
        lambda root: {"train": ["nowhere"]},
        "config.dataset.train: folder '.*nowhere' cannot be read: No such file.*are in --data_dir, which is .",
    ),
    (
        lambda root: {"train": ["nowhere"], "data_dir": None},
        "folder 'nowhere' cannot be read: No such file.*--data_dir, which is not given, so",
    ),
    (lambda root: {"train": []}, "config.dataset.train is .*; it is at least one folder"),
    (lambda root: {"train_low": ["train", "train"]}, "train_low has 2 folders and train 1"),
    (lambda root: {"train": [5]}, r"config.dataset.train is \[5\]; it is a list of folders, each a string"),
    (lambda root: {"test_low": [None]}, r"config.dataset.test_low is \[None\]; it is a list of folders"),
    (lambda root: {"validation_low": ["low"]}, "config.dataset.validation_low is given without validation"),
    (lambda root: {"patches_per_epoch": 10**20}, "config.dataset.patches_per_epoch is 10{20}; it is 1 to 1000000000"),
    (lambda root: {"scale": 5}, "config.dataset.scale is 5; it is 2, 3 or 4"),
    (lambda root: {"patch_size": 4}, "config.dataset.patch_size is 4; it is 8 to 512"),
    (lambda root: {"validation_fraction": 0.01}, "validation_fraction 0.01 of 4 images leaves an empty part"),
]


@pytest.mark.parametrize(("prepare", "sentence"), BAD)
def test_what_cannot_be_used_is_named(root: Path, prepare: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load(root, **prepare(root))
