"""One request on its way through the fleet: sent by a plan, sent anew where devices fail or are slow, fused in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..bundle.contents import SwitchEntry
from ..protocol.oip import OipError
from ..rules.sum import fuse
from . import planner
from .devices import FleetDevice
from .fleet import Fleet, expected_accuracy
from .planner import Goal, Plan
from .remote import DeviceError, Partial

Settled = Callable[[SwitchEntry, np.ndarray, frozenset[int]], bool]
"""Whether the summed outputs, (N, ...), of these slices of a switch decide the answer."""

# A device is taken for slow after twice what was expected of it, and this.
_PATIENCE, _PATIENCE_MS = 2.0, 20.0
# Nor is it waited for so long that the fastest plan could not be run instead; what is expected of that is no promise.
_FALLBACK_PARTS = 1.5
# What is left for sending the answer.
_MARGIN_S = 0.004

RETRY = {"Retry-After": "1"}
"""What a refusal for the time being tells the client."""


@dataclass(frozen=True)
class Arrival:
    """A slice's outputs, and the device they come from."""

    device: str
    url: str
    partial: Partial


@dataclass(frozen=True)
class Outcome:
    """What arrived of one switch.

    Attributes:
      entry: the switch.
      arrivals: by slice number; never empty.
      early: whether it was decided before the missing slices could answer.
      accuracy: what is expected of such an answer, in the metric of the bundle's verification; None if that is unknown.
    """

    entry: SwitchEntry
    arrivals: Mapping[int, Arrival]
    early: bool
    accuracy: float | None

    @property
    def missing(self) -> tuple[int, ...]:
        """The slices that are not in the answer."""
        return tuple(part.device for part in self.entry.slices if part.device not in self.arrivals)

    @property
    def degraded(self) -> bool:
        """Whether slices are missing that might have changed the answer."""
        return bool(self.missing) and not self.early


