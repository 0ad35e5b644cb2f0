"""Reads an image file as the raw input of a model."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..base.program import UserError

FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpeg", ".jpg", ".mpo"),
    "PNG": (".png",),
    "PPM": (".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""The formats that are read, by Pillow's names, and the ends of their files' names. Others, which may start programs
or hold no pixels, are not even looked at."""

REFUSE, STRETCH, CROP, PAD = RESIZES = ("refuse", "stretch", "crop", "pad")
"""What is done with an image of another size than the model's."""

MOST_PIXELS = 64_000_000
"""An image of more is refused by its head, before any of it is decoded: decoding it would take 200 MB and more."""

_MODES = ("RGB", "L")
_CENTRE = 224 / 256
_FEWER = f"legal: {MOST_PIXELS / 1e6:g} million in all."
_FAILURES: dict[type[Exception], str] = {
    FileNotFoundError: "image {} does not exist.",
    IsADirectoryError: "image {} is a folder; legal: an image file.",
    UnidentifiedImageError: "file {} is not an image that can be read.",
    Image.DecompressionBombError: f"image {{}} has far too many pixels; {_FEWER}",
}


def read(source: str | Path | bytes, shape: tuple[int, int, int] | None, resize: str = REFUSE) -> np.ndarray:
    """The image as uint8 (height, width, 3), 0..255; a grey one is repeated to RGB, as the training
    data is. `shape` None takes images of any size.

    Args:
      source: the file, or what it holds.
      shape: the model's (height, width, channels).
      resize: one of `RESIZES`. `refuse` takes images of the model's size alone, as they are. The others prepare a
        picture of any size, which changes the answer and is for the caller to decide: it is turned upright as its EXIF
        orientation says, made RGB (transparent parts over black), and, by antialiased bilinear interpolation,
        `stretch` fits it to the model's size, `pad` all of it, with black beside it, and `crop` its centre: 7/8 of the
        largest part of the model's proportions, as evaluation does, or more where that has fewer pixels than the model.

    Raises `UserError` when the file is missing, no image of `FORMATS` or of more than `MOST_PIXELS`, and with `refuse`
    when its size is not `shape`'s, or its mode is neither RGB nor L (8-bit grey).
    """
    channels = 3 if shape is None else shape[2]
    if channels != 3:
        raise UserError(f"the model takes {channels} channels; legal for image files: 3.")
    name = "from standard input" if isinstance(source, bytes) else repr(str(source))
    try:
        with _open(source) as image:
            # Where the model's size is given, that is the bound.
            if image.width * image.height > MOST_PIXELS and (resize != REFUSE or shape is None):
                raise UserError(f"image {name} is {image.width} x {image.height} pixels; {_FEWER}")
            if resize != REFUSE:
                return _resized(image, shape, resize)
            _check(image, name, shape)
            return np.asarray(image.convert("RGB"), np.uint8)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reasons = (text.format(name) for kind, text in _FAILURES.items() if isinstance(error, kind))
        reason = f"image {name} cannot be read: {getattr(error, 'strerror', None) or error}."
        raise UserError(next(reasons, reason)) from error


def _check(image: Image.Image, name: str, shape: tuple[int, int, int] | None) -> None:
    """Raises `UserError` for an image that the model does not take as it is."""
    if image.mode not in _MODES:
        raise UserError(f"image {name} has mode {image.mode}; legal: RGB, or L (8-bit grey).")
    if shape is not None and image.size != (shape[1], shape[0]):
        raise UserError(
            f"image {name} is {image.width} x {image.height} pixels; legal: {shape[1]} x {shape[0]}, the model's input."
        )


def _open(source: str | Path | bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Our own bound is the lower one.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=tuple(FORMATS))


def _resized(image: Image.Image, shape: tuple[int, int, int] | None, resize: str) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        # Pillow would cut these off at 255.
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif "A" in upright.getbands() or "transparency" in upright.info:
        coloured = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)
    rgb = upright.convert("RGB")
    if shape is not None and rgb.size != (shape[1], shape[0]):
        size, bilinear = (shape[1], shape[0]), Image.Resampling.BILINEAR
        if resize == PAD:
            rgb = ImageOps.pad(rgb, size, bilinear, "black")
        else:
            rgb = rgb.resize(size, bilinear, _centre(rgb.size, size) if resize == CROP else None)
    return np.asarray(rgb, np.uint8)


def _centre(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) of the centre that `crop` takes of an image of `size` for one of `target`."""
    largest = min(size[0] / target[0], size[1] / target[1])
    scale = max(_CENTRE * largest, min(largest, 1.0))
    width, height = (max(1, round(side * scale)) for side in target)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
