"""What tests of compression share: images, and how a slice model becomes a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.conversion.slices import int8_converter
from paradis_tf.base import program


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """48 images of 8x8 pixels."""
    return np.random.default_rng(5).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)


def normalized(images: np.ndarray) -> np.ndarray:
    return (images / 128 - 1).astype(np.float32)


def converted(slice_model: Any) -> bytes:
    return quietly(int8_converter(slice_model, None, slice_model.input_shape[1:], "logits").convert)


def quietly(convert: Callable[[], bytes]) -> bytes:
    with warnings.catch_warnings(), program.quiet():
        warnings.simplefilter("ignore")
        return convert()
