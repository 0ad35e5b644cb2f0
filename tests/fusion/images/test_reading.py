"""Reading images."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fusion.base.program import UserError
from fusion.images import reading as images


def test_reads_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(images.read(tmp_path / "rgb.png", (4, 5, 3)), pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    grey = images.read(tmp_path / "grey.png", (4, 5, 3))
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, -1))


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "1", "LA", "CMYK"])
def test_other_modes_of_the_models_size_are_taken(tmp_path, mode):
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    Image.new(mode, (5, 4)).save(path)
    assert images.read(path, (4, 5, 3)).shape == (4, 5, 3)


def test_refuses_bad_images(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(UserError, match="does not exist"):
        images.read(path, (4, 5, 3))
    with pytest.raises(UserError, match="is a folder; legal: an image file"):
        images.read(tmp_path, (4, 5, 3))
    Image.new("RGB", (4, 5)).save(path)
    with pytest.raises(UserError, match="is 4 x 5 pixels; legal: 5 x 4"):
        images.read(path, (4, 5, 3))
    with pytest.raises(UserError, match="takes 1 channels"):
        images.read(path, (5, 4, 1))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read: "):
        images.read(path, (64, 64, 3))
    path.write_bytes(b"text")
    with pytest.raises(UserError, match="is not an image that can be read"):
        images.read(path, (4, 5, 3))


def png_of(width, height):
    """The start of a PNG of that size; whoever decodes it finds that there is no more."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (chunk, b"IDAT")
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("resize", images.RESIZES)
@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (8000, 8000, "cannot be read"),
        (8000, 8001, "is 8000 x 8001 pixels; legal: 64 million in all."),
        (1_000_000, 1_000_000, "has far too many pixels; legal: 64 million in all."),
    ],
)
def test_images_of_too_many_pixels_are_not_decoded(resize, width, height, said):
    shape = None if resize == images.REFUSE else (4, 5, 3)
    with pytest.raises(UserError, match=said):
        images.read(png_of(width, height), shape, resize)
