"""One request over devices that a test makes up: what is sent anew, what is fused, and when."""

import asyncio
import time

import numpy as np
import pytest

from fusion.bundle.contents import SliceModel, SwitchEntry
from fusion.coordinator import planner
from fusion.coordinator.dispatch import Dispatch
from fusion.coordinator.planner import Goal
from fusion.coordinator.remote import DeviceError, Partial
from fusion.protocol.oip import OipError

IMAGES = np.zeros((1, 2, 2, 3), np.uint8)
SWITCHES: dict[str, tuple[list[int], float]] = {"1.0": ([16], 0.8), "0.5+0.5": ([4, 4], 0.7)}
LIVE: dict[str, dict[tuple[int, ...], float]] = {"1.0": {(0,): 0.8}, "0.5+0.5": {(0,): 0.5, (1,): 0.45, (0, 1): 0.7}}


def entry(switch):
    widths, _ = SWITCHES[switch]
    slices = [SliceModel(i, "0", "1", f"{switch}-{i}", madds, 1, {}) for i, madds in enumerate(widths)]
    live = [{"devices": list(devices), "exported": {"int8": found}} for devices, found in LIVE[switch].items()]
    return SwitchEntry(switch, switch, sum(widths), {"live_subsets": live}, tuple(slices))


class FakeDevice:
    """Answers a slice after `ms`, or as `acts` says: `hangs`, `dies`, `busy`."""

    url = "http://h:1"

    def __init__(self, name, ms, acts="", models=None):
        self.name, self.ms, self.acts = name, ms, acts
        self.models = models
        self.asked: list[str] = []
        self.doubted = False
        self.busy_ms = 0.0

    async def infer(self, model, images, timeout_s):
        self.asked.append(model)
        if self.acts == "hangs":
            await asyncio.sleep(60)
        await asyncio.sleep(self.ms / 1e3)
        if self.acts == "dies":
            raise DeviceError(503, self.name, "connecting", f"device {self.name} is gone.", True)
        now = time.perf_counter()
        return Partial(np.full((len(images), 4), 1.0 + int(model[-1])), now - self.ms / 1e3, now, 0.0, self.ms)

    def doubt(self, model):
        self.doubted = True


class FakeFleet:
    """The fleet of some devices; every one is up and is expected to take its `ms` for each slice."""

    precision = "int8"

    def __init__(self, *devices, switches=tuple(SWITCHES)):
        self.devices = {one.name: one for one in devices}
        self.entries = [entry(switch) for switch in switches]

    def device(self, name):
        return self.devices.get(name)

    def latencies(self, images=1, without=()):
        return {
            (name, part.model): one.ms * images
            for name, one in self.devices.items()
            if name not in without
            for each in self.entries
            for part in each.slices
            if one.models is None or part.model in one.models
        }

    def busy(self):
        return {name: one.busy_ms for name, one in self.devices.items()}

    def accuracy(self, one):
        return SWITCHES[one.switch][1]

    def decide(self, goal, images=1, without=(), idle=False):
        busy = {} if idle else self.busy()
        return planner.decide(self.entries, self.accuracy, self.latencies(images, without), busy, goal)

    def reasons(self):
        return "device c is down."


def run(fleet, deadline_ms=400, settled=None, images=IMAGES, fuse_ms=0.0):
    """The outcome, its events and the milliseconds it took."""

    async def one():
        started = time.perf_counter()
        dispatch = Dispatch(fleet, images, Goal(deadline_ms), started, settled, fuse_ms)
        outcome = await dispatch.run()
        return outcome, dispatch.events, (time.perf_counter() - started) * 1e3

    return asyncio.run(one())


def answered_by(outcome):
    return {number: arrival.device for number, arrival in outcome.arrivals.items()}


def test_the_most_accurate_switch_of_the_fastest_device():
    outcome, events, _ = run(FakeFleet(FakeDevice("a", 20), FakeDevice("b", 10)))
    assert (outcome.entry.switch, answered_by(outcome)) == ("1.0", {0: "b"})
    assert (outcome.missing, outcome.degraded, outcome.early, outcome.accuracy) == ((), False, False, 0.8)
    assert (events.failures, events.late, events.retries) == ([], [], 0)


def test_a_slice_of_a_device_that_dies_goes_to_another():
    devices = FakeDevice("a", 5, "dies"), FakeDevice("b", 10)
    outcome, events, _ = run(FakeFleet(*devices))
    assert answered_by(outcome) == {0: "b"}
    assert [name for name, _ in events.failures] == ["a"] and events.retries == 1


def test_only_the_missing_slice_is_asked_for_again():
    devices = FakeDevice("a", 10), FakeDevice("b", 9, "dies")
    outcome, _, _ = run(FakeFleet(*devices, switches=["0.5+0.5"]))
    assert set(answered_by(outcome).values()) == {"a"}
    assert sorted(devices[0].asked) == ["0.5+0.5-0", "0.5+0.5-1"]
    np.testing.assert_array_equal([outcome.arrivals[i].partial.outputs[0, 0] for i in (0, 1)], [1, 2])


