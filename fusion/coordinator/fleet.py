"""All devices of a cluster together: who is there, and the plan for the next request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..bundle.contents import Bundle, SwitchEntry
from ..cluster.file import Device
from . import planner
from .devices import UNKNOWN, UP, FleetDevice
from .planner import Decision, Goal, Plan, Rejected
from .remote import RemoteWorker

# What is expected of devices changes a little with every answer; for so long plans are not made anew for that.
_PLANS_S = 0.1


def expected_accuracy(entry: SwitchEntry, precision: str, slices: Collection[int]) -> float | None:
    """What the verification of a bundle found of a switch with only these slices answering, in its own metric.

    None where the bundle was not verified, and for no slice.
    """
    for one in (entry.accuracy or {}).get("live_subsets", ()):
        if set(one["devices"]) == set(slices):
            found = one["exported"].get(precision)
            return None if found is None else float(found)
    return None


class Fleet:
    """The devices of a cluster, watched while the `async with` block runs.

    Args:
      bundle, precision: what they serve.
      entries: the switches that may be run.
      connect_timeout_s, max_batch: as of `RemoteWorker` and `RemoteSlice`.
      changed: is called with a device whose state or latencies have changed.
    """

    def __init__(
        self,
        bundle: Bundle,
        entries: Sequence[SwitchEntry],
        precision: str,
        connect_timeout_s: float,
        max_batch: int,
        changed: Callable[[FleetDevice], None],
    ) -> None:
        self.entries, self.precision = tuple(entries), precision
        self._bundle, self._connect_s, self._max_batch = bundle, connect_timeout_s, max_batch
        self._changed = changed
        self._devices: dict[str, FleetDevice] = {}
        self._known: dict[str, Device] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        # By the number of images: the devices' revisions, when it was, and what was found.
        self._plans: dict[int, tuple[Any, float, tuple[tuple[Plan, ...], tuple[Rejected, ...]]]] = {}

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.update(())

    @property
    def devices(self) -> tuple[FleetDevice, ...]:
        """In the order of the cluster file."""
        return tuple(self._devices.values())

    def device(self, name: str) -> FleetDevice | None:
        """The device of that name, if the cluster has it."""
        return self._devices.get(name)

    async def update(self, devices: Sequence[Device], renew: bool = False) -> tuple[list[str], list[str]]:
        """Makes these the devices; those that stay as they are keep what is known of them.

        With `renew`, the tokens and certificates of those are read anew too. Returns the names of those that came, and
        of those that went. Raises `UserError`, with nothing changed, when the token or TLS files of one are unfit.
        """
        wanted = {device.name: device for device in devices}
        came = [name for name, device in wanted.items() if self._known.get(name) != device]
        # Reading certificates takes a while, on a board.
        called = [name for name in wanted if renew or name in came]
        workers = {name: await asyncio.to_thread(RemoteWorker, wanted[name], self._connect_s) for name in called}
        made = {name: self._made(workers.pop(name)) for name in came}
        went = [name for name in self._known if name in made or name not in wanted]
        for name in went:
            self._watches.pop(name).cancel()
            self._devices[name].leave()
            self._devices[name].worker.close()
        self._devices = {name: made.get(name) or self._devices[name] for name in wanted}
        self._known = wanted
        for name, worker in workers.items():
            self._devices[name].worker.close()
            self._devices[name].call(worker)
            # One that was turned down for the old token is looked at now.
            self._watches[name].cancel()
        for name in called:
            self._watches[name] = asyncio.create_task(self._devices[name].watch(), name=f"watch {name}")
        return came, went

    def _made(self, worker: RemoteWorker) -> FleetDevice:
        return FleetDevice(
            worker, self._bundle, self.entries, self.precision, self._max_batch, self._changed, self._same
        )

    def _same(self, device: FleetDevice) -> str | None:
        others = (one for one in self.devices if one is not device and one.instance is not None)
        return next((one.name for one in others if one.instance == device.instance), None)

    async def met(self) -> None:
        """Returns when every device has been reached, or could not be."""
        while any(device.health.state == UNKNOWN for device in self.devices):
            await asyncio.sleep(0.01)

    def decide(self, goal: Goal, images: int = 1, without: Collection[str] = (), idle: bool = False) -> Decision:
        """The plan for a request, on the devices that are up.

        Args:
          goal: what to choose for.
          images: how many images it has.
          without: names of devices to leave out.
          idle: whether to plan as if no device had work before it.
        """
        busy = {} if idle else self.busy()
        if not without and not any(busy.values()):
            return planner.choose(*self._idle_plans(images), goal)
        return planner.decide(self.entries, self.accuracy, self.latencies(images, without), busy, goal)

    def _idle_plans(self, images: int) -> tuple[tuple[Plan, ...], tuple[Rejected, ...]]:
        """The best plan of each switch while no device has work before it; a recent one, where nothing has changed."""
        revisions = tuple((device.name, device.revision) for device in self._devices.values())
        now, kept = time.monotonic(), self._plans.get(images)
        if kept is not None and kept[0] == revisions and now - kept[1] < _PLANS_S:
            return kept[2]
        plans = planner.best_plans(self.entries, self.accuracy, self.latencies(images), {})
        self._plans[images] = revisions, now, plans
        return plans

    def accuracy(self, entry: SwitchEntry) -> float | None:
        """Of a whole switch; see `expected_accuracy`."""
        return expected_accuracy(entry, self.precision, range(len(entry.slices)))

    def latencies(self, images: int = 1, without: Collection[str] = ()) -> planner.Latencies:
        """Of the devices that are up, for so many images."""
        return {
            (device.name, model): ms * images
            for device in self.devices
            if device.health.state == UP and device.name not in without
            for model, ms in device.latencies.items()
        }

    def busy(self) -> Mapping[str, float]:
        """Milliseconds of work before each device."""
        return {device.name: device.busy_ms for device in self.devices}

    def reasons(self) -> str:
        """Why the devices that are not up are not, a sentence each."""
        return " ".join(device.health.reason for device in self.devices if device.health.state != UP)
