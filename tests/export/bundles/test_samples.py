"""Samples: which they are, and what rounding leaves of the answers."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np

from export.bundles import samples

RNG = np.random.default_rng(8)


def unpack(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def test_of_super_resolution_it_is_the_tile_of_most_contrast() -> None:
    flat, grainy = np.full((30, 20, 3), 90, np.uint8), np.full((16, 16, 3), 120, np.uint8)
    grainy[::2] = 140
    flat[20:, 4:, 0] = 0
    dataset = SimpleNamespace(tiled=True, validation=SimpleNamespace(low=(flat, grainy)))
    images, labels = samples.choose(dataset, (16, 16))
    assert (images.shape, labels) == ((1, 16, 16, 3), None)
    np.testing.assert_array_equal(images[0], flat[14:, 4:])


def test_rounding_is_far_below_what_the_self_test_sees_and_saves_room() -> None:
    answer = RNG.normal(0.3, 2, (1, 48, 48, 12)).astype(np.float32)
    stored: dict[str, np.ndarray] = {
        "a/float32": answer,
        "a/int8": answer.astype(np.int8),
        "b/float32": np.full((1, 3), 7, np.float32),
    }
    data = samples.pack(np.zeros((1, 2, 2, 3), np.uint8), stored)
    found = unpack(data)
    assert {name: array.dtype for name, array in found.items() if name != "images"} == {
        name: array.dtype for name, array in stored.items()
    }
    assert 0 < np.abs(found["a/float32"] - answer).max() < 1e-5 * np.ptp(answer)
    np.testing.assert_array_equal(found["a/int8"], stored["a/int8"])
    np.testing.assert_array_equal(found["b/float32"], stored["b/float32"])
    whole = io.BytesIO()
    np.savez_compressed(whole, images=found["images"], **stored)
    assert len(data) < 0.8 * len(whole.getvalue())


def test_answers_that_are_not_finite_are_kept() -> None:
    answer = np.array([[1.0, np.nan, np.inf]], np.float32)
    np.testing.assert_array_equal(unpack(samples.pack(np.zeros(1), {"a": answer}))["a"], answer)
