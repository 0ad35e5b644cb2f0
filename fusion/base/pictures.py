"""What an image file means: one definition, for training, evaluation and serving.

A picture is the first image of its file, turned upright as its EXIF orientation says, in RGB of 8 bits. Grey is
repeated, palettes are expanded, transparent parts are laid on black, of 16 bits the upper 8 are taken, other colours
are converted. What else a file holds is not looked at. What cannot be read so is refused, and named.
"""

from __future__ import annotations

import functools
import io
import itertools
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import metadata
from .files import is_handed_pipe
from .program import UserError

FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpeg", ".jpg", ".mpo"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""The formats that are read, by Pillow's names, and the ends of their files' names. Others, which may start programs
or hold no pixels, are not even looked at."""

ENDS = tuple(end for ends in FORMATS.values() for end in ends)
"""How the names of image files end, in small letters. What a file is decides its content."""

VERSION = 2
"""Counted up when a file comes to mean something else. What was found out by another version is not believed."""

MOST_PIXELS = 64_000_000
"""An image of more is refused by its head, before any of it is decoded: decoding it would take 200 MB and more."""

MOST_BYTES = 256 * 2**20
"""A file of more is not read: so many pixels take as much where nothing is compressed."""

# Its warnings and its journal tell what is either nothing to a picture or refused here.
_PILLOW = r"PIL\."
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# What is asked of a file at a time.
_AT_ONCE = 2**20
_FEWER = f"legal: {MOST_PIXELS / 1e6:g} million in all."
# Pillow's modes that have, or may have, transparent parts; those of colours that it converts; and those refused.
_COVERED = ("P", "PA", "LA", "La", "RGBA", "RGBa")
_COLOURS = ("RGB", "RGBX", "CMYK", "YCbCr", "LAB")
_REFUSED = {"F": "floating-point numbers", "I": "whole numbers of 32 bits or with a sign"}
# Where PNG stores grey in fewer bits, Pillow gives 8, but the transparent level as it is stored; of 1 bit either way.
_LEVELS = {"L;2": 85, "L;4": 17}
# Tags of TIFF, and the values of the second where 0 is white, and of the third where numbers have a sign.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _INVERTED, _SIGNED = 258, 262, 339, 0, 2


@dataclass(frozen=True)
class Picture:
    """A picture, and how it lies in its file.

    Attributes:
      pixels: uint8 (height, width, 3), RGB, upright.
      orientation: of EXIF, by which it was turned, see `turned`.
    """

    pixels: np.ndarray
    orientation: int


def read(file: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture of an image file, uint8 (height, width, 3), RGB.

    Args:
      file: its path.
      size: the only (height, width) that is taken, of the model; None takes any.

    Raises:
      UserError: as of `load` and `decode`.
    """
    return decode(load(file), repr(str(file)), size).pixels


def load(file: str | Path) -> bytes:
    """The bytes of an image file, one more than `MOST_BYTES` or some if it has more. Raises `UserError` when it cannot
    be read."""
    name = repr(str(file))
    is_handed_pipe(file, "image")
    try:
        with open(file, "rb") as stream:
            # A pipe does not say how much it holds.
            parts = iter(functools.partial(stream.read, _AT_ONCE), b"")
            return b"".join(itertools.islice(parts, MOST_BYTES // _AT_ONCE + 1))
    except FileNotFoundError:
        raise UserError(f"image {name} does not exist.") from None
    except IsADirectoryError:
        raise UserError(f"image {name} is a folder; legal: an image file.") from None
    except (OSError, ValueError, MemoryError) as error:  # of values: a name with a zero byte
        raise UserError(f"image {name} cannot be read: {_reason(error)}.") from None


def decode(content: bytes, name: str, size: tuple[int, int] | None = None) -> Picture:
    """The picture that an image file's bytes hold.

    Args:
      content: the file's bytes.
      name: what an error calls it.
      size: as of `read`.

    Raises:
      UserError: no picture of `FORMATS`, a damaged one, one of more than `MOST_PIXELS` or of another size, of
        floating-point numbers, or of whole numbers of more than 16 bits or with a sign.
    """
    try:
        if len(content) > MOST_BYTES:
            raise UserError(f"image {name} is larger than {MOST_BYTES >> 20} MB, which is the most that is legal.")
        needed, orientation = metadata.divide(content)
        _silence()
        with Image.open(io.BytesIO(needed), formats=tuple(FORMATS)) as image:
            _check_size(image, name, orientation, size)
            stored = image.tile[0][3] if image.tile else None
            image.load()
            return Picture(turned(_rgb(image, stored, name), orientation), orientation)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"file {name} is not an image that can be read.") from None
    except Image.DecompressionBombError:
        raise UserError(f"image {name} has far too many pixels; {_FEWER}") from None
    except Exception as error:  # decoders raise whatever they meet
        raise UserError(f"image {name} cannot be read: {_reason(error)}.") from error


def seven_eighths(length: Any) -> Any:
    """How much evaluation takes of the short side of a picture, in pixels: of two whole numbers that are as near, the
    smaller. `length` is an int, or whole numbers of NumPy or TensorFlow."""
    return (7 * length + 3) // 8


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".")[:200] or type(error).__name__


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An image (height, width, ...) upright, that lies in its file by an EXIF orientation: from 5 on rows are columns;
    of 2, 3, 6 and 7 left is right, and of 3, 4, 7 and 8 above is below, in this order."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _silence() -> None:
    # Filters of a `with` block are not of a thread alone, so the filter stays.
    if not any(getattr(where, "pattern", None) == _PILLOW for _, _, _, where, _ in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW)


