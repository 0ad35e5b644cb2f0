"""One request over a fleet whose workers a test makes up: what is sent anew, what is fused, and when."""

import asyncio

import numpy as np
import pytest

from fusion.coordinator.dispatch import Dispatch
from fusion.coordinator.planner import Goal
from fusion.protocol.oip import OipError
from tests.fusion.coordinator.fakes import IMAGE, FakeWorker, entry, fleet_of, gone, now, refusal, run

WHOLE = entry("1.0", [16], {(0,): 0.8})
HALVES = entry("0.5+0.5", [4, 4], {(0,): 0.5, (1,): 0.45, (0, 1): 0.7})
FIRST, SECOND = "0.5+0.5-0", "0.5+0.5-1"
ALL = ("1.0-0", FIRST, SECOND)


def worker(device, ms, *names):
    return FakeWorker(*names or ALL, device=device, ms=ms)


def dies(one):
    one.refused = one.error = gone()


def hangs(one):
    one.hanging = one.names


def request(*workers, then=lambda: None, deadline_ms=400, images=IMAGE, entries=(WHOLE, HALVES), is_settled=None):
    """The outcome of a request to a fleet of these workers, its dispatch and the milliseconds it took. `then` is called
    when all are known."""

    async def story():
        async with fleet_of(*workers, entries=entries) as fleet:
            then()
            started = now()
            dispatch = Dispatch(fleet, images, Goal(deadline_ms), deadline_ms / 1e3, is_settled)
            outcome = await dispatch.run()
            return outcome, dispatch, (now() - started) * 1e3

    return run(story())


def answered_by(outcome):
    return {number: arrival.device for number, arrival in outcome.arrivals.items()}


def test_the_most_accurate_switch_of_the_fastest_device():
    outcome, dispatch, ms = request(worker("a", 20), worker("b", 10))
    assert (outcome.entry.switch, answered_by(outcome)) == ("1.0", {0: "b"})
    assert (outcome.missing, outcome.degraded, outcome.early, outcome.accuracy) == ((), False, False, 0.8)
    assert (dispatch.failures, dispatch.late, dispatch.retries) == ([], [], 0)
    assert ms == pytest.approx(10)


def test_a_slice_of_a_device_that_dies_goes_to_another():
    a, b = worker("a", 5), worker("b", 10)
    outcome, dispatch, _ = request(a, b, then=lambda: dies(a))
    assert answered_by(outcome) == {0: "b"}
    assert [error.device for error in dispatch.failures] == ["a"] and dispatch.retries == 1


def test_a_device_that_is_busy_is_not_asked_again():
    a, b = worker("a", 5), worker("b", 10)

    def refuses():
        a.refused = refusal(busy=True)

    outcome, dispatch, ms = request(a, b, then=refuses)
    assert answered_by(outcome) == {0: "b"} and ms == pytest.approx(15)
    assert [error.busy for error in dispatch.failures] == [True] and len(a.asked) == 1


def test_a_device_is_given_what_is_left_of_the_deadline():
    a, b = worker("a", 30), worker("b", 40)
    request(a, b, then=lambda: dies(a), deadline_ms=400)
    assert a.timeouts == [pytest.approx(0.4)] and b.timeouts == [pytest.approx(0.37)]


def test_a_device_that_has_no_time_is_given_some():
    """The protocol knows no timeout of 0."""
    a = worker("a", 30)
    with pytest.raises(OipError):
        request(a, deadline_ms=0.5)
    assert a.timeouts == [0.001]


def test_only_the_missing_slice_is_asked_for_again():
    a, b = worker("a", 10), worker("b", 9)
    outcome, _, _ = request(a, b, then=lambda: dies(b), entries=[HALVES])
    assert set(answered_by(outcome).values()) == {"a"}
    assert sorted(a.asked) == [FIRST, SECOND] and len(b.asked) == 1
    np.testing.assert_array_equal([outcome.arrivals[i].partial.outputs[0, 0] for i in (0, 1)], [1, 2])


def test_a_hung_device_is_waited_for_twice_what_was_expected_and_a_little():
    a, b = worker("a", 5), worker("b", 10)
    outcome, dispatch, ms = request(a, b, then=lambda: hangs(a), deadline_ms=2000)
    assert answered_by(outcome) == {0: "b"} and dispatch.late == ["a"]
    assert ms == pytest.approx(2 * 5 + 20 + 10)


def test_a_hung_device_is_not_waited_for_so_long_that_no_other_has_the_time():
    a, b = worker("a", 40), worker("b", 50)
    outcome, _, ms = request(a, b, then=lambda: hangs(a), deadline_ms=130)
    # 130 - 1.5 * 40 ms, and no twice 40 + 20.
    assert answered_by(outcome) == {0: "b"} and ms == pytest.approx(70 + 50)


