"""What image files mean, and that no content of one ends a run."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion.base import pictures
from fusion.base.program import UserError
from tests.image_files import Tag, bmp, chunk, exif, jpeg, lying, png, saved, saved_lying, tiff_image, with_segment
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


@pytest.mark.parametrize(("bits", "clear"), [(bits, clear) for bits in (1, 2, 4) for clear in range(2**bits)])
def test_every_transparent_level_of_few_bits(bits: int, clear: int) -> None:
    levels = np.arange(64).reshape(8, 8) % 2**bits
    found = look(png(levels, 0, bits, chunk(b"tRNS", struct.pack(">H", clear))))
    assert found is not None
    expected = np.where(levels == clear, 0, levels * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(found, np.repeat(expected[..., np.newaxis], 3, axis=2))


INDICES = np.arange(64).reshape(8, 8) % 7
COLOURS = np.array([[9 * n, 255 - 30 * n, 40 * n] for n in range(7)], np.uint8)


def palettes(colours: np.ndarray) -> dict[str, bytes]:
    """Files of `INDICES` with a palette of these colours, by what they are; some also with transparent colours."""
    table = chunk(b"PLTE", colours.tobytes())
    columns = (colours.T.astype("<u2") * 257).tobytes()
    return {
        "png": png(INDICES, 3, 8, table),
        "png of 4 bits": png(INDICES, 3, 4, table),
        "png with transparent colours": png(INDICES, 3, 8, table, chunk(b"tRNS", bytes([255, 128]))),
        "png with a transparent colour": png(INDICES, 3, 8, table, chunk(b"tRNS", bytes([255, 0]))),
        "bmp": bmp(INDICES, 8, colours),
        "tiff": tiff_image(INDICES.astype(np.uint8), 3, (0x140, 3, 3 * len(colours), columns)),
    }


@pytest.mark.parametrize("kind", palettes(COLOURS))
def test_palettes_have_the_colours_that_are_used(kind: str) -> None:
    found = look(palettes(COLOURS)[kind])
    assert found is not None and np.array_equal(found, COLOURS[INDICES]) == ("transparent" not in kind)
    for colours in (COLOURS[:6], COLOURS[:2]):
        with pytest.raises(UserError, match="image x is damaged: it uses colour 6, and its palette has "):
            pictures.decode(palettes(colours)[kind], "x")


def test_a_palette_that_is_missing() -> None:
    for bits in (1, 4, 8):
        with pytest.raises(UserError, match="image x is damaged: it uses colour 1, and its palette has 0."):
            pictures.decode(png(INDICES % 2, 3, bits), "x")


def test_a_transparent_colour_may_lie_beyond_the_palette() -> None:
    flat = Image.fromarray(np.where(INDICES == 6, 200, INDICES).astype(np.uint8))
    flat.putpalette(COLOURS.tobytes())
    found = look(saved(flat, "GIF", transparency=200, optimize=False))
    assert found is not None
    assert look(saved(flat, "GIF", optimize=False)) is None
    np.testing.assert_array_equal(found, np.where((INDICES == 6)[..., np.newaxis], 0, COLOURS[INDICES]))


@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_with_a_sign_are_refused(order: str) -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert look(tiff_image(levels, 1, order=order)) is not None
    for stored in (levels.astype(np.int8), levels.astype(np.int16)):
        with pytest.raises(UserError, match="image x holds whole numbers of 32 bits or with a sign; legal: "):
            pictures.decode(tiff_image(stored, 1, order=order, form=2), "x")


def scanned(times: int, behind: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is there so many times."""
    content = jpeg(np.arange(4096, dtype=np.uint8).reshape(64, 64), progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (times - 1) + b"\xff\xd9" + behind


def test_scans_without_end_are_refused() -> None:
    usual = look(scanned(1))
    assert usual is not None
    some = look(scanned(50))
    assert some is not None and some.shape == usual.shape
    for content in (scanned(101), scanned(500), with_segment(scanned(500), 0xFE, b"\xff\xd9" * 50)):
        with pytest.raises(UserError, match="image x cannot be read: it has more than 100 scans."):
            pictures.decode(content, "x")
    # What follows the picture, as a film does in files of telephones, or stands in a comment is none of its scans.
    for content in (scanned(1, b"\xff\xda\0\2" * 500), with_segment(scanned(1), 0xFE, b"\xff\xda\0\2" * 500)):
        found = look(content)
        assert found is not None and np.array_equal(found, usual)


def test_seven_eighths() -> None:
    for length in range(1, 4001):
        # The nearest whole number; of two, the smaller one.
        exact = Fraction(7 * length, 8)
        found = pictures.seven_eighths(length)
        assert abs(found - exact) < Fraction(1, 2) or found == exact - Fraction(1, 2)


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
