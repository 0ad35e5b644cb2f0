"""What is expected of devices, from the latencies of the past."""

import asyncio

import numpy as np
import pytest

from fusion.bundle.contents import SliceModel
from fusion.coordinator.estimates import Estimate, SliceEstimates
from fusion.coordinator.remote import Partial
from tests.fusion.coordinator.fakes import now, run

SIZES = {"a": 4, "b": 4, "c": 1}


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


def tell(story):
    """Runs `story(estimates, measured, due_after)` with the estimates of slices a and b, of one size, and c.
    `measured(names, ms)` has slices measured, which took so long; `due_after(seconds)` says what is due then.
    """

    async def main():
        estimates = SliceEstimates()
        estimates.serve([SliceModel(i, "0", "1", name, size, size, {}) for i, (name, size) in enumerate(SIZES.items())])

        def measured(names, ms):
            estimates.set_measured(names, Partial(np.zeros(1), 0.0, ms / 1e3, 0.0, ms))

        async def due_after(seconds, running=0):
            await asyncio.sleep(seconds)
            return estimates.due(running)

        await story(estimates, measured, due_after)

    run(main())


def test_an_idle_device_is_measured_one_size_at_a_time():
    """Each after 30 s or a hundred times what it took, a quarter more or less."""

    async def story(estimates, measured, due_after):
        assert await due_after(0) == ["a", "b"]
        measured(["a", "b"], 5.0)
        assert await due_after(0) == ["c"]
        measured(["c"], 1000.0)
        assert await due_after(22) == []
        assert await due_after(16) == ["a", "b"]
        measured(["a", "b"], 2000.0)
        assert await due_after(36) == []
        assert await due_after(52) == ["c"]

    tell(story)


def test_a_device_with_requests_is_not_measured_without_a_doubt():
    async def story(estimates, measured, due_after):
        measured(["a", "b", "c"], 5.0)
        assert await due_after(100, running=1) == []
        estimates.used = now()
        # Between one request and the next.
        assert await due_after(0.9) == []
        assert await due_after(0.2) == ["a", "b"]

    tell(story)


def test_a_doubt_is_settled_whatever_the_load():
    async def story(estimates, measured, due_after):
        measured(["a", "b", "c"], 5.0)
        estimates.used = now()
        estimates.doubt("c")
        assert await due_after(0) == ["c"]
        assert await due_after(4.9, running=3) == []
        # The first doubt counts.
        estimates.doubt("c")
        assert await due_after(0.2, running=3) == ["c"]
        measured(["c"], 10.0)
        assert await due_after(10, running=3) == []

    tell(story)


def test_a_long_measurement_comes_seldom_under_load():
    async def story(estimates, measured, due_after):
        measured(["a", "b"], 5.0)
        measured(["c"], 200.0)
        estimates.doubt("c")
        assert await due_after(19.9, running=3) == []
        assert await due_after(0.2, running=3) == ["c"]

    tell(story)


def test_a_device_that_is_known_is_met_with_its_smallest_slice():
    async def story(estimates, measured, due_after):
        assert estimates.sizes_to_meet() == [["a", "b"], ["c"]]
        measured(["a", "b"], 10.0)
        assert estimates.sizes_to_meet() == [["a", "b"], ["c"]]
        measured(["c"], 5.0)
        assert estimates.sizes_to_meet() == [["c"]]
        estimates.doubt("a")
        assert estimates.sizes_to_meet() == [["a", "b"], ["c"]]

    tell(story)


def test_an_answer_that_took_twice_as_long_is_a_doubt():
    """Its estimate would else stay high where that keeps it from being asked."""

    async def story(estimates, measured, due_after):
        measured(["a", "b", "c"], 5.0)
        before = estimates.revision
        for ms, images in ((9.9, 1), (39.0, 4)):
            estimates.add("c", Partial(np.zeros(1), 0.0, ms / 1e3, 0.0, ms), images)
        assert estimates.revision == before and await due_after(5.0, running=3) == []
        ms = 2.1 * estimates.latencies["c"]
        estimates.add("c", Partial(np.zeros(1), 0.0, ms / 1e3, 0.0, ms), 1)
        assert await due_after(4.9, running=3) == [] and await due_after(0.2, running=3) == ["c"]

    tell(story)