def test_a_slow_device_is_doubted():
    a, b = worker("a", 5), worker("b", 10)

    async def story():
        async with fleet_of(a, b, entries=[WHOLE]) as fleet:
            hangs(a)
            await Dispatch(fleet, IMAGE, Goal(2000), 2.0, None).run()
            a.hanging, a.ms = (), 7.0
            # What has hung counts as no more than it took; it is measured at once.
            assert fleet.latencies()["1.0-0"]["a"] == pytest.approx(40)
            await asyncio.sleep(0.5)
            assert fleet.latencies()["1.0-0"]["a"] == pytest.approx(7)

    run(story())


def test_another_switch_when_the_first_cannot_be_run_any_more():
    a, halves = worker("a", 5), (worker("b", 10, FIRST), worker("c", 10, SECOND))
    outcome, _, _ = request(a, *halves, then=lambda: dies(a))
    assert (outcome.entry.switch, answered_by(outcome)) == ("0.5+0.5", {0: "b", 1: "c"})


def test_what_has_arrived_is_fused_at_the_deadline_and_no_other_switch_is_mixed_in():
    a, b = worker("a", 5, FIRST), worker("b", 5, SECOND)
    outcome, dispatch, ms = request(a, b, then=lambda: hangs(b), deadline_ms=300)
    assert (answered_by(outcome), outcome.missing, outcome.degraded) == ({0: "a"}, (1,), True)
    assert outcome.accuracy == 0.5 and dispatch.late == ["b"] and ms == pytest.approx(300)


def test_nothing_in_time():
    a = worker("a", 5)
    with pytest.raises(OipError) as refused:
        request(a, then=lambda: hangs(a), deadline_ms=150)
    assert refused.value.status == 504 and "within 150 ms" in refused.value.message


def test_all_dead():
    a, b = worker("a", 5), worker("b", 6)
    with pytest.raises(OipError) as refused:
        request(a, b, then=lambda: (dies(a), dies(b)))
    assert (refused.value.status, refused.value.message) == (503, "device a is gone.")
    assert refused.value.headers == {"Retry-After": "1"} and len(a.asked) == len(b.asked) == 1


def test_nobody_there():
    a = worker("a", 5)
    a.error = gone()
    with pytest.raises(OipError) as refused:
        request(a)
    assert (refused.value.status, refused.value.message) == (503, "no switch can be run. device a is gone.")


def test_too_much_work_is_refused_and_too_little_time_is_tried():
    a = worker("a", 20)

    async def story():
        async with fleet_of(a, entries=[WHOLE]) as fleet:
            hangs(a)
            (device,) = fleet.devices
            other = device.infer("1.0-0", np.repeat(IMAGE, 45, axis=0), 60)
            with pytest.raises(OipError) as refused:
                await Dispatch(fleet, IMAGE, Goal(400), 0.4, None).run()
            assert (refused.value.status, refused.value.message.split(";")[0]) == (
                503,
                "the devices have 920 ms of work before them",
            )
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)

    run(story())
    with pytest.raises(OipError) as late:
        request(worker("a", 30), deadline_ms=20)
    assert late.value.status == 504


def test_a_plan_within_what_is_left_of_the_deadline():
    """1.0 would take 100 ms, the halves take 50 each."""

    def switch(deadline_ms):
        halves = (worker(name, 50, FIRST, SECOND) for name in "ab")
        return request(*halves, worker("c", 100), deadline_ms=deadline_ms)[0].entry.switch

    assert (switch(80), switch(300)) == ("0.5+0.5", "1.0")


def test_an_early_answer_gives_the_rest_up():
    a, b = worker("a", 5, FIRST), worker("b", 3000, SECOND)
    seen = []

    def is_settled(switch, contributions):
        seen.append((switch.switch, {number: array.tolist() for number, array in contributions.items()}))
        return True

    outcome, dispatch, ms = request(a, b, deadline_ms=5000, is_settled=is_settled)
    assert seen == [("0.5+0.5", {0: [[1.0] * 4]})]
    assert (outcome.early, outcome.degraded, outcome.missing, outcome.accuracy) == (True, False, (1,), 0.7)
    assert ms == pytest.approx(5) and dispatch.late == ["b"]


def test_a_batch_is_planned_by_its_size():
    workers = [*(worker(name, 20, FIRST, SECOND) for name in "ab"), worker("c", 100)]
    outcome, _, ms = request(*workers, deadline_ms=200, images=np.repeat(IMAGE, 4, axis=0))
    assert outcome.entry.switch == "0.5+0.5" and ms == pytest.approx(80)
