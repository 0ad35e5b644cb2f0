"""The samples of a bundle: which images they are, and what is kept of the slices' answers for them.

Every slice file's answer for every sample is in the bundle, for the self-test on a board, so that answers as large as
images would outweigh the slice files. Hence one tile of super-resolution, whose answer holds more numbers than those of
many samples of a classifier, and float answers rounded far below what the self-test lets pass.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusion.images.tiles import Tiles

_CLASSIFIER_SAMPLES = 5
# Float answers are rounded to steps of about this part of their range; the self-test lets 1e-4 of it pass.
_STEP = 2.0**-16


def choose(dataset: Any, size: tuple[int, int]) -> tuple[np.ndarray, list[int] | None]:
    """Images of the validation part, uint8 (n, *size, 3), and their class indices, None where there are none.

    Of a classifier one image of each of the first five classes; of super-resolution the tile of most contrast.
    """
    part = dataset.validation
    if dataset.tiled:
        tiles = np.concatenate([Tiles(size, 0, 1).cut(image) for image in part.low])
        return tiles[[tiles.std(axis=(1, 2, 3)).argmax()]], None
    chosen = [int(np.flatnonzero(part.labels == label)[0]) for label in np.unique(part.labels)[:_CLASSIFIER_SAMPLES]]
    return part.images[chosen], [int(label) for label in part.labels[chosen]]


def pack(images: np.ndarray, stored: Mapping[str, np.ndarray]) -> bytes:
    """The .npz file that `fusion.bundle.contents.Bundle.read_samples` reads.

    Args:
      images: the samples.
      stored: by `model/precision` what the file gives for them, in its own dtype.
    """
    file = io.BytesIO()
    np.savez_compressed(file, images=images, **{name: _rounded(answer) for name, answer in stored.items()})
    return file.getvalue()


def _rounded(answer: np.ndarray) -> np.ndarray:
    """Float answers in multiples of a power of two, whose last bits are zeros and compress well; others as they are."""
    spread = float(np.ptp(answer))
    if answer.dtype != np.float32 or not 0 < spread < np.inf:
        return answer
    step = _STEP * 2.0 ** np.floor(np.log2(spread))
    return (np.rint(answer.astype(np.float64) / step) * step).astype(np.float32)
