"""A device as the coordinator knows it: whether it is there, what it serves, and how long it takes for each slice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .estimates import SliceEstimates, now
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
    """The state of a device, why it is not up, and since when by the clock of the event loop."""

    state: str
    reason: str
    since: float


class FleetDevice:
    """One device of the cluster, watched.

    It is measured with an image of (height, width, channels) `image_shape`. `changed` is called when its state has
    changed; `same_worker` gives the name of another device that has this one's worker too, if there is one.

    Attributes:
      name: of the cluster file.
      health: its state.
      instance: what tells its worker's process from all others; None where that is not known.
      running: how many requests and measurements it has not answered.
      requests, failures: how many slices it was asked for, and failed.

    `watch` keeps these true; a device that fails a request is tried again with growing pauses, and is up again once it
    serves this bundle's slices and has answered one.
    """

    def __init__(
        self,
        worker: RemoteWorker,
        slices: Mapping[str, RemoteSlice],
        image_shape: Sequence[int],
        changed: Callable[[FleetDevice], None],
        same_worker: Callable[[FleetDevice], str | None],
    ) -> None:
        self.name = worker.device.name
        self.health = Health(UNKNOWN, "not reached yet", now())
        self.instance: str | None = None
        self.running = self.requests = self.failures = 0
        self._image = np.zeros((1, *image_shape), np.uint8)
        self._changed, self._same_worker = changed, same_worker
        self.use_worker(worker, slices)
        self._estimates = SliceEstimates()
        # Expected milliseconds of all that runs, and since when it is at the first of it.
        self._expected_ms, self._begun = 0.0, 0.0
        self._measuring: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()

    def use_worker(self, worker: RemoteWorker, slices: Mapping[str, RemoteSlice]) -> None:
        """Asks this worker from now on, for these slices by model name; requests to the one before it may still be
        answered."""
        self.worker, self._slices = worker, slices

    @property
    def url(self) -> str:
        return self.worker.device.url

    @property
    def revision(self) -> int:
        """Another number after each change of what it can do, and each doubt of how long it takes."""
        return self._estimates.revision

    @property
    def latencies(self) -> Mapping[str, float]:
        """Expected milliseconds by the slice models that it serves now."""
        return self._estimates.latencies if self.health.state == UP else {}

    @property
    def busy_ms(self) -> float:
        """Milliseconds of work that it is expected to have before it."""
        return max(0.0, self._expected_ms - (now() - self._begun) * 1e3) if self.running else 0.0

    def invocation_ms(self, model: str) -> float:
        """Milliseconds for which one image of a slice is expected to keep it from other requests."""
        return self._estimates.invocation_ms(model)

    def infer(self, model: str, images: np.ndarray, timeout_s: float) -> asyncio.Task[Partial]:
        """Asks for a slice, which is work before the device from now on: whoever plans next takes it into account.

        The task raises `DeviceError`; the device is then down unless it was only busy, slow, or unable to have this
        slice.
        """
        self.requests += 1
        # It is not slow for what it was asked before.
        started = now() + self.busy_ms / 1e3
        end = self._begin(model, len(images))
        task = asyncio.ensure_future(self._infer(model, images, timeout_s, started))
        # Not in what the task runs: one that is cancelled at once never begins.
        task.add_done_callback(lambda task: end())
        return task

    async def _infer(self, model: str, images: np.ndarray, timeout_s: float, started: float) -> Partial:
        try:
            answer = await self._slices[model].infer(images, timeout_s)
        except asyncio.CancelledError:
            self._estimates.raise_to(model, (now() - started) * 1e3 / len(images))
            raise
        except DeviceError as error:
            self.failures += 1
            if error.status == 504:
                self._estimates.raise_to(model, (now() - started) * 1e3 / len(images))
                self.doubt(model)
            elif error.unable:
                self._estimates.set_unable([model])
                if not self.latencies:
                    self._set_health(DOWN, str(error))
            elif not error.busy:
                self._set_health(DOWN, str(error))
                self._look_now.set()
            raise
        finally:
            self._estimates.used = now()
        self._estimates.add(model, answer, len(images))
        return answer

    def _begin(self, model: str, images: int) -> Callable[[], None]:
        """It has so many images of a slice before it from now on; returns what is to be called when it has not any
        more."""
        expected_ms = self.invocation_ms(model) * images
        if not self.running:
            self._begun = now()
        self.running += 1
        self._expected_ms += expected_ms

        def end() -> None:
            self.running -= 1
            self._expected_ms -= expected_ms
            self._begun = now()

        return end

    def leave(self) -> None:
        """It is of the cluster no more: what becomes of requests it still has is nobody's news."""
        self._changed = lambda device: None

    def doubt(self, model: str) -> None:
        """Has it looked at now, and a slice measured anew, since that takes longer than expected."""
        self._estimates.doubt(model)
        self._look_now.set()

    async def watch(self) -> None:
        """Keeps the state true until it is cancelled."""
        retry_s = _FIRST_RETRY_S
        try:
            while True:
                try:
                    await self._look()
                except Exception as error:
                    # Whatever it was, the device is not given up for ever.
                    self._note_failed_look(error)
                    await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))
                    retry_s = min(2 * retry_s, _LAST_RETRY_S)
                    continue
                retry_s = _FIRST_RETRY_S
                # A failed request makes the next look come at once, but not more often than a retry would.
                with contextlib.suppress(asyncio.exceptions.TimeoutError):
                    await asyncio.wait_for(self._look_now.wait(), _WATCH_S)
                    self._look_now.clear()
                    if self.health.state == UP:
                        await asyncio.sleep(_FIRST_RETRY_S * random.uniform(0.5, 1.5))
        finally:
            self._stop_measuring()

    async def _look(self) -> None:
        is_up = self.health.state == UP
        instance = await (self._still_there() if is_up else self.worker.alive(_CHECK_S))
        if not is_up or instance != self.instance:
            # Where it is up it was restarted between two looks, perhaps with other slices.
            self.instance = instance
            try:
                await self._find_slices()
            except BaseException:
                # At the next look once more.
                self.instance = None
                raise
        if not is_up:
            # Twice, since a worker may load it at the first.
            await self._measure(self._estimates.sizes_to_meet(), 2)
            self._set_health(UP, "")
        if self._measuring is None or self._measuring.done():
            names = self._estimates.due(self.running)
            if names:
                # Beside the watch, since a slow board may take longer than the news that it is gone.
                self._measuring = asyncio.create_task(self._measure_beside(names), name=f"measure {self.name}")

    async def _still_there(self) -> str | None:
        """As `RemoteWorker.alive`. Asked twice where the answer is slow: it may be this machine that stood still."""
        try:
            return await self.worker.alive(_ALIVE_S)
        except DeviceError as error:
            if error.status != 504:
                raise
            return await self.worker.alive(_ALIVE_S)

    async def _find_slices(self) -> None:
        """Finds out what it serves, of this bundle and for this device alone, each checked. Raises `DeviceError`."""
        other = self._same_worker(self)
        if other is not None:
            raise self.worker.wrong(
                f"it is the worker of device {other} too; legal: a worker of its own for each device", ASKING_LIFE
            )
        slices = self._slices
        names = await self.worker.served(_CHECK_S)
        served = [slice_ for name, slice_ in slices.items() if name in names]
        if not served:
            others = ", ".join(names[:8]) or "none"
            raise self.worker.wrong(f"it serves none of the slices wanted of it; its models: {others}", ASKING_MODELS)
        for slice_ in served:
            await slice_.check(_CHECK_S)
        self._estimates.serve([slice_.model for slice_ in served])

    async def _measure_beside(self, names: Sequence[str]) -> None:
        try:
            await self._measure([names], 1)
        except Exception as error:
            # Nobody awaits it, so an error of any kind would go unseen.
            self._note_failed_look(error)

    async def _measure(self, sizes: Sequence[Sequence[str]], times: int) -> None:
        """Measures one slice of each size so many times; the last counts. Raises `DeviceError`; that of a slice that it
        cannot have, or has no time for, only where nothing else is left."""
        refused: DeviceError | None = None
        for names in sizes:
            try:
                for _ in range(times):
                    end = self._begin(names[0], 1)
                    try:
                        answer = await self._slices[names[0]].infer(self._image, _MEASURE_S)
                    finally:
                        end()
            except DeviceError as error:
                refused = error
                if error.unable:
                    self._estimates.set_unable(names)
                elif error.busy:
                    # Soon again, whatever there is to do.
                    self._estimates.doubt(names[0])
                else:
                    raise
                continue
            self._estimates.set_measured(names, answer)
        if refused is not None and not self._estimates.latencies:
            raise refused

    def _stop_measuring(self) -> None:
        if self._measuring is not None and self._measuring is not asyncio.current_task():
            self._measuring.cancel()

    def _note_failed_look(self, error: Exception) -> None:
        """Looking at it or measuring it gave an error."""
        if not isinstance(error, DeviceError):
            logging.error("device %s could not be looked at", self.name, exc_info=error)
            self._set_health(DOWN, f"{self.worker.device.named}: {type(error).__name__} while looking at it.")
        elif self.health.state != UP or not error.busy:
            self._set_health(DOWN, str(error))

    def _set_health(self, state: str, reason: str) -> None:
        before = self.health
        if state == DOWN:
            # Whoever else is this worker may take its place.
            self.instance = None
            self._stop_measuring()
        if (before.state, before.reason) != (state, reason):
            self.health = Health(state, reason, before.since if before.state == state else now())
            self._estimates.revision += 1
            if before.state != state:
                self._changed(self)
