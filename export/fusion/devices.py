"""A device as the coordinator knows it: whether it is there, what it serves, and how long it takes for each slice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .bundle import Bundle, SliceModel, SwitchEntry
from .remote import DeviceError, Partial, RemoteSlice, RemoteWorker

UNKNOWN, UP, DOWN = "unknown", "up", "down"

# How long a worker may take to say what it serves, and to say that it is there.
_CHECK_S, _ALIVE_S = 5.0, 1.0
# A measurement is no request: a slow board may take its time.
_MEASURE_S = 60.0
# Between two looks at a device that is there.
_WATCH_S = 1.0
# An idle device's latencies are measured anew after the one, but not for more than the other of its time: a request
# that comes meanwhile has to wait.
_REFRESH_S, _REFRESH_PART = 30.0, 0.01
# Between two tries to reach a device that is not: doubled each time, and made uneven so that devices are not all tried
# at one moment.
_FIRST_RETRY_S, _LAST_RETRY_S = 0.2, 10.0
# The parts that a new value moves the mean and the mean deviation by, and how many deviations are allowed for.
_MEAN_PART, _DEVIATION_PART, _DEVIATIONS = 1 / 8, 1 / 4, 2.0


class Estimate:
    """What is expected of a latency, in milliseconds: its smoothed mean and twice its mean deviation.

    Source: Jacobson and Karels 1988, the estimator of TCP's retransmission timer, with two deviations for four.
    """

    def __init__(self, first_ms: float) -> None:
        self._mean, self._deviation = first_ms, 0.0

    def add(self, ms: float) -> None:
        """Takes a value in."""
        error = ms - self._mean
        self._mean += _MEAN_PART * error
        self._deviation += _DEVIATION_PART * (abs(error) - self._deviation)

    def at_least(self, ms: float) -> None:
        """Takes in that a value would have been more than this."""
        self._mean = max(self._mean, ms)

    @property
    def ms(self) -> float:
        return self._mean + _DEVIATIONS * self._deviation


@dataclass(frozen=True)
class Health:
    """The state of a device, why it is not up, and since when (`time.monotonic()`)."""

    state: str
    reason: str
    since: float


class FleetDevice:
    """One device of the cluster, watched.

    Args:
      worker: its worker.
      bundle, precision: what the workers serve.
      entries: the switches that may be run.
      max_batch: the largest batch ever sent.
      changed: is called when its state or its latencies have changed.

    Attributes:
      name: of the cluster file.
      health: its state.
      requests, failures: how many slices it was asked for, and failed.
      running: how many of them, and of its measurements, it has not answered.
      revision: another number after each change of what it can do, and each doubt of how long it takes.

    `watch` keeps these true; a device that fails a request is tried again with growing pauses, and is up again once it
    serves this bundle's slices and has answered one. Source: ours.
    """

    def __init__(
        self,
        worker: RemoteWorker,
        bundle: Bundle,
        entries: Sequence[SwitchEntry],
        precision: str,
        max_batch: int,
        changed: Callable[[FleetDevice], None],
    ) -> None:
        self.name, self.worker = worker.device.name, worker
        self.health = Health(UNKNOWN, "not reached yet", time.monotonic())
        self.requests = self.failures = self.running = self.revision = 0
        self._shape, self._changed = bundle.shape, changed
        self._all: dict[str, RemoteSlice] = {
            part.model: RemoteSlice(worker, bundle, entry.switch, part, precision, max_batch)
            for entry in entries
            for part in entry.slices
        }
        self._served: dict[str, SliceModel] = {}
        self._estimates: dict[str, Estimate] = {}
        # The part of it that one request after the other takes; the rest, as on the wire, they take at one time.
        self._invocations: dict[str, Estimate] = {}
        # Those that it serves and could not answer, for want of memory.
        self._unable: set[str] = set()
        # Those that took longer than expected, and when each is to be measured anew.
        self._doubted: set[str] = set()
        self._due: dict[str, float] = {}
        # Expected milliseconds of what it was asked and has not answered, and since when it is at the first of them.
        self._asked_ms, self._begun = 0.0, 0.0
        self._failed = asyncio.Event()

    @property
    def url(self) -> str:
        return self.worker.device.url

    @property
    def latencies(self) -> Mapping[str, float]:
        """Expected milliseconds by the slice models that it serves now."""
        if self.health.state != UP:
            return {}
        return {name: self._estimates[name].ms for name in self._served if name not in self._unable}

    @property
    def busy_ms(self) -> float:
        """Milliseconds of work that it is expected to have before it."""
        return max(0.0, self._asked_ms - (time.perf_counter() - self._begun) * 1e3) if self.running else 0.0

    async def infer(self, model: str, images: np.ndarray, timeout_s: float) -> Partial:
        """Asks for a slice. Raises `DeviceError`; the device is then down unless it was only busy or slow."""
        self.requests += 1
        # It is not slow for what it was asked before.
        started = time.perf_counter() + self.busy_ms / 1e3
        try:
            with self._asked(self._invocations[model].ms * len(images)):
                partial = await self._all[model].infer(images, timeout_s)
        except asyncio.CancelledError:
            self._slower_than(model, started, len(images))
            raise
        except DeviceError as error:
            self.failures += 1
            if error.status == 504:
                self._slower_than(model, started, len(images))
                self.doubt(model)
            elif not error.busy:
                self._set(DOWN, str(error))
                self._failed.set()
            raise
        self._estimates[model].add(_alone_ms(partial) / len(images))
        self._invocations[model].add(partial.invoke_ms / len(images))
        return partial

    def leave(self) -> None:
        """It is of the cluster no more: what becomes of requests it still has is nobody's news."""
        self._changed = lambda device: None

    def doubt(self, model: str) -> None:
        """Has it looked at now, and a slice measured anew, since that takes longer than expected."""
        self._doubted.add(model)
        self.revision += 1
        self._failed.set()

    @contextlib.contextmanager
    def _asked(self, expected_ms: float) -> Iterator[None]:
        """While it has so much more work before it."""
        if not self.running:
            self._begun = time.perf_counter()
        self.running += 1
        self._asked_ms += expected_ms
        try:
            yield
        finally:
            self.running -= 1
            self._asked_ms -= expected_ms
            self._begun = time.perf_counter()

    def _slower_than(self, model: str, started: float, images: int) -> None:
        self._estimates[model].at_least((time.perf_counter() - started) * 1e3 / images)
        self.revision += 1

    async def watch(self) -> None:
        """Keeps the state true until it is cancelled."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if self.health.state == UP:
                    await self.worker.check_alive(_ALIVE_S)
                    if not self.running:
                        await self._measure(self._stale(), 1)
                else:
                    await self._meet()
                    self._set(UP, "")
                retry_s = _FIRST_RETRY_S
            except DeviceError as error:
                if not error.busy:
                    self._set(DOWN, str(error))
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
                continue
            except Exception as error:
                # Whatever it was, the device is not given up for ever.
                logging.exception("device %s could not be looked at", self.name)
                self._set(DOWN, f"device {self.name} at {self.url}: {type(error).__name__} while looking at it.")
                await asyncio.sleep(_LAST_RETRY_S)
                continue
            # A failed request makes the next look come at once, but not more often than a retry would.
            try:
                await asyncio.wait_for(self._failed.wait(), _WATCH_S)
                self._failed.clear()
                if self.health.state == UP:
                    await asyncio.sleep(_FIRST_RETRY_S * random.uniform(0.5, 1.5))
            except asyncio.exceptions.TimeoutError:
                continue

    async def _meet(self) -> None:
        """Finds out what a worker serves that was away or is new, and how long it takes."""
        names = await self.worker.served(_CHECK_S)
        found = {name: one for name, one in self._all.items() if name in names}
        if not found:
            served = ", ".join(names[:8]) or "none"
            raise self.worker.wrong(f"it serves none of the slices wanted of it; its models: {served}", "its models")
        for one in found.values():
            await one.check(_CHECK_S)
        self._served = {name: one.model for name, one in found.items()}
        self.revision += 1
        able = [model for name, model in self._served.items() if name not in self._unable]
        if self._doubted or not able or set(self._served) - set(self._estimates):
            # Twice, since a worker may load it at the first.
            await self._measure(self._sizes(), 2)
        else:
            # It was here before: one answer shows that it can do it.
            smallest = min(able, key=lambda model: model.madds)
            await self._all[smallest.model].infer(self._blank(), _MEASURE_S)

    def _sizes(self) -> list[list[str]]:
        """The slices that it serves, those of a size together, since they take the same time."""
        of_size: dict[tuple[int, int], list[str]] = {}
        for name, model in self._served.items():
            of_size.setdefault((model.madds, model.parameters), []).append(name)
        return list(of_size.values())

    def _stale(self) -> list[list[str]]:
        """The one size that is to be measured now: a doubted one, or else one that was not measured for long; or none.

        Never all of them one after the other, as the device would be away for too long."""
        now = time.monotonic()
        doubted = [names for names in self._sizes() if self._doubted & set(names)]
        due = [names for names in self._sizes() if any(self._due.get(name, 0.0) <= now for name in names)]
        return (doubted or due)[:1]

    async def _measure(self, sizes: Sequence[Sequence[str]], times: int) -> None:
        """Measures one slice of each size so many times; the last counts."""
        for names in sizes:
            known = self._invocations.get(names[0])
            try:
                for _ in range(times):
                    with self._asked(0.0 if known is None else known.ms):
                        partial = await self._all[names[0]].infer(self._blank(), _MEASURE_S)
            except DeviceError as error:
                if not error.busy:
                    raise
                refused, ms = error, 0.0
                self._unable |= set(names)
            else:
                ms = _alone_ms(partial)
                self._unable -= set(names)
                self._estimates |= {name: Estimate(ms) for name in names}
                self._invocations |= {name: Estimate(partial.invoke_ms) for name in names}
            # Uneven, so that not all devices are away at one moment.
            pause_s = max(_REFRESH_S, ms / 1e3 / _REFRESH_PART) * random.uniform(0.75, 1.25)
            self._due |= dict.fromkeys(names, time.monotonic() + pause_s)
            self._doubted -= set(names)
            self.revision += 1
        if sizes and self._unable >= set(self._served):
            raise refused
        if sizes:
            self._changed(self)

    def _blank(self) -> np.ndarray:
        return np.zeros((1, *self._shape), np.uint8)

    def _set(self, state: str, reason: str) -> None:
        before = self.health
        if (before.state, before.reason) != (state, reason):
            since = before.since if before.state == state else time.monotonic()
            self.health = Health(state, reason, since)
            self.revision += 1
            if before.state != state:
                self._changed(self)


def _alone_ms(partial: Partial) -> float:
    """What an answer took without the waiting for other requests, which `FleetDevice.busy_ms` tells of."""
    return max(partial.invoke_ms, (partial.received - partial.sent) * 1e3 - partial.queue_ms)
