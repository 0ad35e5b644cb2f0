"""Folders of small image files, and a cache folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COUNTS = {"train": 12, "val": 4}
CLASSES = ("ant", "bee", "wasp")
SUFFIXES = (".jpg", ".png", ".JPEG", ".bmp")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "paradis_tf"


def picture(seed: int, height: int, width: int) -> Image.Image:
    """Waves of a color that the seed decides: something that survives JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin((a * x + b * y) / 9 + c) for a, b, c in rng.uniform(0.2, 1, (3, 3))]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def write_images(root: Path, counts: dict[str, int]) -> Path:
    """Writes a folder of parts with 3 classes; images of sides 30 to 60 in four formats."""
    for part, count in counts.items():
        for number in range(count):
            folder = root / part / CLASSES[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            seed = 100 * len(part) + number
            height, width = np.random.default_rng(seed).integers(30, 61, 2)
            picture(seed, height, width).save(folder / f"{number:02}{SUFFIXES[number % 4]}")
    return root


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder as `write_images` does."""

    def make(name: str = "images", counts: dict[str, int] = COUNTS) -> Path:
        return write_images(tmp_path / name, counts)

    return make
