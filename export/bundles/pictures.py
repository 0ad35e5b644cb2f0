"""The images that a bundle is made with: representative ones of the training part, and those it is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusion.base.program import UserError
from fusion.images.tiles import Tiles
from paradis_tf.data.parts import Part

_MOST_JUDGED = 2000
# Of tiles that compression trains on, in pixels.
_TRAINING_SIDE = 32


def representative(dataset: Any, size: tuple[int, int], count: int) -> np.ndarray:
    """Images of the training part, evenly spread over it, uint8 (count, *size, 3).

    Args:
      dataset: a `Dataset` or a `PairDataset`.
      size: (height, width) of the network's input; low-resolution images are cut in tiles of it.
      count: how many.

    Raises:
      UserError: there are not so many.
    """
    images = _tiles(dataset.train.pairs.low, size) if dataset.tiled else dataset.train.images
    if not 1 <= count <= len(images):
        kind = f"tiles of {size[0]}x{size[1]}" if dataset.tiled else "images"
        raise UserError(
            f"--calibration_images is {count}; it lies between 1 and the {len(images)} {kind} of the training part."
        )
    return np.asarray(images[_spread(len(images), count)])


def for_training(dataset: Any, size: tuple[int, int], count: int) -> np.ndarray:
    """What compression trains on: as `representative`, at most `count`; of super-resolution in smaller tiles.

    While it trains, maps as large as the image are kept for every layer of every image of a batch.
    """
    if dataset.tiled:
        height, width = (min(side, _TRAINING_SIDE) for side in size)
        size = (height, width)
    return representative(dataset, size, min(count, most(dataset, size)))


def most(dataset: Any, size: tuple[int, int]) -> int:
    """How many images `representative` has."""
    if dataset.tiled:
        return len(_tiles(dataset.train.pairs.low, size))
    return len(dataset.train)


def validation(dataset: Any) -> Any:
    """The validation part, of a classifier at most 2,000 images of it, evenly spread."""
    part = dataset.validation
    if dataset.tiled:
        return part
    chosen = _spread(len(part), min(len(part), _MOST_JUDGED))
    return Part(part.images[chosen], part.labels[chosen])


def _spread(available: int, count: int) -> np.ndarray:
    """Places evenly spread, since a set may be in the order of its classes."""
    return np.linspace(0, available - 1, count).round().astype(int)


def _tiles(images: Any, size: tuple[int, int]) -> np.ndarray:
    return np.concatenate([Tiles(size, 0, 1).cut(image) for image in images])