def test_a_hung_device_is_not_waited_for_until_the_deadline():
    devices = FakeDevice("a", 5, "hangs"), FakeDevice("b", 10)
    outcome, events, ms = run(FakeFleet(*devices), deadline_ms=2000)
    assert answered_by(outcome) == {0: "b"} and ms < 1500
    assert devices[0].doubted and events.late == ["a"]


def test_another_switch_when_the_first_cannot_be_run_any_more():
    halves = FakeDevice("b", 10, models=["0.5+0.5-0"]), FakeDevice("c", 10, models=["0.5+0.5-1"])
    outcome, _, _ = run(FakeFleet(FakeDevice("a", 5, "dies"), *halves))
    assert (outcome.entry.switch, answered_by(outcome)) == ("0.5+0.5", {0: "b", 1: "c"})


def test_what_has_arrived_is_fused_at_the_deadline_and_no_other_switch_is_mixed_in():
    devices = FakeDevice("a", 5, models=["0.5+0.5-0"]), FakeDevice("b", 5, "hangs", models=["0.5+0.5-1"])
    outcome, events, ms = run(FakeFleet(*devices), deadline_ms=300)
    assert (answered_by(outcome), outcome.missing, outcome.degraded) == ({0: "a"}, (1,), True)
    assert outcome.accuracy == 0.5 and ms < 1000 and events.late == ["b"]


def test_time_is_left_for_what_comes_after():
    devices = FakeDevice("a", 5, models=["0.5+0.5-0"]), FakeDevice("b", 5, "hangs", models=["0.5+0.5-1"])
    outcome, _, ms = run(FakeFleet(*devices), deadline_ms=3000, fuse_ms=2800)
    assert outcome.degraded and ms < 2000


def test_nothing_in_time():
    with pytest.raises(OipError) as refused:
        run(FakeFleet(FakeDevice("a", 5, "hangs")), deadline_ms=150)
    assert refused.value.status == 504 and "within 150 ms" in refused.value.message


def test_all_dead():
    with pytest.raises(OipError) as refused:
        run(FakeFleet(FakeDevice("a", 5, "dies"), FakeDevice("b", 6, "dies")))
    assert (refused.value.status, refused.value.message) == (503, "device b is gone.")
    assert refused.value.headers == {"Retry-After": "1"}


def test_nobody_there():
    with pytest.raises(OipError) as refused:
        run(FakeFleet())
    assert (refused.value.status, refused.value.message) == (503, "no switch can be run. device c is down.")


def test_too_much_work_is_refused_and_too_little_time_is_tried():
    device = FakeDevice("a", 20)
    device.busy_ms = 900.0
    with pytest.raises(OipError) as refused:
        run(FakeFleet(device))
    assert refused.value.status == 503 and "work before them" in refused.value.message
    device.busy_ms = 0.0
    device.ms = 30
    with pytest.raises(OipError) as late:
        run(FakeFleet(device), deadline_ms=20)
    assert late.value.status == 504


def test_a_plan_within_what_is_left_of_the_deadline():
    """1.0 would take 100 ms, the halves take 50 each."""
    devices = [FakeDevice(name, 50, models=["0.5+0.5-0", "0.5+0.5-1"]) for name in "ab"]
    fleet = FakeFleet(*devices, FakeDevice("c", 100))
    assert run(fleet, deadline_ms=80)[0].entry.switch == "0.5+0.5"
    assert run(fleet, deadline_ms=300)[0].entry.switch == "1.0"


def test_an_early_answer_gives_the_rest_up():
    devices = FakeDevice("a", 5, models=["0.5+0.5-0"]), FakeDevice("b", 3000, models=["0.5+0.5-1"])
    seen = []

    def settled(one, summed, arrived):
        seen.append((one.switch, summed.tolist(), arrived))
        return True

    outcome, events, ms = run(FakeFleet(*devices), deadline_ms=5000, settled=settled)
    assert seen == [("0.5+0.5", [[1.0] * 4], frozenset({0}))]
    assert (outcome.early, outcome.degraded, outcome.missing, outcome.accuracy) == (True, False, (1,), 0.7)
    assert ms < 2500 and events.late == ["b"]


def test_a_batch_is_planned_by_its_size():
    images = np.zeros((4, 2, 2, 3), np.uint8)
    devices = [FakeDevice(name, 20, models=["0.5+0.5-0", "0.5+0.5-1"]) for name in "ab"]
    fleet = FakeFleet(*devices, FakeDevice("c", 100))
    outcome, _, _ = run(fleet, deadline_ms=200, images=images)
    assert outcome.entry.switch == "0.5+0.5"