def _check_size(image: Image.Image, name: str, orientation: int, size: tuple[int, int] | None) -> None:
    """Raises `UserError` for an image that is not to be decoded, by its head."""
    width, height = image.size if orientation < 5 else image.size[::-1]
    if width * height > MOST_PIXELS or not width * height:
        raise UserError(f"image {name} is {width} x {height} pixels; {_FEWER}")
    if size is not None and (height, width) != size:
        raise UserError(f"image {name} is {width} x {height} pixels; legal: {size[1]} x {size[0]}, the model's input.")


def _rgb(image: Image.Image, stored: Any, name: str) -> np.ndarray:
    """The pixels of a loaded image as they lie in the file, uint8 (height, width, 3); `stored` is Pillow's name of how
    they are stored there."""
    mode, clear = image.mode, image.info.get("transparency")
    if image.format == "TIFF" and _SIGNED in _tags(image).get(_SAMPLE_FORMAT, ()):
        mode = "I"
    if mode in ("P", "PA"):
        _check_palette(image, clear, name)
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return _repeated(_of_16_bits(image, clear))
    if mode in ("1", "L"):
        grey = np.asarray(image.convert("L"))
        if clear is not None:
            grey = grey * (grey != (bool(clear) * 255 if mode == "1" else clear * _LEVELS.get(stored, 1)))
        return _repeated(grey)
    if mode == "RGB" and clear is not None:
        if stored == "RGB;16B":
            raise UserError(f"image {name} has 16 bits and a transparent colour; legal: 8 bits, or an alpha channel.")
        rgb = np.asarray(image)
        return rgb * (rgb != clear).any(axis=2, keepdims=True)
    if mode in _COVERED:
        covered = image.convert("LA") if mode == "La" else image
        # Multiplied by alpha, which is what black gives them.
        return np.asarray(covered.convert("RGBA").convert("RGBa"))[..., :3]
    if mode in _COLOURS:
        return np.asarray(image.convert("RGB"))
    what = _REFUSED.get(mode, f"pixels of Pillow's mode {mode}")
    raise UserError(f"image {name} holds {what}; legal: whole numbers of 8 bits, or of 16 without a sign.")


def _of_16_bits(image: Image.Image, clear: int | None) -> np.ndarray:
    """The grey levels, uint8 (height, width), of an image of more than 8 bits; where they are `clear` it is
    transparent."""
    values, bits = np.asarray(image), 16
    if image.format == "TIFF":
        tags = _tags(image)
        bits = tags[_BITS][0]
        if tags.get(_PHOTOMETRIC) == _INVERTED:
            values = (1 << bits) - 1 - values
    if clear is not None:
        values = values * (values != clear)
    return (values >> (bits - 8)).astype(np.uint8)


def _check_palette(image: Image.Image, clear: Any, name: str) -> None:
    """Raises `UserError` for colours beyond the palette's last, which decoders show as they like. The index that is
    transparent, whatever its colour, may be one."""
    palette = image.palette
    colours = 0 if palette is None else len(palette.palette) // len(palette.mode)
    # Of mode PA the first 256 counts are of indices too.
    counts = image.histogram()[:256]
    last = max((index for index, count in enumerate(counts) if count and index != clear), default=0)
    if last >= colours:
        raise UserError(f"image {name} is damaged: it uses colour {last}, and its palette has {colours}.")


def _tags(image: Image.Image) -> Any:
    """The tags of a TIFF image; Pillow types them for a class of its own alone, which need not be loaded here."""
    return image.tag_v2  # type: ignore[attr-defined]


def _repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., np.newaxis], 3, axis=2)
