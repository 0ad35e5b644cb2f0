"""The devices of a cluster together, over workers that a test makes up."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.cluster.file import Device
from fusion.coordinator import planner
from fusion.coordinator.devices import DOWN, UP
from fusion.coordinator.fleet import Fleet
from fusion.coordinator.planner import Goal
from fusion.security.credentials import Credentials
from tests.fusion.coordinator.fakes import (
    IMAGE,
    SHAPE,
    FakeWorker,
    entry,
    fleet_of,
    gone,
    now,
    refusal,
    run,
    slices_of,
    until,
)

ENTRIES = [entry("1.0", [16])]
SLICE = "1.0-0"
SWITCHES = [entry("1.0", [16], {(0,): 0.8}), entry("0.5+0.5", [4, 4], {(0, 1): 0.795})]


def tell(story):
    """Runs `story(fleet, workers)`; each use of a device is by a new worker in `workers`, by the device's name."""

    async def main():
        workers: dict[str, FakeWorker] = {}

        def connect(device):
            if device.url == "http://unfit:1":
                raise UserError("token file 't' cannot be read.")
            workers[device.name] = FakeWorker(SLICE, device=device.name)
            return workers[device.name], slices_of(workers[device.name], ENTRIES)

        async with Fleet(ENTRIES, "int8", Goal(1000), SHAPE, connect, lambda device: None) as fleet:
            await story(fleet, workers)

    run(main())


def device(name, url="http://h:1"):
    return Device(name, url, Credentials())


def test_devices_come_and_go():
    async def story(fleet, workers):
        assert await fleet.update([device("a"), device("b")]) == (["a", "b"], [])
        await fleet.met()
        a, b = fleet.devices
        assert await fleet.update([device("b"), device("c")]) == (["c"], ["a"])
        await fleet.met()
        assert [one.name for one in fleet.devices] == ["b", "c"] and fleet.devices[0] is b
        assert workers["a"].closed and not workers["b"].closed
        looks = len(workers["a"].looks)
        await asyncio.sleep(10)
        assert len(workers["a"].looks) == looks
        # Another address is another device.
        assert await fleet.update([device("b", "http://h:2"), device("c")]) == (["b"], ["b"])
        assert fleet.devices[0] is not b and fleet.device("a") is None

    tell(story)


def test_an_unfit_file_changes_nothing():
    async def story(fleet, workers):
        await fleet.update([device("a")])
        with pytest.raises(UserError, match="cannot be read"):
            await fleet.update([device("b"), device("c", "http://unfit:1")])
        assert [one.name for one in fleet.devices] == ["a"]

    tell(story)


def test_renewed_devices_are_reached_anew_and_keep_what_is_known_of_them():
    async def story(fleet, workers):
        await fleet.update([device("a")])
        await fleet.met()
        known, before = fleet.device("a"), workers["a"]
        before.error = gone()
        await until(lambda: known.health.state == DOWN)
        assert await fleet.update([device("a")], renew=True) == ([], [])
        assert fleet.device("a") is known and before.closed and known.worker is workers["a"] is not before
        await until(lambda: known.health.state == UP, within_s=0.1)
        # It was known, so one answer was enough; that is asked for twice.
        assert workers["a"].asked == [SLICE, SLICE] and known.latencies

    tell(story)


def test_one_worker_under_two_names_is_one_device():
    async def story():
        workers = [FakeWorker(SLICE, device=name) for name in "ab"]
        for worker in workers:
            worker.instance = "the same"
        async with fleet_of(*workers, entries=ENTRIES) as fleet:
            states = {one.health.state: one for one in fleet.devices}
            assert f"it is the worker of device {states[UP].name} too" in states[DOWN].health.reason
            assert states[DOWN].health.reason in fleet.no_plan()

    run(story())


def test_plans_follow_the_devices():
    async def story():
        a, b = (FakeWorker(SLICE, device=name, ms=ms) for name, ms in (("a", 10.0), ("b", 20.0)))
        async with fleet_of(a, b, entries=ENTRIES) as fleet:
            goal = Goal(1000)

            def devices(images=1, **options):
                plans, impossible = fleet.plans(images, **options)
                chosen = planner.choose(plans, impossible, goal).chosen
                return None if chosen is None else (chosen.devices, chosen.latency_ms)

            assert devices() == (("a",), pytest.approx(10)) and devices(images=3) == (("a",), pytest.approx(30))
            assert devices(without=["a"]) == (("b",), pytest.approx(20)) and devices(without=["a", "b"]) is None
            # A device that fails is out of the plans at once; one that is a little slower within a moment.
            a.refused = refusal(unable=True)
            (first, second) = fleet.devices
            await asyncio.gather(first.infer(SLICE, IMAGE, 1), return_exceptions=True)
            assert devices() == (("b",), pytest.approx(20))
            b.ms = 28.0
            await second.infer(SLICE, IMAGE, 1)
            await asyncio.sleep(0.1)
            assert devices() == (("b",), pytest.approx(20 + 1 + 2 * 2))
            a.refused = None
            request = second.infer(SLICE, np.repeat(IMAGE, 10, axis=0), 1)
            assert devices()[1] > 10 * 20 and devices(idle=True) == (("b",), pytest.approx(25))
            await request

    run(story())


async def none_is_measured(fleet):
    """What a request runs is chosen for devices that have no other work."""
    await until(lambda: not any(fleet.busy().values()))


