"""Cuts an image of any size into overlapping tiles of a network's input size, and joins the enlarged tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.program import UserError


@dataclass(frozen=True)
class Tiles:
    """How images become tiles.

    Args:
      side: (height, width) of a tile in pixels.
      overlap: pixels on each side of a tile whose enlargement is thrown away where another tile covers them, since the
        network sees no image beyond the tile's edge there; less than half of each side.
      scale: how many times larger the answers' sides are.

    An image smaller than a tile is extended by its mirror image. Raises `UserError` for an overlap out of range.
    """

    side: tuple[int, int]
    overlap: int
    scale: int

    def __post_init__(self) -> None:
        most = (min(self.side) - 1) // 2
        if not 0 <= self.overlap <= most:
            raise UserError(
                f"overlap is {self.overlap}; legal for tiles of {self.side[0]}x{self.side[1]}: 0 to {most}."
            )

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The tiles, (N, *`side`, channels), of an image (height, width, channels), row by row."""
        height, width = self.side
        below, right = (max(0, side - have) for side, have in zip(self.side, image.shape, strict=False))
        padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
        rows, columns = self._starts(padded.shape)
        return np.stack([padded[row : row + height, column : column + width] for row in rows for column in columns])

    def join(self, tiles: Sequence[np.ndarray] | np.ndarray, size: Sequence[int]) -> np.ndarray:
        """The image, (size[0] * scale, size[1] * scale, channels), of the answers to the tiles of one of `size`."""
        height, width = (max(have, side) for have, side in zip(size, self.side, strict=True))
        rows, columns = self._starts((height, width))
        first = np.asarray(tiles[0])
        joined = np.empty((height * self.scale, width * self.scale, first.shape[-1]), first.dtype)
        places = ((row, column) for row in self._kept(rows, height, 0) for column in self._kept(columns, width, 1))
        for tile, ((top, bottom, row), (left, right, column)) in zip(tiles, places, strict=True):
            s = self.scale
            inner = tile[(top - row) * s : (bottom - row) * s, (left - column) * s : (right - column) * s]
            joined[top * s : bottom * s, left * s : right * s] = inner
        return joined[: size[0] * self.scale, : size[1] * self.scale]

    def _starts(self, shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """Where the rows and columns of tiles start; the last of each ends with the image."""
        rows, columns = (
            [*range(0, have - side, side - 2 * self.overlap), have - side]
            for have, side in zip(shape[:2], self.side, strict=True)
        )
        return rows, columns

    def _kept(self, starts: Sequence[int], end: int, axis: int) -> Iterator[tuple[int, int, int]]:
        """For each tile of a row or column: from where to where its answer is kept, and where it starts."""
        kept = 0
        for place, start in enumerate(starts):
            last = place == len(starts) - 1
            until = end if last else start + self.side[axis] - self.overlap
            yield kept, until, start
            kept = until
