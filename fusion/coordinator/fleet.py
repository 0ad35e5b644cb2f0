"""All devices of a cluster together: who is there, and the plan for the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..bundle.contents import Bundle, SwitchEntry
from ..cluster.file import Device
from . import planner
from .devices import UNKNOWN, UP, FleetDevice, SliceTransport, Transport
from .estimates import now
from .planner import Decision, Goal, Plan, Rejected
from .remote import RemoteSlice, RemoteWorker

Connect = Callable[[Device], tuple[Transport, Mapping[str, SliceTransport]]]
"""Gives what a device of the cluster file is reached by, as `FleetDevice` takes it.

Raises `UserError` when its token or TLS files are unfit. Reading them takes a while on a board, so it is called in a
thread."""

# Seconds that a plan is kept, though what is expected of devices changes a little with every answer.
_PLANS_S = 0.1


def connect_by_http(
    bundle: Bundle, entries: Sequence[SwitchEntry], precision: str, connect_timeout_s: float, max_batch: int
) -> Connect:
    """Reaches devices as workers over HTTP, each for any slice of these switches."""

    def connect(device: Device) -> tuple[Transport, Mapping[str, SliceTransport]]:
        worker = RemoteWorker(device, connect_timeout_s)
        return worker, {
            slice_.model: RemoteSlice(worker, bundle, entry.switch, slice_, precision, max_batch)
            for entry in entries
            for slice_ in entry.slices
        }

    return connect


def expected_accuracy(entry: SwitchEntry, precision: str, slices: Collection[int]) -> float | None:
    """The accuracy of a switch with only these slices answering, by the verification of the bundle and in its metric.

    None where the bundle was not verified, and for no slice.
    """
    for subset in (entry.accuracy or {}).get("live_subsets", ()):
        if set(subset["devices"]) == set(slices):
            accuracy = subset["exported"].get(precision)
            return None if accuracy is None else float(accuracy)
    return None


class Fleet:
    """The devices of a cluster, watched while the `async with` block runs.

    Args:
      entries, precision: the switches that may be run, and of which files.
      image_shape: (height, width, channels) of an image.
      connect: reaches a device.
      changed: is called with a device whose state or latencies have changed.
    """

    def __init__(
        self,
        entries: Sequence[SwitchEntry],
        precision: str,
        image_shape: Sequence[int],
        connect: Connect,
        changed: Callable[[FleetDevice], None],
    ) -> None:
        self.entries, self.precision = tuple(entries), precision
        self._image_shape, self._connect, self._changed = tuple(image_shape), connect, changed
        self._devices: dict[str, FleetDevice] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        # By the number of images: the devices' revisions, when it was, and the plans.
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
        members = {device.name: device for device in devices}
        known = {name: device.worker.device for name, device in self._devices.items()}
        came = [name for name in members if members[name] != known.get(name)]
        went = [name for name in known if known[name] != members.get(name)]
        links = {name: await asyncio.to_thread(self._connect, members[name]) for name in (members if renew else came)}
        retired = [self._devices[name].worker for name in known if name in went or name in links]
        for name in went:
            self._watches.pop(name).cancel()
            self._devices.pop(name).leave()
        for name, link in links.items():
            self._use(name, link)
        self._devices = {name: self._devices[name] for name in members}
        for worker in retired:
            await worker.close()
        return came, went

    def _use(self, name: str, link: tuple[Transport, Mapping[str, SliceTransport]]) -> None:
        """Has a device, known or new, reached by this from now on, and watched."""
        if name in self._devices:
            # If it was turned down for its old token, it is looked at now.
            self._watches[name].cancel()
            self._devices[name].use_worker(*link)
        else:
            self._devices[name] = FleetDevice(*link, self._image_shape, self._changed, self._other_of_worker)
        self._watches[name] = asyncio.create_task(self._devices[name].watch(), name=f"watch {name}")

    def _other_of_worker(self, device: FleetDevice) -> str | None:
        """The name of another device that has the same worker."""
        if device.instance is None:
            return None
        others = (other for other in self.devices if other is not device)
        return next((other.name for other in others if other.instance == device.instance), None)

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
        kept = self._plans.get(images)
        if kept is not None and kept[0] == revisions and now() - kept[1] < _PLANS_S:
            return kept[2]
        plans = planner.best_plans(self.entries, self.accuracy, self.latencies(images), {})
        self._plans[images] = revisions, now(), plans
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
