"""Random numbers: against SplitMix64 in NumPy, and that grouping, seed, stream, epoch and place do what they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.data.augmentation import draws

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def expected(seed: int, stream: int, epoch: int, places: list[int], count: int) -> np.ndarray:
    out = np.empty((len(places), count))
    with np.errstate(over="ignore"):
        for row, place in enumerate(places):
            state = np.zeros(1, np.uint64)
            for part in (seed, stream, epoch, place):
                state = mix(state + np.uint64(part + 1) * GOLDEN)
            numbers = mix(state + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)
            out[row] = (numbers >> np.uint64(40)).astype(float) / 2**24
    return out


def test_the_oracle_is_splitmix64() -> None:
    # The first three outputs for seed 0, as published with the generator.
    states = np.array([1, 2, 3], np.uint64)
    with np.errstate(over="ignore"):
        found = mix(states * GOLDEN)
    assert [hex(number) for number in found] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


@pytest.mark.parametrize("seed", [0, 5, 2**31 - 2])
@pytest.mark.parametrize("wrap", [lambda function: function, tf.function], ids=["eager", "graph"])
def test_numbers_are_those_of_the_generator(seed: int, wrap: Callable) -> None:
    places = [0, 1, 7, 2**31 - 1]
    function = wrap(lambda epoch, places: draws.uniform(seed, 3, epoch, places, 5))
    found = function(tf.constant(11), tf.constant(places)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected(seed, 3, 11, places, 5))


def test_numbers_are_uniform_and_unrelated() -> None:
    numbers = cast(np.ndarray, draws.uniform(0, 0, tf.constant(0), tf.range(20000), 4).numpy())
    for column in numbers.T:
        counts = np.histogram(column, 20, (0, 1))[0]
        # Chi-squared of 19 degrees of freedom: above 60 once in some 10**6 seeds.
        assert ((counts - 1000) ** 2 / 1000).sum() < 60
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.04
    others = [draws.uniform(*key, tf.range(20000), 1).numpy() for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert np.abs(np.corrcoef(numbers[:, 0], np.hstack(others).T)[0, 1:]).max() < 0.04


def test_below_covers_all_and_never_reaches_the_end() -> None:
    largest = np.float32(1 - 2.0**-24)
    for count in (1, 2, 3, 5, 14, 224, 4096):
        assert draws.below(tf.constant([0.0, largest]), count).numpy().tolist() == [0, count - 1]
    assert set(draws.below(tf.linspace(0.0, largest, 100), 7).numpy()) == set(range(7))
