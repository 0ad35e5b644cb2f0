"""PSNR and SSIM of images of 8 bits, in NumPy."""

from __future__ import annotations

import numpy as np

# Identical images have no PSNR; they get this one, which no pair of small images with one wrong value reaches.
BEST_PSNR = 100.0
# Weights of R, G, B in the luma of ITU-R BT.601, studio range 16..235, for pixels 0..255.
LUMA_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
LUMA_OFFSET = 16.0
_WINDOW = 11
_SIGMA = 1.5
_STABILIZERS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def to_8_bits(image: np.ndarray) -> np.ndarray:
    """Pixels rounded to whole numbers and clipped to 0..255, uint8."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    """The Y channel of YCbCr, float64 (height, width), 16..235, not rounded, of pixels (height, width, 3) 0..255."""
    return image.astype(np.float64) @ np.array(LUMA_WEIGHTS) + LUMA_OFFSET


def psnr(truth: np.ndarray, image: np.ndarray, border: int = 0) -> float:
    """Peak signal-to-noise ratio in dB, for a peak of 255; 100 for images that are equal.

    Args:
      truth: (height, width) or (height, width, 3), 0..255, any number type.
      image: of the same shape.
      border: pixels left out on each side.

    Raises:
      ValueError: shapes that differ, or nothing left inside the border.
    """
    truth, image = _inside(truth, image, border)
    error = np.mean((truth - image) ** 2)
    return BEST_PSNR if error == 0 else min(float(10 * np.log10(255**2 / error)), BEST_PSNR)


def ssim(truth: np.ndarray, image: np.ndarray, border: int = 0) -> float:
    """Mean structural similarity, at most 1, over a Gaussian window of 11x11 pixels (sigma 1.5) at the places where it
    fits; of colour images the mean over the channels.

    Args, Raises: as in `psnr`; the image inside the border has at least 11x11 pixels.

    Source: Wang et al. 2004, with K1 = 0.01 and K2 = 0.03.
    """
    truth, image = _inside(truth, image, border)
    if min(truth.shape[:2]) < _WINDOW:
        raise ValueError(f"the images are {truth.shape[:2]} inside the border; SSIM takes at least {_WINDOW} pixels.")
    first, second = _STABILIZERS
    mean_t, mean_i = _blur(truth), _blur(image)
    variance_t = _blur(truth * truth) - mean_t**2
    variance_i = _blur(image * image) - mean_i**2
    covariance = _blur(truth * image) - mean_t * mean_i
    similarity = (2 * mean_t * mean_i + first) * (2 * covariance + second)
    similarity /= (mean_t**2 + mean_i**2 + first) * (variance_t + variance_i + second)
    return float(similarity.mean())


def scores(truth: np.ndarray, image: np.ndarray, scale: int) -> dict[str, float]:
    """`psnr_y`, `ssim_y`, `psnr_rgb` and `ssim_rgb` of an answer, rounded to 8 bits first.

    Y leaves out `scale` pixels on each side, the custom for Set5 and Set14; RGB leaves out `scale + 6`, that of DIV2K.

    Args:
      truth: uint8 (height, width, 3).
      image: float or uint8 pixels of the same shape.
      scale: the factor of super-resolution.
    """
    image = to_8_bits(image)
    truth_y, image_y = luma(truth), luma(image)
    return {
        "psnr_y": psnr(truth_y, image_y, scale),
        "ssim_y": ssim(truth_y, image_y, scale),
        "psnr_rgb": psnr(truth, image, scale + 6),
        "ssim_rgb": ssim(truth, image, scale + 6),
    }


def _inside(truth: np.ndarray, image: np.ndarray, border: int) -> tuple[np.ndarray, np.ndarray]:
    if truth.shape != image.shape:
        raise ValueError(f"the images are {truth.shape} and {image.shape}; they are to be of one shape.")
    if border < 0 or 2 * border >= min(truth.shape[:2]):
        raise ValueError(f"a border of {border} pixels leaves nothing of an image of {truth.shape[:2]}.")
    inside = (slice(border, truth.shape[0] - border), slice(border, truth.shape[1] - border))
    return truth[inside].astype(np.float64), image[inside].astype(np.float64)


def _blur(image: np.ndarray) -> np.ndarray:
    distances = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(distances**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        places = image.shape[axis] - _WINDOW + 1
        blurred = np.zeros_like(np.take(image, range(places), axis))
        for start, weight in enumerate(weights):
            blurred += weight * np.take(image, range(start, start + places), axis)
        image = blurred
    return image
