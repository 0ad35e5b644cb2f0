"""Enlarges images by a coordinator of a super-resolution bundle, and writes them."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..asking.client import FusionClient
from ..base.files import write_bytes
from ..base.program import UserError
from ..images.tiles import Tiles
from .results import served_by
from .sources import ImageSource


class Enlarging:
    """Where enlarged images go.

    Args:
      folder: the folder they are written to, as NAME_x2.png of scale 2.
      overlap: of `tiles.Tiles`.
      scale: how many times larger their sides are.

    Raises `UserError` for a folder that cannot be written to.
    """

    def __init__(self, folder: str, overlap: int, scale: int) -> None:
        if not Path(folder).is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"--target={folder} is no folder that can be written to; legal: one that is there.")
        self._folder, self._overlap, self._scale = Path(folder), overlap, scale
        self._taken: dict[Path, str] = {}

    def check(self, sources: Iterable[ImageSource]) -> None:
        """Raises `UserError` where an answer would replace another or one of the images."""
        known = list(dict.fromkeys(sources))
        images = {Path(source.name).resolve() for source in known}
        for source in known:
            target = self.take(source)
            if target.resolve() in images:
                raise UserError(
                    f"the answer of {source.name!r} would replace the image {str(target)!r}; give another --target."
                )

    def take(self, source: ImageSource) -> Path:
        """The file for an image's answer. Raises `UserError` if it is that of another image."""
        stem = Path(source.name).stem if source.content is None else "stdin"
        target = self._folder / f"{stem}_x{self._scale}.png"
        other = self._taken.setdefault(target, source.name)
        if other != source.name:
            raise UserError(
                f"{other!r} and {source.name!r} would both be written to {str(target)!r}; give them one by one, each "
                "with a --target of its own."
            )
        return target

    def enlarge(
        self, client: FusionClient, image: np.ndarray, target: Path, deadline_ms: float | None
    ) -> dict[str, Any]:
        """Writes the enlargement of an image uint8 (height, width, 3) to `target`.

        Returns a row of it: `target`, its `shape`, how many `ms` the answers took, and `served_by` of the tile's answer
        that lacks most. Raises `UserError` as `FusionClient.infer` does, and when it cannot be written.
        """
        tiles = Tiles(client.shape[:2], self._overlap, client.scale)
        started = time.perf_counter()
        answers = [client.infer(tile, deadline_ms=deadline_ms) for tile in tiles.cut(image)]
        pixels = tiles.join([answer.outputs["pixels"] for answer in answers], image.shape[:2])
        ms = (time.perf_counter() - started) * 1e3
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG")
        write_bytes(target, encoded.getvalue())
        worst = max(answers, key=lambda answer: (answer.degraded, len(answer.missing)))
        return {"target": str(target), "shape": list(pixels.shape), "ms": ms, **served_by(worst.parameters)}
