"""What is expected of devices and of answers, from the latencies and the verification of the past."""

import pytest

from export.fusion.bundle import SwitchEntry
from export.fusion.devices import Estimate
from export.fusion.fleet import expected_accuracy


def test_an_estimate_follows_its_values():
    """The recurrences of Jacobson and Karels, by hand."""
    estimate = Estimate(10.0)
    assert estimate.ms == 10.0
    estimate.add(18.0)
    # Mean 10 + 8/8, deviation 8/4.
    assert estimate.ms == pytest.approx(11 + 2 * 2)
    estimate.add(11.0)
    # The mean stays; the deviation falls by a quarter.
    assert estimate.ms == pytest.approx(11 + 2 * 1.5)


def test_one_slow_answer_is_forgotten():
    estimate = Estimate(10.0)
    estimate.at_least(500.0)
    assert estimate.ms == 500.0
    for _ in range(60):
        estimate.add(10.0)
    assert estimate.ms < 13


def test_a_wait_that_is_shorter_than_expected_says_nothing():
    estimate = Estimate(10.0)
    estimate.at_least(7.0)
    assert estimate.ms == 10.0


def entry(accuracy):
    return SwitchEntry("0.5+0.5", "0.5_0.5", 1, accuracy, ())


def test_the_accuracy_of_what_has_arrived():
    live = [
        {"devices": [0], "float": 0.55, "exported": {"int8": 0.5}},
        {"devices": [0, 1], "float": 0.75, "exported": {"int8": 0.7}},
    ]
    verified = entry({"live_subsets": live})
    assert expected_accuracy(verified, "int8", (1, 0)) == 0.7
    assert expected_accuracy(verified, "int8", {0}) == 0.5
    assert expected_accuracy(verified, "int8", ()) is None
    assert expected_accuracy(verified, "float32", (0, 1)) is None
    assert expected_accuracy(entry(None), "int8", (0, 1)) is None
