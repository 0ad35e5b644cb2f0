"""Bicubic resizing against its definition and the published benchmark."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paradis_tf.data.pairs.bicubic import crop_to_multiple, enlarge, shrink
from paradis_tf.tasks.image_quality import scores

RNG = np.random.default_rng(6)
SET5 = Path(os.environ.get("PARADIS_DATA_DIR", "")) / "sr" / "test" / "Set5"
# PSNR-Y and SSIM-Y of bicubic enlargement on Set5, as papers print them.
PUBLISHED = {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)}


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def mirrored(place: int, side: int) -> int:
    """The edge pixel comes twice: -1 is 0, -2 is 1."""
    while not 0 <= place < side:
        place = -1 - place if place < 0 else 2 * side - 1 - place
    return place


def resized_line(line: np.ndarray, after: int) -> np.ndarray:
    """One side, pixel by pixel."""
    before, ratio = len(line), after / len(line)
    widening = min(ratio, 1)
    found = []
    for place in range(after):
        centre = (place + 0.5) / ratio - 0.5
        near = range(int(np.floor(centre - 2 / widening)) - 2, int(np.ceil(centre + 2 / widening)) + 3)
        weights = [cubic((centre - p) * widening) for p in near]
        found.append(sum(w * line[mirrored(p, before)] for w, p in zip(weights, near, strict=True)) / sum(weights))
    return np.array(found)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_equals_the_loop(scale: int) -> None:
    image = RNG.integers(0, 256, (3 * scale, 4 * scale, 3), dtype=np.uint8)
    for resize, shape in ((shrink, (3, 4)), (enlarge, (3 * scale**2, 4 * scale**2))):
        rows = np.apply_along_axis(resized_line, 0, image.astype(np.float64), shape[0])
        whole = np.apply_along_axis(resized_line, 1, rows, shape[1])
        found = resize(image, scale)
        assert found.shape == (*shape, 3) and found.dtype == np.uint8
        np.testing.assert_allclose(found, np.clip(whole, 0, 255), atol=0.5 + 1e-6)


def test_a_flat_image_stays_flat() -> None:
    image = np.full((12, 18, 3), 77, np.uint8)
    assert (shrink(image, 3) == 77).all() and (enlarge(image, 2) == 77).all()


def test_cropping_keeps_the_top_left() -> None:
    image = RNG.integers(0, 256, (11, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_to_multiple(image, 3), image[:9, :6])
    with pytest.raises(ValueError, match="11x8; its sides are to be multiples of 3"):
        shrink(image, 3)


@pytest.mark.skipif(not SET5.is_dir(), reason="PARADIS_DATA_DIR holds no sr/test/Set5")
@pytest.mark.parametrize(("scale", "published"), PUBLISHED.items())
def test_set5_has_the_published_scores(scale: int, published: tuple[float, float]) -> None:
    found = []
    for file in sorted((SET5 / "HR").glob("*.png")):
        high = crop_to_multiple(np.asarray(Image.open(file).convert("RGB")), scale)
        low = shrink(high, scale)
        theirs = np.asarray(Image.open(SET5 / f"LR_x{scale}" / file.name).convert("RGB"))
        assert np.abs(low.astype(int) - theirs).mean() < 0.2
        found.append(scores(high, enlarge(low, scale), scale))
    assert len(found) == 5
    assert np.mean([one["psnr_y"] for one in found]) == pytest.approx(published[0], abs=0.05)
    assert np.mean([one["ssim_y"] for one in found]) == pytest.approx(published[1], abs=0.0015)
