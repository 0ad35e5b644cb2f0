"""All devices of a cluster together: who is there, and the plan for the next request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..bundle.contents import Bundle, SwitchEntry
from ..cluster.file import Device
from . import assignment, planner
from .assignment import Latencies
from .devices import UNKNOWN, UP, FleetDevice
from .estimates import now
from .planner import Decision, Goal, Plan
from .remote import RemoteSlice, RemoteWorker

Link = tuple[RemoteWorker, Mapping[str, RemoteSlice]]
"""What a device is reached by: its worker, and that for each slice that may be run, by model name."""
Connect = Callable[[Device], Link]
"""Gives what a device of the cluster file is reached by.

Raises `UserError` when its token or TLS files are unfit. Reading them takes a while on a board, so it is called in a
thread."""

_Plans = tuple[list[Plan], dict[str, str]]
# For how long another switch has to be expected to be much faster before it takes the place of the one that runs: for
# longer than it takes to measure a slice anew, or each late answer would change the switch.
_HOLD_S = 10.0
# How many plans are told for requests that come meanwhile. Each takes as long as planning a request.
_MOST_MEANWHILE = 4
# Seconds that a plan is kept, though what is expected of devices changes a little with every answer.
_PLANS_S = 0.1


def connect_by_http(
    bundle: Bundle, entries: Sequence[SwitchEntry], precision: str, connect_timeout_s: float, max_batch: int
) -> Connect:
    """Reaches devices as workers over HTTP, each for any slice of these switches."""

    def connect(device: Device) -> Link:
        worker = RemoteWorker(device, connect_timeout_s)
        return worker, {
            slice_.model: RemoteSlice(worker, bundle, entry.switch, slice_, precision, max_batch)
            for entry in entries
            for slice_ in entry.slices
        }

    return connect


class Fleet:
    """The devices of a cluster, watched while the `async with` block runs.

    The switches `entries` may be run, of the files of this `precision`, on images of (height, width, channels)
    `image_shape`. What is kept running follows `goal` alone; requests may have others. `changed` is called with a
    device whose state has changed.
    """

    def __init__(
        self,
        entries: Sequence[SwitchEntry],
        precision: str,
        goal: Goal,
        image_shape: Sequence[int],
        connect: Connect,
        changed: Callable[[FleetDevice], None],
    ) -> None:
        self.entries, self.precision, self.goal = tuple(entries), precision, goal
        self._image_shape, self._connect, self._changed = tuple(image_shape), connect, changed
        self._devices: dict[str, FleetDevice] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        # By the number of images: the devices' revisions, when it was, and the plans.
        self._plans: dict[int, tuple[Any, float, _Plans]] = {}
        # The switch that devices without other work were last to run for the own goal, None until all devices have been
        # met once, and since when another is expected to be much faster.
        self._switch: str | None = None
        self._much_faster_since: float | None = None
        self._accuracies = {
            (entry.switch, answering): accuracy
            for entry in self.entries
            for answering, accuracy in entry.accuracies(precision).items()
        }

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
        retired = [self._remove(name) for name in went] + [self._use(name, link) for name, link in links.items()]
        self._devices = {name: self._devices[name] for name in members}
        for worker in filter(None, retired):
            await worker.close()
        return came, went

    def _remove(self, name: str) -> RemoteWorker:
        """Takes a device out; returns its worker, which is to be closed."""
        self._watches.pop(name).cancel()
        device = self._devices.pop(name)
        device.leave()
        return device.worker

    def _use(self, name: str, link: Link) -> RemoteWorker | None:
        """Has a device, known or new, reached by this from now on, and watched; returns what it was reached by."""
        device, before = self._devices.get(name), None
        if device is None:
            device = self._devices[name] = FleetDevice(*link, self._image_shape, self._changed, self._other_of_worker)
        else:
            before = device.worker
            # If it was turned down for its old token, it is looked at now.
            self._watches[name].cancel()
            device.use_worker(*link)
        self._watches[name] = asyncio.create_task(device.watch(), name=f"watch {name}")
        return before

    def _other_of_worker(self, device: FleetDevice) -> str | None:
        """The name of another device that has the same worker."""
        if device.instance is None:
            return None
        others = (other for other in self.devices if other is not device)
        return next((other.name for other in others if other.instance == device.instance), None)

    async def met(self) -> None:
        """Returns when every device has been reached, or could not be."""
        while not self._all_met:
            await asyncio.sleep(0.01)

    @property
    def _all_met(self) -> bool:
        return all(device.health.state != UNKNOWN for device in self.devices)

    def decide(self, goal: Goal, images: int = 1, idle: bool = False) -> Decision:
        """What to run for a request of so many images; with `idle`, as if no device had work before it."""
        # On what others have left it a request runs at once what is much faster there.
        hold = not any(self.busy().values()) and self._holds()
        return planner.choose(*self.plans(images, idle=idle), goal, self._switch, hold)

    def _holds(self) -> bool:
        """Follows what is run for the fleet's own goal while no device has work; returns whether that is kept however
        much faster another is."""
        if self._switch is None and not self._all_met:
            return False
        plans = self.plans(1)
        chosen = planner.choose(*plans, self.goal, self._switch).chosen
        if chosen is None:
            return False
        if chosen.entry.switch == self._switch:
            self._much_faster_since = None
            return False
        if self._much_faster_since is None:
            self._much_faster_since = now()
        hold = now() < self._much_faster_since + _HOLD_S
        chosen = planner.choose(*plans, self.goal, self._switch, hold).chosen
        if chosen is not None and chosen.entry.switch != self._switch:
            self._switch, self._much_faster_since = chosen.entry.switch, None
        return hold

    def meanwhile(self, goal: Goal, decision: Decision) -> list[Plan]:
        """What requests run that come together with one for which this was decided, on devices that have no other work
        then; of many the first few."""
        plans: list[Plan] = []
        busy, latencies = dict(self.busy()), self.latencies()
        taken = {name for name, ms in busy.items() if ms}
        while decision.chosen is not None and len(plans) <= _MOST_MEANWHILE:
            plan = decision.chosen
            if plan.latency_ms > goal.deadline_ms or (plans and not taken.isdisjoint(plan.devices)):
                break
            plans.append(plan)
            for slice_, name in zip(plan.entry.slices, plan.devices, strict=True):
                if name:
                    taken.add(name)
                    busy[name] += self._devices[name].invocation_ms(slice_.model)
            others = assignment.best_plans(self.entries, self.accuracy, latencies, busy)
            decision = planner.choose(*others, goal, self._switch)
        return plans[1:]

    def plans(self, images: int, without: Collection[str] = (), idle: bool = False) -> _Plans:
        """The best plan of each switch on the devices that are up but these, and why other switches have none."""
        busy = {} if idle else self.busy()
        if without or any(busy.values()):
            return assignment.best_plans(self.entries, self.accuracy, self.latencies(images, without), busy)
        # While no device has work before it, recent ones, where nothing has changed.
        revisions = tuple((device.name, device.revision) for device in self._devices.values())
        kept = self._plans.get(images)
        if kept is not None and kept[0] == revisions and now() - kept[1] < _PLANS_S:
            return kept[2]
        plans = assignment.best_plans(self.entries, self.accuracy, self.latencies(images), {})
        self._plans[images] = revisions, now(), plans
        return plans

    def accuracy(self, entry: SwitchEntry, slices: Collection[int] | None = None) -> float | None:
        """That of a switch with only these slices answering, or all, by the verification of the bundle and in its
        metric; None where the bundle was not verified, and for no slice."""
        answering = range(len(entry.slices)) if slices is None else slices
        return self._accuracies.get((entry.switch, frozenset(answering)))

    def latencies(self, images: int = 1, without: Collection[str] = ()) -> Latencies:
        """Of the devices that are up but these, for so many images."""
        latencies: dict[str, dict[str, float]] = {}
        for device in self.devices:
            if device.name not in without:
                for model, ms in device.latencies.items():
                    latencies.setdefault(model, {})[device.name] = ms * images
        return latencies

    def busy(self) -> Mapping[str, float]:
        """Milliseconds of work before each device."""
        return {device.name: device.busy_ms for device in self.devices}

    def no_plan(self) -> str:
        """That no switch can be run, and why the devices that are not up are not, a sentence each."""
        reasons = [device.health.reason for device in self.devices if device.health.state != UP]
        return " ".join(["no switch can be run.", *reasons])
