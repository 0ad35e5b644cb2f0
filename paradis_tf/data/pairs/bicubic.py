"""Bicubic resizing as MATLAB's imresize does it, by which low-resolution images of benchmarks are made."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def shrink(image: np.ndarray, scale: int) -> np.ndarray:
    """The bicubic low-resolution image of a high-resolution one, uint8 (height / scale, width / scale, channels).

    The kernel is widened by the scale (antialiasing), and edges are mirrored.

    Args:
      image: uint8 (height, width, channels), sides multiples of the scale.
      scale: at least 2.

    Raises:
      ValueError: a side that is no multiple of the scale.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"the image is {height}x{width}; its sides are to be multiples of {scale}.")
    return _resize(image, height // scale, width // scale)


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """The bicubic high-resolution image of a low-resolution one, uint8 (height * scale, width * scale, channels)."""
    height, width = image.shape[:2]
    return _resize(image, height * scale, width * scale)


def crop_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """The image without the last rows and columns that keep its sides from being multiples of the scale."""
    height, width = (side - side % scale for side in image.shape[:2])
    return image[:height, :width]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = _weights(image.shape[0], height) @ image.reshape(image.shape[0], -1).astype(np.float64)
    rows = rows.reshape(height, *image.shape[1:])
    resized = np.einsum("ow,hwc->hoc", _weights(image.shape[1], width), rows, optimize=True)
    return np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _weights(before: int, after: int) -> np.ndarray:
    """What each pixel of a side gives to each pixel of the resized side, (after, before)."""
    ratio = after / before
    widening = min(ratio, 1.0)
    # The place of each new pixel's centre among the old ones.
    centres = (np.arange(after) + 0.5) / ratio - 0.5
    reach = 2 / widening
    first = np.floor(centres - reach).astype(int)
    places = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    values = _cubic((centres[:, None] - places) * widening)
    values /= values.sum(axis=1, keepdims=True)
    mirrored = np.where(places % (2 * before) < before, places % before, before - 1 - places % before)
    weights = np.zeros((after, before))
    np.add.at(weights, (np.arange(after)[:, None], mirrored), values)
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel of Keys 1981, a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
