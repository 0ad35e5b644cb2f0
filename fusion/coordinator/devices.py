"""A device as the coordinator knows it: whether it is there, what it serves, and how long it takes for each slice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..bundle.contents import Bundle, SliceModel, SwitchEntry
from .estimates import Estimate, Measurements
from .remote import ASKING_LIFE, ASKING_MODELS, DeviceError, Partial, RemoteSlice, RemoteWorker

UNKNOWN, UP, DOWN = "unknown", "up", "down"

# How long a worker may take to say what it serves, and to say that it is there.
_CHECK_S, _ALIVE_S = 5.0, 1.0
# A measurement is no request: a slow board may take its time.
_MEASURE_S = 60.0
# Between two looks at a device that is there.
_WATCH_S = 1.0
# Between two tries to reach a device that is not: doubled each time, and made uneven so that devices are not all tried
# at one moment.
_FIRST_RETRY_S, _LAST_RETRY_S = 0.2, 10.0


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
      same: the name of another device that is this one's worker too, if there is one.

    Attributes:
      name: of the cluster file.
      health: its state.
      instance: what tells its worker's process from all others; None where that is not known.
      requests, failures: how many slices it was asked for, and failed.
      running: how many of them, and of its measurements, it has not answered.
      revision: another number after each change of what it can do, and each doubt of how long it takes.

    `watch` keeps these true; a device that fails a request is tried again with growing pauses, and is up again once it
    serves this bundle's slices and has answered one.
    """

    def __init__(
        self,
        worker: RemoteWorker,
        bundle: Bundle,
        entries: Sequence[SwitchEntry],
        precision: str,
        max_batch: int,
        changed: Callable[[FleetDevice], None],
        same: Callable[[FleetDevice], str | None] = lambda device: None,
    ) -> None:
        self.name = worker.device.name
        self.health = Health(UNKNOWN, "not reached yet", time.monotonic())
        self.instance: str | None = None
        self.requests = self.failures = self.running = self.revision = 0
        self._changed, self._same = changed, same
        self._bundle, self._entries, self._precision, self._max_batch = bundle, entries, precision, max_batch
        self.call(worker)
        self._served: dict[str, SliceModel] = {}
        self._estimates: dict[str, Estimate] = {}
        # The part of it that one request after the other takes; the rest, as on the wire, they take at one time.
        self._invocations: dict[str, Estimate] = {}
        # Those that it serves and could not answer, for want of memory.
        self._unable: set[str] = set()
        self._measurements = Measurements()
        self._measuring: asyncio.Task[None] | None = None
        # Expected milliseconds of what it was asked and has not answered, and since when it is at the first of them.
        self._asked_ms, self._begun = 0.0, 0.0
        self._failed = asyncio.Event()

    def call(self, worker: RemoteWorker) -> None:
        """Calls it by this `worker` from now on; what it was asked before it may still answer."""
        self.worker = worker
        self._all: dict[str, RemoteSlice] = {
            part.model: RemoteSlice(worker, self._bundle, entry.switch, part, self._precision, self._max_batch)
            for entry in self._entries
            for part in entry.slices
        }

    @property
    def url(self) -> str:
        return self.worker.device.url

    @property
    def latencies(self) -> Mapping[str, float]:
        """Expected milliseconds by the slice models that it serves now."""
        if self.health.state != UP:
            return {}
        able = [name for name in self._served if name in self._estimates and name not in self._unable]
        return {name: self._estimates[name].ms for name in able}

    @property
    def busy_ms(self) -> float:
        """Milliseconds of work that it is expected to have before it."""
        return max(0.0, self._asked_ms - (time.perf_counter() - self._begun) * 1e3) if self.running else 0.0

    async def infer(self, model: str, images: np.ndarray, timeout_s: float) -> Partial:
        """Asks for a slice. Raises `DeviceError`; the device is then down unless it was only busy, slow, or unable to
        have this slice."""
        self.requests += 1
        self._measurements.used()
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
            elif error.unable:
                self._cannot([model])
                if not self.latencies:
                    self._set(DOWN, str(error))
            elif not error.busy:
                self._set(DOWN, str(error))
                self._failed.set()
            raise
        finally:
            self._measurements.used()
        self._estimates[model].add(_alone_ms(partial) / len(images))
        self._invocations[model].add(partial.invoke_ms / len(images))
        return partial

    def leave(self) -> None:
        """It is of the cluster no more: what becomes of requests it still has is nobody's news."""
        self._changed = lambda device: None

    def doubt(self, model: str) -> None:
        """Has it looked at now, and a slice measured anew, since that takes longer than expected."""
        self._measurements.doubt(model)
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
        if self._estimates[model].at_least((time.perf_counter() - started) * 1e3 / images):
            self._measurements.doubt(model)
        self.revision += 1

    def _cannot(self, models: Collection[str]) -> None:
        """It serves these slices and cannot answer them for now."""
        self._unable |= set(models)
        self._measurements.done(models, 0.0)
        self.revision += 1

    async def watch(self) -> None:
        """Keeps the state true until it is cancelled."""
        retry_s = _FIRST_RETRY_S
        try:
            while True:
                try:
                    await self._look()
                    retry_s = _FIRST_RETRY_S
                except DeviceError as error:
                    self._gave(error)
                    await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))
                    retry_s = min(2 * retry_s, _LAST_RETRY_S)
                    continue
                except Exception as error:
                    # Whatever it was, the device is not given up for ever.
                    self._gave(error)
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
        finally:
            self._stop_measuring()

    async def _look(self) -> None:
        is_up = self.health.state == UP
        instance = await self.worker.alive(_ALIVE_S if is_up else _CHECK_S)
        if not is_up:
            self.instance = instance
            await self._meet()
            self._set(UP, "")
        elif instance != self.instance:
            # It was restarted between two looks, perhaps with other slices.
            self.instance = instance
            try:
                await self._find()
            except BaseException:
                # At the next look once more.
                self.instance = None
                raise
            for name in set(self._served) - set(self._estimates):
                self._measurements.doubt(name)
        if self._measuring is None or self._measuring.done():
            takes_ms = {name: one.ms for name, one in self._invocations.items()}
            names = self._measurements.due(self._sizes(), self.running, takes_ms)
            if names:
                # Beside the watch, since a slow board may take longer than the news that it is gone.
                self._measuring = asyncio.create_task(self._measure_beside(names), name=f"measure {self.name}")

    async def _measure_beside(self, names: Sequence[str]) -> None:
        try:
            await self._measure([names], 1)
        except Exception as error:
            # Nobody awaits it, so an error of any kind would go unseen.
            self._gave(error)

    def _stop_measuring(self) -> None:
        if self._measuring is not None and self._measuring is not asyncio.current_task():
            self._measuring.cancel()

    def _gave(self, error: Exception) -> None:
        """Looking at it or measuring it gave an error."""
        if not isinstance(error, DeviceError):
            logging.error("device %s could not be looked at", self.name, exc_info=error)
            self._set(DOWN, f"{self.worker.device.named}: {type(error).__name__} while looking at it.")
        elif self.health.state != UP or not error.busy:
            self._set(DOWN, str(error))

    async def _meet(self) -> None:
        """Finds out what a worker serves that was away or is new, and how long it takes."""
        await self._find()
        sizes, able = self._sizes(), [model for name, model in self._served.items() if name not in self._unable]
        if able and not self._measurements.any_doubted and set(self._served) <= set(self._estimates):
            # It was here before: one answer shows that it can do it.
            smallest = min(able, key=lambda model: model.madds)
            sizes = [names for names in sizes if smallest.model in names]
        # Twice, since a worker may load it at the first.
        await self._measure(sizes, 2)

    async def _find(self) -> None:
        """Finds out what it serves, of this bundle and for this device alone."""
        other = self._same(self)
        if other is not None:
            raise self.worker.wrong(
                f"it is the worker of device {other} too; legal: a worker of its own for each device", ASKING_LIFE
            )
        names = await self.worker.served(_CHECK_S)
        found = {name: one for name, one in self._all.items() if name in names}
        if not found:
            served = ", ".join(names[:8]) or "none"
            raise self.worker.wrong(f"it serves none of the slices wanted of it; its models: {served}", ASKING_MODELS)
        for one in found.values():
            await one.check(_CHECK_S)
        self._served = {name: one.model for name, one in found.items()}
        self.revision += 1

    def _sizes(self) -> list[list[str]]:
        """The slices that it serves, those of a size together, since they take the same time."""
        of_size: dict[tuple[int, int], list[str]] = {}
        for name, model in self._served.items():
            of_size.setdefault((model.madds, model.parameters), []).append(name)
        return list(of_size.values())

    async def _measure(self, sizes: Sequence[Sequence[str]], times: int) -> None:
        """Measures one slice of each size so many times; the last counts. Raises `DeviceError`; that of a slice that it
        cannot have, or has no time for, only where nothing else is left."""
        refused: DeviceError | None = None
        for names in sizes:
            known = self._invocations.get(names[0])
            try:
                for _ in range(times):
                    with self._asked(0.0 if known is None else known.ms):
                        partial = await self._all[names[0]].infer(self._blank(), _MEASURE_S)
            except DeviceError as error:
                refused = error
                if error.unable:
                    self._cannot(names)
                elif error.busy:
                    # Soon again, whatever there is to do.
                    self._measurements.doubt(names[0])
                else:
                    raise
                continue
            ms = _alone_ms(partial)
            self._unable -= set(names)
            self._estimates |= {name: Estimate(ms) for name in names}
            self._invocations |= {name: Estimate(partial.invoke_ms) for name in names}
            self._measurements.done(names, ms)
            self.revision += 1
        if refused is not None and not set(self._served) & set(self._estimates) - self._unable:
            raise refused
        self._changed(self)

    def _blank(self) -> np.ndarray:
        return np.zeros((1, *self._bundle.shape), np.uint8)

    def _set(self, state: str, reason: str) -> None:
        before = self.health
        if state == DOWN:
            # Whoever else is this worker may take its place.
            self.instance = None
            self._stop_measuring()
        if (before.state, before.reason) != (state, reason):
            since = before.since if before.state == state else time.monotonic()
            self.health = Health(state, reason, since)
            self.revision += 1
            if before.state != state:
                self._changed(self)


def _alone_ms(partial: Partial) -> float:
    """What an answer took without the waiting for other requests, which `FleetDevice.busy_ms` tells of."""
    return max(partial.invoke_ms, (partial.received - partial.sent) * 1e3 - partial.queue_ms)