@dataclass
class Events:
    """What happened on the way, for metrics and the log: failures by device, how many answers came too late or were not
    waited for by device, and how often slices were sent anew."""

    failures: list[tuple[str, DeviceError]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    retries: int = 0


@dataclass(frozen=True)
class _Sent:
    entry: SwitchEntry
    slice: int
    device: FleetDevice
    expected: float


class Dispatch:
    """One request.

    Args:
      fleet: the devices.
      images: uint8 (N, height, width, channels).
      goal: what to plan for; its deadline counts from `arrived`.
      arrived: `time.perf_counter()` at which the request did.
      settled: decides early answers; None waits for every slice.
      fuse_ms: how long making the answer of what arrives is expected to take.

    A failing or slow device does not fail the request: its slices go to others, or another switch is run on them,
    whichever is the more accurate in the time that is left. At the deadline what has arrived is fused, of the one
    switch of which that is expected to be the most accurate.
    """

    def __init__(
        self,
        fleet: Fleet,
        images: np.ndarray,
        goal: Goal,
        arrived: float,
        settled: Settled | None,
        fuse_ms: float = 0.0,
    ) -> None:
        self._fleet, self._images, self._goal = fleet, images, goal
        self._deadline = arrived + (goal.deadline_ms - fuse_ms) / 1e3 - _MARGIN_S
        self._settled = settled
        self._running: dict[asyncio.Task[Partial], _Sent] = {}
        # Of these, those that have ended and are not taken in; and what `run` waits for.
        self._ended: list[asyncio.Task[Partial]] = []
        self._awake: asyncio.Future[None] | None = None
        self._arrived: dict[str, dict[int, Arrival]] = {}
        self._entries: dict[str, SwitchEntry] = {}
        # Devices that failed this request or were too slow for it.
        self._avoided: set[str] = set()
        self._patience = 0.0
        self.events = Events()

    async def run(self) -> Outcome:
        """Returns what arrived in time.

        Raises `OipError`: 503 when no switch can be run, or not in time for the work that the devices have before them;
        504 when nothing has arrived by the deadline.
        """
        plan = self._first_plan()
        self._start(plan.entry, range(len(plan.devices)), plan.devices, plan.latency_ms)
        try:
            while (left := self._deadline - time.perf_counter()) > 0 and self._running:
                wait = min(left, max(0.0, self._patience - time.perf_counter()))
                await self._ends(wait)
                done, self._ended = self._ended, []
                failed = [sent for task in done if (sent := self._take(task)) is not None]
                outcome = self._finished()
                if outcome is not None:
                    return outcome
                if failed or time.perf_counter() >= self._patience:
                    self._recover()
        finally:
            await self._give_up()
        return self._best()

    def _first_plan(self) -> Plan:
        count = len(self._images)
        left = replace(self._goal, deadline_ms=(self._deadline - time.perf_counter()) * 1e3)
        decision = self._fleet.decide(left, count)
        plan = decision.chosen
        if plan is None:
            raise OipError(503, f"no switch can be run. {self._fleet.reasons()}".strip(), RETRY)
        if plan.latency_ms > left.deadline_ms:
            idle = self._fleet.decide(left, count, idle=True).chosen
            if idle is not None and idle.latency_ms <= left.deadline_ms:
                raise OipError(
                    503, f"the devices have {plan.latency_ms:.0f} ms of work before them; try again later.", RETRY
                )
        others = [one.plan.latency_ms for one in decision.rejected if one.plan is not None]
        self._fastest = min([plan.latency_ms, *others])
        return plan

    def _start(self, entry: SwitchEntry, slices: Sequence[int], devices: Sequence[str], expected_ms: float) -> None:
        now = time.perf_counter()
        self._entries[entry.switch] = entry
        for number, name in zip(slices, devices, strict=True):
            device = self._fleet.device(name)
            if device is None:
                continue
            asked = device.infer(entry.slices[number].model, self._images, max(0.001, self._deadline - now))
            task = asyncio.ensure_future(asked)
            task.add_done_callback(self._end)
            self._running[task] = _Sent(entry, number, device, now + expected_ms / 1e3)
        left_ms = (self._deadline - now) * 1e3
        wait_ms = min(
            _PATIENCE * expected_ms + _PATIENCE_MS, max(1.1 * expected_ms, left_ms - _FALLBACK_PARTS * self._fastest)
        )
        self._patience = now + wait_ms / 1e3

    async def _ends(self, wait_s: float) -> None:
        """Returns when there is something to decide by the requests that have ended, or after so many seconds.

        `asyncio.wait` would be woken by each of them.
        """
        if self._decides():
            return
        loop = asyncio.get_running_loop()
        self._awake = loop.create_future()
        timer = loop.call_later(wait_s, self._wake)
        try:
            await self._awake
        finally:
            timer.cancel()

    def _end(self, task: asyncio.Task[Partial]) -> None:
        if not task.cancelled():
            self._ended.append(task)
            if self._decides():
                self._wake()

    def _decides(self) -> bool:
        """Whether what has ended may be enough: all of a first plan is, some of it where early answers are decided or
        after a failure."""
        if len(self._ended) < len(self._running) and self._settled is None and not self._avoided:
            return any(task.exception() is not None for task in self._ended)
        return bool(self._ended)

    def _wake(self) -> None:
        if self._awake is not None and not self._awake.done():
            self._awake.set_result(None)

    def _take(self, task: asyncio.Task[Partial]) -> _Sent | None:
        """Takes an answer in; returns what was sent if it failed."""
        sent = self._running.pop(task)
        error = task.exception()
        if isinstance(error, DeviceError):
            self._avoided.add(sent.device.name)
            self.events.failures.append((sent.device.name, error))
            return sent
        if error is not None:
            raise error
        arrivals = self._arrived.setdefault(sent.entry.switch, {})
        arrivals.setdefault(sent.slice, Arrival(sent.device.name, sent.device.url, task.result()))
        return None

    def _finished(self) -> Outcome | None:
        for switch, arrivals in self._arrived.items():
            entry = self._entries[switch]
            if len(arrivals) == len(entry.slices):
                return self._outcome(entry, early=False)
            if self._settled is not None and self._settled(entry, _sum(arrivals), frozenset(arrivals)):
                return self._outcome(entry, early=True)
        return None

    def _recover(self) -> None:
        """Sends what does not come, of the switch that runs or of another, to devices that do not keep it waiting."""
        for sent in self._running.values():
            if time.perf_counter() >= self._patience and sent.device.name not in self._avoided:
                self._avoided.add(sent.device.name)
                sent.device.doubt(sent.entry.slices[sent.slice].model)
        left_ms = (self._deadline - time.perf_counter()) * 1e3
        options = self._completions() + self._other_plans(left_ms)
        in_time = [option for option in options if option[0].latency_ms <= left_ms]
        if not in_time:
            # Nothing better than to wait for what still runs.
            self._patience = self._deadline
            if self._running or not options:
                return
            in_time = [min(options, key=lambda option: option[0].latency_ms)]
        plan, slices = max(in_time, key=lambda option: (*option[0].rank, -option[0].latency_ms))
        if slices:
            self.events.retries += 1
        self._start(plan.entry, slices, plan.devices, plan.latency_ms)

    def _completions(self) -> list[tuple[Plan, list[int]]]:
        """For each switch that runs: the plan for those of its slices that come from no device but an avoided one."""
        found = []
        latencies = self._fleet.latencies(len(self._images), self._avoided)
        for switch, entry in self._entries.items():
            here = set(self._arrived.get(switch, ()))
            waiting = [
                sent
                for sent in self._running.values()
                if sent.entry.switch == switch and sent.device.name not in self._avoided
            ]
            covered = here | {sent.slice for sent in waiting}
            slices = [part.device for part in entry.slices if part.device not in covered]
            assigned = planner.assign([entry.slices[i].model for i in slices], latencies, self._fleet.busy())
            if assigned is None:
                continue
            now = time.perf_counter()
            latest = max([assigned[1], *((sent.expected - now) * 1e3 for sent in waiting)])
            found.append((Plan(entry, assigned[0], latest, self._fleet.accuracy(entry)), slices))
        return found

    def _other_plans(self, left_ms: float) -> list[tuple[Plan, list[int]]]:
        goal = replace(self._goal, deadline_ms=max(0.0, left_ms))
        decision = self._fleet.decide(goal, len(self._images), self._avoided)
        plans = [decision.chosen, *(one.plan for one in decision.rejected)]
        return [
            (plan, list(range(len(plan.devices))))
            for plan in plans
            if plan is not None and plan.entry.switch not in self._entries
        ]

    def _best(self) -> Outcome:
        """What has arrived of the switch of which that is worth most."""
        if not self._arrived:
            if self.events.failures:
                _, error = self.events.failures[-1]
                raise OipError(error.status, str(error), RETRY if error.status == 503 else None)
            raise OipError(504, f"no device has answered within {self._goal.deadline_ms:g} ms.")
        outcomes = [self._outcome(self._entries[switch], early=False) for switch in self._arrived]
        return max(
            outcomes,
            key=lambda one: (
                -1.0 if one.accuracy is None else one.accuracy,
                sum(one.entry.slices[number].madds for number in one.arrivals),
            ),
        )

    def _outcome(self, entry: SwitchEntry, early: bool) -> Outcome:
        arrivals = dict(sorted(self._arrived[entry.switch].items()))
        whole = range(len(entry.slices))
        accuracy = expected_accuracy(entry, self._fleet.precision, whole if early else arrivals)
        return Outcome(entry, arrivals, early, accuracy)

    async def _give_up(self) -> None:
        for task, sent in self._running.items():
            self.events.late.append(sent.device.name)
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()


def _sum(arrivals: Mapping[int, Arrival]) -> np.ndarray:
    return fuse([arrivals[number].partial.outputs for number in sorted(arrivals)])
