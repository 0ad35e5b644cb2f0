"""A watched device whose worker a test makes up."""

import asyncio
from types import SimpleNamespace

import numpy as np

from export.fusion import devices
from export.fusion.bundle import SliceModel, SwitchEntry
from export.fusion.devices import DOWN, UP, FleetDevice
from export.fusion.remote import Partial


class FakeWorker:
    """Serves the models `names`; raises `raised` where it is asked for them."""

    device = SimpleNamespace(name="a", url="http://h:1")

    def __init__(self, *names):
        self.names, self.raised = list(names), None

    async def check_alive(self, timeout_s):
        if self.raised is not None:
            raise self.raised

    async def served(self, timeout_s):
        await self.check_alive(timeout_s)
        return self.names


class FakeSlice:
    def __init__(self, worker, bundle, switch, model, precision, max_batch):
        self.model = model

    async def check(self, timeout_s):
        pass

    async def infer(self, images, timeout_s):
        return Partial(np.zeros((1, 4)), 0.0, 0.001, 0.0, 1.0)


def made(monkeypatch, worker):
    monkeypatch.setattr(devices, "RemoteSlice", FakeSlice)
    monkeypatch.setattr(devices, "_FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(devices, "_LAST_RETRY_S", 0.01)
    monkeypatch.setattr(devices, "_WATCH_S", 0.01)
    models = [SliceModel(0, "0", "1", "m", 16, 1, {})]
    entry = SwitchEntry("1.0", "1.0", 16, None, tuple(models))
    return FleetDevice(worker, SimpleNamespace(shape=(2, 2, 3)), [entry], "int8", 1, lambda device: None)


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
