"""What image files mean, and that no content of one ends a run."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from fusion.base import pictures
from fusion.base.program import UserError
from tests.image_files import Tag, exif, jpeg, lying, png, saved_lying, tiff_image
from tests.odd_pictures import Odd, agree, mutated, odd_pictures, scene

ALL = odd_pictures()


def look(content: bytes, name: str = "x") -> np.ndarray | None:
    """The picture; None where it is refused, as it should be: in one line that names it."""
    try:
        picture = pictures.decode(content, name)
    except UserError as error:
        text = str(error)
        assert name in text and len(text.splitlines()) == 1 and text.endswith(".")
        return None
    assert picture.pixels.dtype == np.uint8 and picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3
    return picture.pixels


@pytest.mark.parametrize("odd", ALL, ids=lambda odd: odd.name)
def test_the_picture_of_a_file(odd: Odd) -> None:
    assert agree(odd, look(odd.content, odd.name))


@pytest.mark.parametrize("name", ["float.tif", "int32.tif", "uint32.tif", "int16.tif"])
def test_numbers_that_are_not_scaled_are_named(name: str) -> None:
    (odd,) = (odd for odd in ALL if odd.name.endswith(f"-{name}"))
    what = "floating-point numbers" if name == "float.tif" else "whole numbers of 32 bits or with a sign"
    with pytest.raises(UserError, match=f"holds {what}; legal: whole numbers of 8 bits, or of 16 without a sign."):
        pictures.decode(odd.content, odd.name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for file, said in (
        (tmp_path / "none.png", "does not exist"),
        (tmp_path, "is a folder"),
        ("a\0b.png", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(UserError, match=said):
            pictures.read(file)


def test_a_picture_of_another_size_is_refused_by_its_upright_size(tmp_path: Path) -> None:
    wide = np.zeros((4, 6, 3), np.uint8)
    (tmp_path / "x.jpg").write_bytes(jpeg(lying(wide, 6), exif(6)))
    assert pictures.read(tmp_path / "x.jpg", (4, 6)).shape == (4, 6, 3)
    with pytest.raises(UserError, match="is 6 x 4 pixels; legal: 4 x 6, the model's input"):
        pictures.read(tmp_path / "x.jpg", (6, 4))


def test_files_larger_than_any_picture_are_not_held(tmp_path: Path) -> None:
    with (tmp_path / "x.tif").open("wb") as stream:
        stream.write(b"II*\0")
        stream.truncate(2**34)
    with pytest.raises(UserError, match="x.tif' is larger than 256 MB"):
        pictures.read(tmp_path / "x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int) -> None:
    pixels = scene()[:20]
    assert np.array_equal(pictures.turned(lying(pixels, orientation), orientation), pixels)
    for content in saved_lying(pixels, orientation, exif(orientation)):
        found = look(content)
        assert found is not None and found.shape == pixels.shape
        assert np.abs(found.astype(int) - pixels).max() <= 6


def strange_tags(rng: np.random.Generator) -> list[Tag]:
    """Tags of random types, sizes and values."""
    tags = rng.choice([0x100, 0x106, 0x11A, 0x11B, 0x128, 0x13B, 0x213, 0x829A, 0x8769, 0x8825, 0x9286, 0xA005], 6)
    return [
        (int(tag), int(rng.integers(0, 20)), int(rng.choice([0, 1, 2, 7, 2**31])), rng.bytes(int(rng.integers(0, 12))))
        for tag in tags
    ]


def check_strange_exif(seeds: range) -> None:
    """The orientation counts, whatever else is in EXIF."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        tags = strange_tags(rng)
        about = exif(6, *tags)
        # Bytes behind the orientation's entry change too.
        behind = about.index(struct.pack("<HHI", 0x112, 3, 1)) + 12
        changed = bytearray(about)
        for place in rng.integers(behind, len(about), 4):
            changed[place] = rng.integers(256)
        # Those of a TIFF's pixels are meant.
        harmless = [tag for tag in tags if tag[0] not in (0x100, 0x106)]
        turned = tiff_image(lying(scene(), 6), 2, (0x112, 3, 1, b"\6\0"), *harmless)
        for content in (*saved_lying(scene(), 6, bytes(changed)), turned):
            found = look(content)
            assert found is not None, seed
            assert np.abs(found.astype(int) - scene()).max() <= 6, seed


def test_strange_exif() -> None:
    check_strange_exif(range(25))


@pytest.mark.slow
def test_much_strange_exif() -> None:
    check_strange_exif(range(25, 1000))


def test_mutated_files() -> None:
    for seed in range(100):
        look(mutated(seed))


@pytest.mark.slow
def test_many_mutated_files() -> None:
    taken = sum(look(mutated(seed)) is not None for seed in range(100, 5000))
    assert 500 < taken < 4500


@pytest.mark.parametrize(
    "raised", [RecursionError("deep"), MemoryError(), struct.error("short"), OverflowError("far"), KeyError(3)]
)
def test_whatever_a_decoder_raises_is_the_images_refusal(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(UserError, match="image x.png cannot be read: "):
        pictures.decode(png(scene(), 2, 8), "x.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UserError, match="image '.*x.png' is a pipe, a socket or a device; legal: a file, or a shell"):
        pictures.read(tmp_path / "x.png")
    with pytest.raises(UserError, match="image '/dev/zero' is a pipe, a socket or a device"):
        pictures.read("/dev/zero")
