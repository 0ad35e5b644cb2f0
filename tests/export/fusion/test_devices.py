"""A watched device whose worker a test makes up."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np

from export.fusion import devices
from export.fusion.bundle import SliceModel, SwitchEntry
from export.fusion.devices import DOWN, UP, FleetDevice
from export.fusion.remote import Partial

MADDS = {"m": 16, "wide": 64}


class FakeWorker:
    """Serves the models `names`; raises `raised` where it is asked for them."""

    device = SimpleNamespace(name="a", url="http://h:1")

    def __init__(self, *names):
        self.names = list(names)
        self.raised: Exception | None = None
        self.asked: list[str] = []

    async def check_alive(self, timeout_s):
        if self.raised is not None:
            raise self.raised

    async def served(self, timeout_s):
        await self.check_alive(timeout_s)
        return self.names


class FakeSlice:
    def __init__(self, worker, bundle, switch, model, precision, max_batch):
        self.model, self.worker = model, worker

    async def check(self, timeout_s):
        pass

    async def infer(self, images, timeout_s):
        self.worker.asked.append(self.model.model)
        return Partial(np.zeros((1, 4)), 0.0, 0.001, 0.0, 1.0)


def made(monkeypatch, worker):
    monkeypatch.setattr(devices, "RemoteSlice", FakeSlice)
    monkeypatch.setattr(devices, "_FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(devices, "_LAST_RETRY_S", 0.01)
    monkeypatch.setattr(devices, "_WATCH_S", 0.01)
    slices = [SliceModel(0, "0", "1", name, madds, 1, {}) for name, madds in MADDS.items()]
    entries = [SwitchEntry(one.model, one.model, one.madds, None, (one,)) for one in slices]
    bundle: Any = SimpleNamespace(shape=(2, 2, 3))
    return FleetDevice(worker, bundle, entries, "int8", 1, lambda device: None)


async def reaches(device, state):
    for _ in range(1000):
        if device.health.state == state:
            return
        await asyncio.sleep(0.002)
    raise AssertionError(device.health)


def test_no_exception_ends_the_watch(monkeypatch):
    async def story():
        worker = FakeWorker("m")
        device = made(monkeypatch, worker)
        watch = asyncio.create_task(device.watch())
        await reaches(device, UP)
        worker.raised = ValueError("an odd one")
        await reaches(device, DOWN)
        assert device.health.reason == "device a at http://h:1: ValueError while looking at it."
        worker.raised = None
        await reaches(device, UP)
        watch.cancel()

    asyncio.run(story())


def test_a_worker_that_comes_back_with_only_what_it_could_not_load_is_measured(monkeypatch):
    async def story():
        worker = FakeWorker("m")
        device = made(monkeypatch, worker)
        device._unable, device._estimates = {"m"}, {"m": devices.Estimate(5)}
        watch = asyncio.create_task(device.watch())
        await reaches(device, UP)
        assert list(device.latencies) == ["m"]
        watch.cancel()

    asyncio.run(story())


def test_only_what_is_doubted_is_measured_anew(monkeypatch):
    """Measuring everything would keep a device from its requests, which would doubt it again."""

    async def story():
        worker = FakeWorker("m", "wide")
        device = made(monkeypatch, worker)
        watch = asyncio.create_task(device.watch())
        await reaches(device, UP)
        assert worker.asked == ["m", "m", "wide", "wide"]
        device.doubt("m")
        await asyncio.sleep(0.1)
        assert worker.asked[4:] == ["m"]
        watch.cancel()

    asyncio.run(story())


def test_a_device_that_is_measured_is_busy(monkeypatch):
    async def story():
        worker = FakeWorker("m")
        device = made(monkeypatch, worker)
        device._estimates = {"m": devices.Estimate(6000)}
        device._invocations = {"m": devices.Estimate(5000)}
        device._served = {"m": device._all["m"].model}
        seen = []

        async def infer(images, timeout_s):
            seen.append((device.running, device.busy_ms))
            return Partial(np.zeros((1, 4)), 0.0, 0.001, 0.0, 1.0)

        monkeypatch.setattr(device._all["m"], "infer", infer)
        await device._measure([["m"]], 1)
        ((running, busy_ms),) = seen
        assert running == 1 and 4000 < busy_ms <= 5000
        assert (device.running, device.busy_ms) == (0, 0.0)

    asyncio.run(story())


def test_waiting_for_other_requests_is_no_slowness(monkeypatch):
    """Else a queue makes a device look slow, which makes its queue look long, and nothing is sent to it any more."""

    async def story():
        device = made(monkeypatch, FakeWorker("m"))
        device._estimates, device._invocations = {"m": devices.Estimate(60)}, {"m": devices.Estimate(50)}

        async def infer(images, timeout_s):
            await asyncio.sleep(60)

        monkeypatch.setattr(device._all["m"], "infer", infer)
        images = np.zeros((1, 2, 2, 3), np.uint8)
        tasks = [asyncio.create_task(device.infer("m", images, 60)) for _ in range(10)]
        await asyncio.sleep(0)
        assert 400 < device.busy_ms <= 500
        await asyncio.sleep(0.1)
        tasks[-1].cancel()
        await asyncio.gather(tasks[-1], return_exceptions=True)
        assert device._estimates["m"].ms == 60
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        assert device._estimates["m"].ms >= 100
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())
