"""RandAugment: each operation at its strengths against Pillow, and which are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from paradis_tf.data.augmentation.rand_augment import OPERATIONS, apply

# Even sides: no shear looks halfway between two pixels, where either would be right.
HEIGHT, WIDTH = 32, 46
Y, X = np.mgrid[:HEIGHT, :WIDTH]
PICTURE = np.stack([8 * Y, 5 * X, 128 + 60 * np.sin(X / 5) * np.cos(Y / 4)], -1).clip(0, 255).astype(np.uint8)


def sampled(a: float, b: float, e: float, c: float, d: float, f: float) -> Callable[[Image.Image], Image.Image]:
    """The picture looked up at (a b; c d) times the offset of a pixel's middle from the centre, plus (e, f)."""
    x, y = WIDTH / 2, HEIGHT / 2
    data = (a, b, x + e - a * x - b * y, c, d, y + f - c * x - d * y)
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, data, Image.Resampling.NEAREST, fillcolor=(128, 128, 128)
    )


def oracle(name: str, magnitude: float, sign: int) -> Callable[[Image.Image], Image.Image]:
    """The operation of the papers' table at a magnitude of 0 to 10, written with Pillow."""
    m = sign * magnitude
    turn = math.radians(3 * m)
    enhance = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhance:
        return lambda image: enhance[name](image).enhance(1 + 0.09 * m)
    others: dict[str, Callable[[Image.Image], Image.Image]] = {
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "posterize": lambda image: ImageOps.posterize(image, round(8 - 0.4 * magnitude)),
        "solarize": lambda image: ImageOps.solarize(image, round(256 - 25.6 * magnitude)),
        "rotate": sampled(math.cos(turn), math.sin(turn), 0, -math.sin(turn), math.cos(turn), 0),
        "shear_x": sampled(1, 0.03 * m, 0, 0, 1, 0),
        "shear_y": sampled(1, 0, 0, 0.03 * m, 1, 0),
        "translate_x": sampled(1, 0, round(WIDTH * m * 15 / 331), 0, 1, 0),
        "translate_y": sampled(1, 0, 0, 0, 1, round(HEIGHT * m * 15 / 331)),
    }
    return others[name]


def applied(number: int, sign: int, magnitude: float) -> np.ndarray:
    operation = tf.constant((number + 0.5) / len(OPERATIONS))
    return apply(tf.constant(PICTURE), operation, tf.constant(0.25 if sign > 0 else 0.75), magnitude).numpy()


def test_the_operations_are_the_published_ones() -> None:
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 3, 9, 10])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pillows(name: str, magnitude: float, sign: int) -> None:
    found = applied(list(OPERATIONS).index(name), sign, magnitude)
    expected = np.asarray(oracle(name, magnitude, sign)(Image.fromarray(PICTURE)))
    assert found.dtype == np.uint8 and found.shape == PICTURE.shape
    off = np.abs(found.astype(int) - expected.astype(int)).max(axis=-1) > 1
    # Sines are rounded, and a place between two pixels may fall to either.
    assert off.mean() <= (0.005 if name == "rotate" else 0)


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in ("autocontrast", "equalize", "invert")])
def test_no_magnitude_is_no_change_and_a_large_one_is_not(name: str) -> None:
    number = list(OPERATIONS).index(name)
    np.testing.assert_array_equal(applied(number, 1, 0), PICTURE)
    assert (applied(number, 1, 10) != PICTURE).any()


def test_signs_are_opposite() -> None:
    for name in ("rotate", "shear_x", "translate_y", "brightness"):
        number = list(OPERATIONS).index(name)
        assert (applied(number, 1, 9) != applied(number, -1, 9)).any()
