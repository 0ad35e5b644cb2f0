"""Workers that a test makes up, and an event loop whose time a test need not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import weakref
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fusion.bundle.contents import Bundle, SliceModel, SwitchEntry
from fusion.bundle.tasks import TASKS
from fusion.cluster.file import Device
from fusion.coordinator.devices import FleetDevice
from fusion.coordinator.fleet import Fleet
from fusion.coordinator.planner import Goal
from fusion.coordinator.remote import DeviceError, Partial
from fusion.security.credentials import Credentials

SHAPE = (2, 2, 3)
IMAGE = np.zeros((1, *SHAPE), np.uint8)
GOAL = Goal(1000)
# Longer than any test waits, in seconds of the loop.
FOR_EVER_S = 5000.0


class _NoWaiting(selectors.DefaultSelector):
    """Where nothing but time would end the waiting, lets that pass."""

    passed = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout is None:
            # Only another thread can go on.
            ready = super().select(60)
            assert ready, "everything waits, and for nothing"
        elif not ready:
            self.passed += timeout
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while there is something to do, and else is at once what is waited for."""

    def __init__(self):
        self._no_waiting = _NoWaiting()
        super().__init__(self._no_waiting)

    def time(self):
        return 1000.0 + self._no_waiting.passed


def run(story):
    """The result of a coroutine, on a loop of its own time."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(story)


def now():
    return asyncio.get_running_loop().time()


async def until(check, within_s=60.0):
    """Returns when `check()` is true, which has to be within so many seconds of the loop."""
    ends = now() + within_s
    while not check():
        assert now() < ends
        await asyncio.sleep(0.001)


def refusal(status=503, **kind):
    return DeviceError(status, "a", "checking the answer", "device a refuses.", **kind)


def gone():
    return DeviceError(503, "a", "connecting", "device a is gone.")


class FakeWorker:
    """Serves the models `names` of a device; each takes `ms` an image, and `wire_ms` a request. With `one_at_a_time`
    requests wait for those before them, as those of a real one do.

    Attributes:
      ms_of: what the models take that take another time, by name.
      error: is raised instead of any answer.
      refused: is raised instead of an inference, of all models or of `only`.
      hanging: models whose inferences are not answered.
      instance: its process.
      asked, timeouts, answers: the models that it was asked for, for how long, and what it gave.
      looks: when it was asked whether it is there.
    """

    def __init__(self, *names, device="a", ms=1.0, wire_ms=0.0, one_at_a_time=False):
        self.names, self.ms, self.wire_ms = list(names), ms, wire_ms
        self.turn = asyncio.Lock() if one_at_a_time else contextlib.nullcontext()
        self.device = Device(device, "http://h:1", Credentials())
        self.ms_of: dict[str, float] = {}
        self.error: Exception | None = None
        self.refused: Exception | None = None
        self.only: str | None = None
        self.hanging: Collection[str] = ()
        self.instance = f"process of {device}"
        self.asked: list[str] = []
        self.timeouts: list[float] = []
        self.answers: list[weakref.ref[Partial]] = []
        self.looks: list[float] = []
        self.closed = False

    async def alive(self, timeout_s):
        self.looks.append(now())
        if self.error is not None:
            raise self.error
        return self.instance

    async def served(self, timeout_s):
        if self.error is not None:
            raise self.error
        return self.names

    def wrong(self, mistake, what):
        return DeviceError(502, self.device.name, "checking the answer", f"{mistake} ({what}).")

    async def close(self):
        self.closed = True


class FakeSlice:
    """One of its slices; gives 1 more than its number for every class."""

    def __init__(self, worker, model):
        self.worker, self.model = worker, model

    async def check(self, timeout_s):
        pass

    async def infer(self, images, timeout_s):
        worker, name, sent = self.worker, self.model.model, now()
        worker.asked.append(name)
        worker.timeouts.append(timeout_s)
        if name in worker.hanging:
            await asyncio.sleep(FOR_EVER_S)
        invoke_ms = worker.ms_of.get(name, worker.ms) * len(images)
        async with worker.turn:
            queue_ms = (now() - sent) * 1e3
            await asyncio.sleep(invoke_ms / 1e3)
        await asyncio.sleep(worker.wire_ms / 1e3)
        if worker.refused is not None and worker.only in (None, name):
            raise worker.refused
        answer = Partial(np.full((len(images), 4), 1.0 + self.model.device), sent, now(), queue_ms, invoke_ms)
        worker.answers.append(weakref.ref(answer))
        return answer


def entry(switch, madds, live=None):
    """A switch whose slices have so many multiply-adds; `live` is the accuracy of sets of them."""
    slices = [SliceModel(i, "0", "1", f"{switch}-{i}", count, 1, {}) for i, count in enumerate(madds)]
    subsets = [{"devices": list(devices), "exported": {"int8": part}} for devices, part in (live or {}).items()]
    return SwitchEntry(switch, switch, sum(madds), {"live_subsets": subsets}, tuple(slices))


def slices_of(worker, entries):
    return {model.model: FakeSlice(worker, model) for each in entries for model in each.slices}


def bundle_of(*entries):
    labels = ("ant", "bee", "cat", "dog")
    answers = (TASKS["classification"], SHAPE, (4,), 1, None, labels)
    return Bundle(Path("b"), "tiny", "0" * 64, *answers, ("int8",), entries, (), None)


def device_of(worker, entries, same_worker=lambda device: None):
    return FleetDevice(worker, slices_of(worker, entries), SHAPE, lambda device: None, same_worker)


@contextlib.asynccontextmanager
async def fleet_of(*workers, entries, goal=GOAL, met=True):
    """A fleet of these workers, once each of them was reached, or at once where `met` is false."""
    by_name = {worker.device.name: worker for worker in workers}

    def connect(device):
        worker = by_name[device.name]
        return worker, slices_of(worker, entries)

    async with Fleet(entries, "int8", goal, SHAPE, connect, lambda device: None) as fleet:
        await fleet.update([worker.device for worker in workers])
        if met:
            # A worker that hangs from before would be waited for in very many steps.
            await asyncio.wait_for(fleet.met(), 60)
        for worker in workers:
            worker.asked.clear()
            worker.timeouts.clear()
        yield fleet
