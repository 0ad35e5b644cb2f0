"""A watched device whose worker a test makes up."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np

from fusion.bundle.contents import SliceModel, SwitchEntry
from fusion.cluster.file import Device
from fusion.coordinator import devices, estimates
from fusion.coordinator.devices import DOWN, UP, FleetDevice
from fusion.coordinator.remote import DeviceError, Partial
from fusion.security.credentials import Credentials

MADDS = {"m": 16, "wide": 64}


class FakeWorker:
    """Serves the models `names` by its process `instance`; raises `raised` where it is asked for them, and `refused`
    where it is asked for an inference, of all models or of `only`. With `hangs` that is not answered."""

    device = Device("a", "http://h:1", Credentials())

    def __init__(self, *names):
        self.names = list(names)
        self.raised: Exception | None = None
        self.refused: Exception | None = None
        self.only: str | None = None
        self.hangs = False
        self.instance = "one"
        self.asked: list[str] = []

    async def alive(self, timeout_s):
        if self.raised is not None:
            raise self.raised
        return self.instance

    async def served(self, timeout_s):
        await self.alive(timeout_s)
        return self.names

    def wrong(self, found, what):
        return DeviceError(502, "a", "checking the answer", f"{found} ({what}).", False)


class FakeSlice:
    def __init__(self, worker, bundle, switch, model, precision, max_batch):
        self.model, self.worker = model, worker

    async def check(self, timeout_s):
        pass

    async def infer(self, images, timeout_s):
        self.worker.asked.append(self.model.model)
        if self.worker.refused is not None and self.worker.only in (None, self.model.model):
            raise self.worker.refused
        if self.worker.hangs:
            await asyncio.sleep(60)
        return Partial(np.zeros((1, 4)), 0.0, 0.001, 0.0, 1.0)


def refusal(**kind):
    return DeviceError(503, "a", "checking the answer", "device a refuses.", True, **kind)


GONE = DeviceError(503, "a", "connecting", "device a is gone.", True)
IMAGE = np.zeros((1, 2, 2, 3), np.uint8)


def made(monkeypatch, worker, same=lambda device: None):
    monkeypatch.setattr(devices, "RemoteSlice", FakeSlice)
    monkeypatch.setattr(devices, "_FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(devices, "_LAST_RETRY_S", 0.01)
    monkeypatch.setattr(devices, "_WATCH_S", 0.01)
    slices = [SliceModel(0, "0", "1", name, madds, 1, {}) for name, madds in MADDS.items()]
    entries = [SwitchEntry(one.model, one.model, one.madds, None, (one,)) for one in slices]
    bundle: Any = SimpleNamespace(shape=(2, 2, 3))
    return FleetDevice(worker, bundle, entries, "int8", 1, lambda device: None, same)


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


def test_a_restarted_worker_that_is_busy_is_asked_again_what_it_serves(monkeypatch):
    class Busy(FakeWorker):
        full = False

        async def served(self, timeout_s):
            if self.full:
                self.full = False
                raise refusal(busy=True)
            return self.names

    async def story():
        worker = Busy("m", "wide")
        device = made(monkeypatch, worker)
        watch = asyncio.create_task(device.watch())
        await reaches(device, UP)
        worker.names, worker.instance, worker.full = ["wide"], "two", True
        for _ in range(100):
            await asyncio.sleep(0.005)
        assert not worker.full and list(device.latencies) == ["wide"]
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


def story_of(monkeypatch, tell, *names, same=lambda device: None):
    """Runs `tell(worker, device)` on a device that is watched and up."""

    async def story():
        worker = FakeWorker(*names or ("m",))
        device = made(monkeypatch, worker, same)
        watch = asyncio.create_task(device.watch())
        await reaches(device, UP)
        worker.asked.clear()
        await tell(worker, device)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    asyncio.run(story())


async def until(check):
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.002)
    raise AssertionError


def test_a_measurement_that_hangs_does_not_blind_the_watch(monkeypatch):
    async def tell(worker, device):
        worker.hangs = True
        device.doubt("m")
        await until(lambda: worker.asked)
        worker.raised = GONE
        await reaches(device, DOWN)
        worker.raised, worker.hangs = None, False
        await reaches(device, UP)
        assert device.running == 0

    story_of(monkeypatch, tell)


def test_a_device_that_is_never_idle_is_measured_where_it_is_doubted(monkeypatch):
    monkeypatch.setattr(estimates, "_DOUBT_S", 0.05)
    # It takes 1 ms, of which this is the hundredfold.
    monkeypatch.setattr(estimates, "_REFRESH_PART", 0.1)

    async def tell(worker, device):
        device.running = 1
        device._measurements._due["m"] = 0.0
        await asyncio.sleep(0.2)
        assert worker.asked == []
        device._estimates["m"].at_least(900.0)
        device.doubt("m")
        await until(lambda: worker.asked)
        await until(lambda: device.latencies["m"] < 60)
        await asyncio.sleep(0.1)
        assert worker.asked == ["m"]

    story_of(monkeypatch, tell)


def test_an_answer_that_nobody_waited_for_is_a_doubt(monkeypatch):
    monkeypatch.setattr(estimates, "_DOUBT_S", 3600.0)

    async def tell(worker, device):
        worker.hangs = True
        request = asyncio.create_task(device.infer("m", IMAGE, 60))
        await asyncio.sleep(0.1)
        worker.hangs = False
        # A device that has other work is not measured yet.
        device.running += 1
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert device.latencies["m"] >= 90
        device.running -= 1
        await until(lambda: device.latencies["m"] < 60)

    story_of(monkeypatch, tell)


def test_a_full_queue_is_no_want_of_memory(monkeypatch):
    """Nothing is learnt from it: the slice stays what it was, and is measured at the next look."""

    async def tell(worker, device):
        worker.refused = refusal(busy=True)
        device.doubt("m")
        await until(lambda: len(worker.asked) > 2)
        assert device.health.state == UP and list(device.latencies) == ["m"]
        worker.refused = None
        await until(lambda: not device._measurements.any_doubted)

    story_of(monkeypatch, tell)


def test_a_slice_without_room_is_not_planned_with(monkeypatch):
    async def tell(worker, device):
        worker.refused = refusal(unable=True)
        await asyncio.gather(device.infer("m", IMAGE, 60), return_exceptions=True)
        assert (device.health.state, list(device.latencies)) == (UP, ["wide"])
        await asyncio.gather(device.infer("wide", IMAGE, 60), return_exceptions=True)
        assert (device.health.state, device.health.reason) == (DOWN, "device a refuses.")
        worker.refused = None
        await reaches(device, UP)
        assert list(device.latencies) == ["m", "wide"]

    story_of(monkeypatch, tell, "m", "wide")


def test_a_worker_that_was_restarted_between_two_looks_is_met_anew(monkeypatch):
    async def tell(worker, device):
        worker.names, worker.instance = ["m", "wide"], "two"
        await until(lambda: list(device.latencies) == ["m", "wide"])

    story_of(monkeypatch, tell, "m")


def test_the_worker_of_another_device_is_refused(monkeypatch):
    others: list[str | None] = [None]

    async def tell(worker, device):
        others[0] = "b"
        worker.raised = GONE
        await reaches(device, DOWN)
        worker.raised = None
        said = (
            "it is the worker of device b too; legal: a worker of its own for each device (asking whether it is there)."
        )
        await until(lambda: device.health.reason == said)
        # Also when it is refused again, it keeps nobody out.
        await asyncio.sleep(0.1)
        assert device.instance is None
        others[0] = None
        await reaches(device, UP)

    story_of(monkeypatch, tell, same=lambda device: others[0])


def test_a_slice_that_a_full_queue_kept_from_being_measured_is_known_soon(monkeypatch):
    monkeypatch.setattr(estimates, "_DOUBT_S", 0.05)

    async def story():
        worker = FakeWorker("m", "wide")
        worker.refused, worker.only = refusal(busy=True), "wide"
        device = made(monkeypatch, worker)
        watch = asyncio.create_task(device.watch())
        await reaches(device, UP)
        assert list(device.latencies) == ["m"]
        device.running, worker.refused = 1, None
        await until(lambda: list(device.latencies) == ["m", "wide"])
        watch.cancel()

    asyncio.run(story())
