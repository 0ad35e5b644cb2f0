"""Color operations against Pillow's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from paradis_tf.data.augmentation import color

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
NARROW = RNG.integers(90, 130, (17, 33, 3), dtype=np.uint8)
# Smooth, so that histograms are uneven.
SLOPE = np.stack([np.outer(np.linspace(0, top, 64), np.linspace(0.2, 1, 48)) for top in (255, 180, 60)], -1).astype(
    "u1"
)
FLAT = np.full((9, 9, 3), (3, 255, 100), np.uint8)
IMAGES = {"noise": NOISE, "narrow": NARROW, "slope": SLOPE, "flat": FLAT}
FACTORS = (0.0, 0.19, 0.5, 1.0, 1.37, 1.9)


def difference(found: np.ndarray, expected: Image.Image) -> int:
    assert found.dtype == np.uint8
    return int(np.abs(found.astype(int) - np.asarray(expected).astype(int)).max())


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize(
    ("operation", "enhance", "most"),
    [
        (color.brightness, ImageEnhance.Brightness, 0),
        (color.contrast, ImageEnhance.Contrast, 1),
        (color.saturation, ImageEnhance.Color, 0),
        (color.sharpness, ImageEnhance.Sharpness, 1),
    ],
    ids=["brightness", "contrast", "saturation", "sharpness"],
)
def test_factors(operation: Callable, enhance: Callable, most: int, image: np.ndarray) -> None:
    for factor in FACTORS:
        assert difference(operation(image, factor).numpy(), enhance(Image.fromarray(image)).enhance(factor)) <= most
    np.testing.assert_array_equal(operation(image, 1.0), image)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_histograms(image: np.ndarray) -> None:
    assert difference(color.autocontrast(image).numpy(), ImageOps.autocontrast(Image.fromarray(image))) <= 1
    assert difference(color.equalize(image).numpy(), ImageOps.equalize(Image.fromarray(image))) == 0


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_bits_and_thresholds(image: np.ndarray) -> None:
    for bits in range(1, 9):
        assert difference(color.posterize(image, bits).numpy(), ImageOps.posterize(Image.fromarray(image), bits)) == 0
    for threshold in (0, 1, 26, 128, 255, 256):
        assert (
            difference(color.solarize(image, threshold).numpy(), ImageOps.solarize(Image.fromarray(image), threshold))
            == 0
        )


def test_grey_is_pillows() -> None:
    np.testing.assert_array_equal(color.grey(NOISE)[..., 0], np.asarray(Image.fromarray(NOISE).convert("L")))


def test_sharpness_of_an_image_without_an_inside() -> None:
    small = NOISE[:2, :5]
    np.testing.assert_array_equal(color.sharpness(small, 1.9), small)


def test_jitter_is_brightness_then_contrast_then_color() -> None:
    picture = Image.fromarray(SLOPE)
    for enhance, factor in ((ImageEnhance.Brightness, 0.7), (ImageEnhance.Contrast, 1.3), (ImageEnhance.Color, 0.6)):
        picture = enhance(picture).enhance(factor)
    assert difference(color.jitter(SLOPE, [0.7, 1.3, 0.6]).numpy(), picture) <= 2
