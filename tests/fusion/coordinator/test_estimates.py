"""What is expected of devices and of answers, from the latencies and the verification of the past."""

import pytest

from fusion.bundle.contents import SwitchEntry
from fusion.coordinator import estimates
from fusion.coordinator.estimates import Estimate, Measurements
from fusion.coordinator.fleet import expected_accuracy


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


def test_only_what_is_longer_than_expected_is_news():
    estimate = Estimate(10.0)
    estimate.add(18.0)
    assert estimate.ms == 15.0
    assert not estimate.at_least(14.0) and estimate.at_least(15.1 + 4)


@pytest.fixture
def clock(monkeypatch):
    """The time of `Measurements`, a list of one number; nothing is uneven."""
    now = [1000.0]
    monkeypatch.setattr(estimates.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(estimates.random, "uniform", lambda low, high: 1.0)
    return now


SIZES = [["a", "b"], ["c"]]


def due_after(clock, seconds, measurements, running=0, takes_ms=None):
    clock[0] += seconds
    return measurements.due(SIZES, running, takes_ms or {})


def test_an_idle_device_is_measured_one_size_at_a_time(clock):
    measurements = Measurements()
    assert due_after(clock, 0, measurements) == ["a", "b"]
    measurements.done(["a", "b"], 5.0)
    assert due_after(clock, 0, measurements) == ["c"]
    # A hundred times 0.5 s.
    measurements.done(["c"], 500.0)
    assert due_after(clock, 29, measurements) == ()
    assert due_after(clock, 1, measurements) == ["a", "b"]
    measurements.done(["a", "b"], 5.0)
    assert due_after(clock, 19, measurements) == ()
    assert due_after(clock, 1, measurements) == ["c"]


def test_a_device_with_requests_is_not_measured_without_a_doubt(clock):
    measurements = Measurements()
    assert due_after(clock, 100, measurements, running=1) == ()
    measurements.used()
    # Between one request and the next.
    assert due_after(clock, 0.9, measurements) == ()
    assert due_after(clock, 0.1, measurements) == ["a", "b"]


def test_a_doubt_is_settled_whatever_the_load(clock):
    measurements = Measurements()
    measurements.used()
    measurements.doubt("c")
    assert due_after(clock, 0, measurements) == ["c"]
    assert due_after(clock, 4.9, measurements, running=3) == ()
    # The first doubt counts.
    measurements.doubt("c")
    assert due_after(clock, 0.1, measurements, running=3) == ["c"]
    measurements.done(["c"], 10.0)
    assert not measurements.any_doubted and due_after(clock, 10, measurements, running=3) == ()


def test_a_long_measurement_comes_seldom_under_load(clock):
    measurements = Measurements()
    measurements.doubt("c")
    assert due_after(clock, 19.9, measurements, running=3, takes_ms={"c": 200.0}) == ()
    assert due_after(clock, 0.1, measurements, running=3, takes_ms={"c": 200.0}) == ["c"]


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
