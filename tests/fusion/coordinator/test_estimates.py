"""What is expected of devices and of answers, from the latencies and the verification of the past."""

import asyncio

import pytest

from fusion.bundle.contents import SwitchEntry
from fusion.coordinator.estimates import Estimate, Measurements
from fusion.coordinator.fleet import expected_accuracy
from tests.fusion.coordinator.fakes import run


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
    estimate.raise_to(500.0)
    assert estimate.ms == 500.0
    for _ in range(60):
        estimate.add(10.0)
    assert estimate.ms < 13


def test_a_wait_that_is_shorter_than_expected_says_nothing():
    estimate = Estimate(10.0)
    estimate.raise_to(7.0)
    assert estimate.ms == 10.0


def test_only_what_is_longer_than_expected_is_news():
    estimate = Estimate(10.0)
    estimate.add(18.0)
    assert estimate.ms == 15.0
    assert not estimate.raise_to(14.0) and estimate.raise_to(15.1 + 4)


SIZES = [["a", "b"], ["c"]]


def tell(story):
    """Runs `story(measurements, due_after)`, where `due_after(seconds)` says what is to be measured after these."""

    async def main():
        measurements = Measurements()

        async def due_after(seconds, running=0, takes_ms=None):
            await asyncio.sleep(seconds)
            return measurements.due(SIZES, running, takes_ms or {})

        await story(measurements, due_after)

    run(main())


def test_an_idle_device_is_measured_one_size_at_a_time():
    """Each after 30 s or a hundred times what it took, a quarter more or less."""

    async def story(measurements, due_after):
        assert await due_after(0) == ["a", "b"]
        measurements.done(["a", "b"], 5.0)
        assert await due_after(0) == ["c"]
        measurements.done(["c"], 1000.0)
        assert await due_after(22) == ()
        assert await due_after(16) == ["a", "b"]
        measurements.done(["a", "b"], 2000.0)
        assert await due_after(36) == ()
        assert await due_after(52) == ["c"]

    tell(story)


def test_a_device_with_requests_is_not_measured_without_a_doubt():
    async def story(measurements, due_after):
        assert await due_after(100, running=1) == ()
        measurements.used()
        # Between one request and the next.
        assert await due_after(0.9) == ()
        assert await due_after(0.2) == ["a", "b"]

    tell(story)


def test_a_doubt_is_settled_whatever_the_load():
    async def story(measurements, due_after):
        measurements.used()
        measurements.doubt("c")
        assert await due_after(0) == ["c"]
        assert await due_after(4.9, running=3) == ()
        # The first doubt counts.
        measurements.doubt("c")
        assert await due_after(0.2, running=3) == ["c"]
        measurements.done(["c"], 10.0)
        assert not measurements.any_doubted and await due_after(10, running=3) == ()

    tell(story)


def test_a_long_measurement_comes_seldom_under_load():
    async def story(measurements, due_after):
        measurements.doubt("c")
        assert await due_after(19.9, running=3, takes_ms={"c": 200.0}) == ()
        assert await due_after(0.2, running=3, takes_ms={"c": 200.0}) == ["c"]

    tell(story)


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
