"""PSNR and SSIM against hand counts and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paradis_tf.tasks.image_quality import luma, psnr, scores, ssim, to_8_bits

RNG = np.random.default_rng(4)


def test_psnr_by_hand() -> None:
    truth = np.full((4, 5), 100)
    image = truth.copy()
    image[1, 2] = 110
    # One error of 10 in 20 pixels: a mean square of 5.
    assert psnr(truth, image) == pytest.approx(10 * math.log10(65025 / 5))
    # Within a border of 1, one in 6.
    assert psnr(truth, image, 1) == pytest.approx(10 * math.log10(65025 * 6 / 100))
    image[1, 2] = 100
    image[0, 0] = 0
    assert psnr(truth, image, 1) == 100


def test_luma_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


def test_pixels_are_rounded_and_clipped() -> None:
    np.testing.assert_array_equal(to_8_bits(np.array([-3.0, 0.49, 1.51, 254.7, 300.0])), [0, 0, 2, 255, 255])


def similarity(truth: np.ndarray, image: np.ndarray) -> float:
    """SSIM as its definition says it, window by window."""
    distances = np.arange(11) - 5
    window = np.exp(-(distances[:, None] ** 2 + distances**2) / 4.5)
    window /= window.sum()
    values = []
    for row in range(truth.shape[0] - 10):
        for column in range(truth.shape[1] - 10):
            x = truth[row : row + 11, column : column + 11].astype(float)
            y = image[row : row + 11, column : column + 11].astype(float)
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + 6.5025) * (2 * cov + 58.5225) / (mx**2 + my**2 + 6.5025) / (vx + vy + 58.5225))
    return float(np.mean(values))


def test_ssim_equals_the_loop() -> None:
    truth = RNG.integers(0, 256, (16, 19), dtype=np.uint8)
    image = np.clip(truth + RNG.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    assert ssim(truth, image) == pytest.approx(similarity(truth, image), abs=1e-9)
    assert ssim(truth, image, 2) == pytest.approx(similarity(truth[2:-2, 2:-2], image[2:-2, 2:-2]), abs=1e-9)
    assert ssim(truth, truth) == pytest.approx(1)


def test_ssim_of_colours_is_the_mean_of_the_channels() -> None:
    truth, image = RNG.integers(0, 256, (2, 15, 14, 3), dtype=np.uint8)
    channels = [similarity(truth[..., c], image[..., c]) for c in range(3)]
    assert ssim(truth, image) == pytest.approx(np.mean(channels), abs=1e-9)


def test_scores_have_their_borders() -> None:
    truth = RNG.integers(0, 256, (40, 44, 3), dtype=np.uint8)
    image = truth + RNG.normal(0, 10, truth.shape)
    rounded = to_8_bits(image)
    found = scores(truth, image, 2)
    assert found["psnr_y"] == psnr(luma(truth), luma(rounded), 2)
    assert found["psnr_rgb"] == psnr(truth, rounded, 8)
    assert found["ssim_y"] == ssim(luma(truth), luma(rounded), 2)
    assert found["ssim_rgb"] == ssim(truth, rounded, 8)


@pytest.mark.parametrize(
    ("shapes", "border", "sentence"),
    [
        (((4, 5), (5, 4)), 0, "one shape"),
        (((4, 5), (4, 5)), 2, "leaves nothing"),
        (((4, 5), (4, 5)), -1, "leaves nothing"),
        (((12, 14), (12, 14)), 1, "at least 11 pixels"),
    ],
)
def test_what_cannot_be_compared_is_refused(shapes: tuple, border: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ssim(np.zeros(shapes[0]), np.zeros(shapes[1]), border)
