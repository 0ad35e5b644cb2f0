"""Reads an image file as the raw input of a model: its picture, see `fusion.base.pictures`, in the model's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..base import pictures
from ..base.program import UserError

REFUSE, STRETCH, CROP, PAD = RESIZES = ("refuse", "stretch", "crop", "pad")
"""What is done with a picture of another size than the model's."""


def read(source: str | Path | bytes, shape: tuple[int, int, int] | None, resize: str = REFUSE) -> np.ndarray:
    """The picture as uint8 (height, width, 3), RGB, 0..255. `shape` None takes pictures of any size.

    Args:
      source: the file, or what it holds.
      shape: the model's (height, width, channels).
      resize: one of `RESIZES`. `refuse` takes pictures of the model's size alone. The others take any size, which
        changes the answer and is for the caller to decide: by antialiased bilinear interpolation, `stretch` fits the
        picture to the model's size, `pad` all of it, with black beside it, and `crop` its centre: 7/8 of the largest
        part of the model's proportions, as evaluation does, or more where that has fewer pixels than the model.

    Raises `UserError` as `pictures.read` does, and for a model that takes no RGB.
    """
    channels = 3 if shape is None else shape[2]
    if channels != 3:
        raise UserError(f"the model takes {channels} channels; legal for image files: 3.")
    size = None if shape is None or resize != REFUSE else shape[:2]
    if isinstance(source, bytes):
        pixels = pictures.decode(source, "from standard input", size).pixels
    else:
        pixels = pictures.read(source, size)
    return pixels if shape is None or pixels.shape == shape else _resized(pixels, shape, resize)


def _resized(pixels: np.ndarray, shape: tuple[int, int, int], resize: str) -> np.ndarray:
    rgb, size, bilinear = Image.fromarray(pixels), (shape[1], shape[0]), Image.Resampling.BILINEAR
    if resize == CROP:
        # Not by `resize` itself, which looks beyond a box.
        rgb = rgb.crop(_centre(rgb.size, size))
    rgb = ImageOps.pad(rgb, size, bilinear, "black") if resize == PAD else rgb.resize(size, bilinear)
    return np.asarray(rgb, np.uint8)


def _centre(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) of the centre that `crop` takes of an image of `size` for one of `target`."""
    across = size[0] * target[1] <= size[1] * target[0]
    # The side that limits it, of the picture and of the model.
    length, wanted = (size[0], target[0]) if across else (size[1], target[1])
    taken = max(pictures.seven_eighths(length), min(length, wanted))
    width, height = (max(1, round(taken * side / wanted)) for side in target)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
