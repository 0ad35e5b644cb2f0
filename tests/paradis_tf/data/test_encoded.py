"""Images in files: decoding, the centre that evaluation takes, and indexing as if they were an array."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from fusion.base import pictures
from fusion.base.program import UserError
from fusion.images import reading
from paradis_tf.data.encoded import EncodedImages, central, crop, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_lossless_files_are_decoded_exactly(form: str) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(PIXELS), form)), PIXELS)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16"])
def test_other_modes_become_rgb(mode: str) -> None:
    grey = np.repeat(PIXELS[..., :1] // 128 * 255, 3, axis=2)
    image = Image.fromarray(grey[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey)
    found = decode(encode(image if mode == "I;16" else image.convert(mode), "PNG")).numpy()
    np.testing.assert_array_equal(found, grey)


def test_jpeg_and_gif() -> None:
    smooth = np.stack([np.add.outer(np.arange(40), np.arange(60))] * 3, -1).astype(np.uint8)
    for options in ({}, {"progressive": True}):
        jpeg = encode(Image.fromarray(smooth), "JPEG", quality=95, **options)
        assert np.abs(decode(jpeg).numpy().astype(int) - smooth).max() < 6
    assert decode(encode(Image.fromarray(smooth).convert("CMYK"), "JPEG")).shape == (40, 60, 3)
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(animated), np.broadcast_to(np.array([255, 0, 0], np.uint8), (4, 6, 3)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_every_truncation_is_noticed(form: str) -> None:
    whole = encode(Image.fromarray(PIXELS), form)
    # The last bytes of a JPEG and a PNG are an end mark that holds no pixels.
    for size in range(0, len(whole) - 16, 17):
        with pytest.raises(ValueError):
            decode(whole[:size])


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff", b"<svg></svg>", b"RIFF....WEBP"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        decode(content)


def centre(height: int, width: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels, pixels[top : top + side, left : left + side]


@pytest.mark.parametrize(
    ("height", "width", "size", "side"),
    [
        (256, 341, 224, 224),
        (300, 256, 224, 224),
        (224, 224, 224, 224),
        (32, 32, 32, 32),
        (240, 300, 224, 224),
        (32, 40, 28, 28),
    ],
)
def test_the_centre_is_cut_without_a_change_of_size(height: int, width: int, size: int, side: int) -> None:
    pixels, expected = centre(height, width, side)
    np.testing.assert_array_equal(central(tf.constant(pixels), size), expected)


@pytest.mark.parametrize(("height", "width", "size", "side"), [(512, 700, 224, 448), (128, 200, 28, 112)])
def test_a_large_image_is_reduced(height: int, width: int, size: int, side: int) -> None:
    # Smooth, so that the two ways of averaging agree.
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([128 + 90 * np.sin(x / 40), 255 * y / height, 255 * x / width], -1).astype(np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    expected = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    found = central(tf.constant(pixels), size).numpy()
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 2


def test_a_small_or_narrow_image_is_enlarged() -> None:
    for height, width in ((5, 9), (1, 1), (1, 5000), (3000, 2)):
        pixels, whole = centre(height, width, min(height, width))
        found = central(tf.constant(pixels), 16).numpy()
        assert found.shape == (16, 16, 3)
        assert whole.min() <= found.min() and found.max() <= whole.max()


@pytest.mark.parametrize("short", [*range(1, 38), 68, 100, 276, 500, 1004])
def test_evaluation_and_predict_cut_the_same_square(short: int) -> None:
    # A model of that size takes it as it is.
    side = max(1, int(np.ceil(short * 7 / 8 - 0.5)))
    for height, width in ((short, short + 3), (short + 8, short)):
        pixels, expected = centre(height, width, side)
        np.testing.assert_array_equal(central(tf.constant(pixels), side), expected)
        png = encode(Image.fromarray(pixels), "PNG", compress_level=0)
        np.testing.assert_array_equal(reading.read(png, (side, side, 3), reading.CROP), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 7), (2, 9), (3, 50), (4, 30), (9, 4), (20, 20), (31, 40)])
def test_predict_looks_at_nothing_beside_the_square(height: int, width: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = reading.read(encode(Image.fromarray(pixels), "PNG"), (32, 32, 3), reading.CROP)
    assert np.abs(found.astype(int) - central(tf.constant(pixels), 32).numpy()).max() <= 2


def test_existing_evaluations_do_not_move() -> None:
    lengths = np.arange(1, 4001)
    # In single precision, as long as that was how it was done.
    earlier = np.rint(lengths.astype(np.float32) / np.float32(256 / 224)).astype(int)
    now = pictures.seven_eighths(tf.constant(lengths)).numpy()
    halves = lengths % 8 == 4
    np.testing.assert_array_equal(now[~halves], earlier[~halves])
    np.testing.assert_array_equal(now, [pictures.seven_eighths(length) for length in lengths.tolist()])


def test_crop_takes_the_box() -> None:
    found = crop(tf.constant(PIXELS), tf.constant([2, 3, 6, 9]), 6, 9)
    np.testing.assert_array_equal(found, PIXELS[2:8, 3:12])


@pytest.fixture
def images(tmp_path: Path) -> EncodedImages:
    """Five PNG images, the last two in one file."""
    contents = [encode(Image.fromarray(np.roll(PIXELS, n, axis=1)[:12, :12]), "PNG") for n in range(5)]
    files = [tmp_path / f"{n}" for n in range(4)]
    for file, content in zip(files, [*contents[:3], b"head" + contents[3] + contents[4]], strict=True):
        file.write_bytes(content)
    offsets = np.array([0, 0, 0, 4, 4 + len(contents[3])])
    lengths = np.array([0, 0, 0, len(contents[3]), len(contents[4])])
    return EncodedImages(files, np.array([0, 1, 2, 3, 3]), offsets, lengths, 12)


def test_images_are_indexed_like_an_array(images: EncodedImages) -> None:
    expected = np.stack([np.roll(PIXELS, n, axis=1)[:12, :12] for n in range(5)])
    assert (images.shape, images.dtype, len(images), images.ndim) == (expected.shape, expected.dtype, 5, 4)
    for index in (0, -1, slice(1, 4), slice(None, None, -2), [4, 0, 4], np.array([2]), np.arange(5) % 2 == 0, []):
        if isinstance(index, list) and not index:
            index = np.array([], int)
        np.testing.assert_array_equal(images[index], expected[index])
    np.testing.assert_array_equal(np.asarray(images), expected)
    chosen = images.select(np.array([4, 1]))
    assert chosen.shape == (2, 12, 12, 3)
    np.testing.assert_array_equal(np.asarray(chosen), expected[[4, 1]])
    with pytest.raises(IndexError):
        images[5]


def test_a_file_that_is_gone_or_damaged_is_named(images: EncodedImages) -> None:
    images.files[1].unlink()
    with pytest.raises(UserError, match=rf"image '{images.files[1]}' cannot be read: No such file"):
        images[1]
    images.files[3].write_bytes(images.files[3].read_bytes()[:-40])
    assert images[3].shape == (12, 12, 3)
    with pytest.raises(UserError, match=rf"image 4 in '{images.files[3]}' cannot be decoded"):
        images[4]