def test_a_switch_that_runs_is_kept_where_another_is_as_fast():
    goal = Goal(1000, accuracy_loss=0.01)

    async def story():
        whole, halves = FakeWorker("1.0-0", device="a", ms=10.0), FakeWorker(device="b", ms=10.5)
        halves.names = ["0.5+0.5-0", "0.5+0.5-1"]
        other = FakeWorker(*halves.names, device="c", ms=10.5)
        async with fleet_of(whole, halves, other, entries=SWITCHES, goal=goal) as fleet:

            async def takes(ms, seconds=15.0):
                """Has a take so long from now on, and the switch that is run for that time, or at its end."""
                whole.ms, ends = ms, now() + seconds
                while now() < ends:
                    await fleet.device("a").infer("1.0-0", IMAGE, 1)
                    await asyncio.sleep(0.1)
                    await none_is_measured(fleet)
                    switch = fleet.decide(goal).chosen.entry.switch
                return switch

            assert await takes(10.0) == "1.0"
            # Up and down around the halves' 10.5 ms.
            assert [await takes(ms) for ms in (11.0, 10.2, 11.5)] == ["1.0"] * 3
            assert await takes(12.0) == "0.5+0.5"
            assert [await takes(ms) for ms in (10.0, 11.0, 9.6)] == ["0.5+0.5"] * 3
            # Not for long enough, and again not.
            assert [await takes(ms, 9.0) for ms in (9.0, 10.0, 9.0)] == ["0.5+0.5"] * 3
            # What runs while devices are busy is no reason to keep it.
            work = [fleet.device(name).infer(halves.names[0], IMAGE, 1) for name in "bc"]
            assert fleet.decide(goal).chosen.entry.switch == "1.0"
            await asyncio.gather(*work)
            assert fleet.decide(goal).chosen.entry.switch == "0.5+0.5"
            assert await takes(9.0) == "1.0"
            # One late answer is not expected to come again, even where nothing but answers is learnt from.
            whole.ms = 100.0
            await fleet.device("a").infer("1.0-0", IMAGE, 1)
            assert fleet.device("a").latencies["1.0-0"] > 50
            assert await takes(9.0, 0.05) == await takes(9.0) == "1.0"
            assert fleet.device("a").latencies["1.0-0"] == pytest.approx(9, rel=0.1)
            # One that cannot be run is not waited for.
            whole.error = gone()
            await until(lambda: not fleet.device("a").latencies)
            assert fleet.decide(goal).chosen.entry.switch == "0.5+0.5"

    run(story())


def test_what_runs_before_all_devices_are_met_is_not_kept():
    goal = Goal(1000, accuracy_loss=0.01)

    async def story():
        whole = FakeWorker("1.0-0", device="a", ms=50.0)
        halves = [FakeWorker("0.5+0.5-0", "0.5+0.5-1", device=name, ms=5000.0) for name in "bc"]
        async with fleet_of(whole, *halves, entries=SWITCHES, goal=goal, met=False) as fleet:
            await until(lambda: fleet.device("a").latencies)
            for _ in range(4):
                assert fleet.decide(goal).chosen.entry.switch == "1.0"
                await asyncio.sleep(1)
            for worker in halves:
                worker.ms = 10.0
            await fleet.met()
            assert fleet.decide(goal).chosen.entry.switch == "0.5+0.5"
            # From now on it is.
            whole.ms = 5.0
            while fleet.device("a").latencies["1.0-0"] > 6:
                await fleet.device("a").infer("1.0-0", IMAGE, 1)
            assert fleet.decide(goal).chosen.entry.switch == "0.5+0.5"

    run(story())


def test_only_the_own_goal_changes_what_is_kept():
    goal = Goal(1000, accuracy_loss=0.01)

    async def story():
        whole = FakeWorker("1.0-0", device="a", ms=50.0)
        halves = [FakeWorker("0.5+0.5-0", "0.5+0.5-1", device=name, ms=60.0) for name in "bc"]
        async with fleet_of(whole, *halves, entries=SWITCHES, goal=goal) as fleet:

            def switch(deadline_ms=1000.0, images=1):
                return fleet.decide(replace(goal, deadline_ms=deadline_ms), images).chosen.entry.switch

            assert switch() == "1.0"
            # Requests that leave no time for what runs have another.
            for worker in halves:
                worker.ms = 20.0
            await until(lambda: all(fleet.device(name).latencies["0.5+0.5-0"] < 21 for name in "bc"))
            await none_is_measured(fleet)
            started = now()
            assert switch() == "1.0"
            while now() < started + 9.5:
                await none_is_measured(fleet)
                assert [switch(30.0), switch(200.0, images=5)] == ["0.5+0.5"] * 2
                assert [switch(), switch(999.0)] == ["1.0"] * 2
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.5)
            await none_is_measured(fleet)
            # Ten seconds after it was much faster first, whatever was asked for meanwhile, by whatever request.
            assert switch(999.0) == switch() == "0.5+0.5"

    run(story())


def test_the_accuracy_of_what_has_arrived():
    verified = entry("0.5+0.5", [4, 4], {(0,): 0.5, (0, 1): 0.7})

    async def story():
        async with fleet_of(entries=[verified, *ENTRIES]) as fleet:
            assert fleet.accuracy(verified) == fleet.accuracy(verified, (1, 0)) == 0.7
            assert fleet.accuracy(verified, {0}) == 0.5
            assert fleet.accuracy(verified, ()) is None and fleet.accuracy(ENTRIES[0]) is None

    run(story())
