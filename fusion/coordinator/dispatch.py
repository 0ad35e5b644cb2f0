"""One request on its way through the fleet: sent by a plan, sent anew where devices fail or are slow, fused in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..bundle.contents import SwitchEntry
from ..protocol.oip import OipError
from ..rules.early import IsSettled
from . import planner
from .devices import FleetDevice
from .estimates import now
from .fleet import Fleet
from .planner import Goal, Plan
from .remote import DeviceError, Partial

# A device is taken for slow after twice what was expected of it, and this.
_PATIENCE, _PATIENCE_MS = 2.0, 20.0
# Nor is it waited for so long that the fastest plan could not be run instead; what is expected of that is no promise.
_FALLBACK_TIMES = 1.5

RETRY = {"Retry-After": "1"}
"""What a refusal for the time being tells the client."""


@dataclass(frozen=True)
class Arrival:
    """A slice's outputs, and the device they come from."""

    device: str
    url: str
    partial: Partial

    @property
    def ms(self) -> float:
        """Milliseconds from sending the request to having the answer."""
        return (self.partial.received - self.partial.sent) * 1e3


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
        return tuple(number for number in range(len(self.entry.slices)) if number not in self.arrivals)

    @property
    def degraded(self) -> bool:
        """Whether slices are missing that might have changed the answer."""
        return bool(self.missing) and not self.early

    @property
    def kind(self) -> str:
        """`early`, `degraded` or `whole`."""
        return "early" if self.early else "degraded" if self.missing else "whole"


@dataclass(frozen=True)
class _Sent:
    """A slice that a device was asked for, and when its answer is expected."""

    entry: SwitchEntry
    slice: int
    device: FleetDevice
    expected: float


class Dispatch:
    """One request: uint8 images (N, height, width, channels), for which these seconds are left from now on.

    A failing or slow device does not fail the request: its slices go to others, or another switch is run on them,
    whichever is the more accurate in the time that is left. At the deadline what has arrived is fused, of the one
    switch of which that is expected to be the most accurate. Without `is_settled`, every slice is waited for.

    Attributes:
      failures: of devices.
      late: the devices of answers that came too late or were not waited for.
      retries: how often slices were sent anew.
    """

    def __init__(
        self, fleet: Fleet, images: np.ndarray, goal: Goal, seconds: float, is_settled: IsSettled | None
    ) -> None:
        self._fleet, self._images, self._goal = fleet, images, goal
        self._deadline = now() + seconds
        self._is_settled = is_settled
        self._running: dict[asyncio.Task[Partial], _Sent] = {}
        self._arrived: dict[str, dict[int, Arrival]] = {}
        self._entries: dict[str, SwitchEntry] = {}
        # Devices that failed this request or were too slow for it.
        self._avoided: set[str] = set()
        # When those that have not answered are taken for slow.
        self._patience_ends = 0.0
        self._fastest_ms = 0.0
        self.failures: list[DeviceError] = []
        self.late: list[str] = []
        self.retries = 0

    async def run(self) -> Outcome:
        """Returns what arrived in time.

        Raises `OipError`: 503 when no switch can be run, or not in time for the work that the devices have before them;
        504 when nothing has arrived by the deadline.
        """
        plan = self._first_plan()
        self._send(plan.entry, range(len(plan.devices)), plan.devices, plan.latency_ms)
        try:
            while (left := self._deadline - now()) > 0 and self._running:
                wait_s = min(left, max(0.0, self._patience_ends - now()))
                await asyncio.wait(self._running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                has_failed = not all([self._take_in(task) for task in list(self._running) if task.done()])
                outcome = self._finished()
                if outcome is not None:
                    return outcome
                if has_failed or now() >= self._patience_ends:
                    self._recover()
        finally:
            await self._cancel_running()
        return self._best()

    def _first_plan(self) -> Plan:
        count, goal = len(self._images), replace(self._goal, deadline_ms=self._left_ms())
        decision = self._fleet.decide(goal, count)
        plan = decision.chosen
        if plan is None:
            raise OipError(503, self._fleet.no_plan(), RETRY)
        if plan.latency_ms > goal.deadline_ms:
            idle = self._fleet.decide(goal, count, idle=True).chosen
            if idle is not None and idle.latency_ms <= goal.deadline_ms:
                raise OipError(
                    503, f"the devices have {plan.latency_ms:.0f} ms of work before them; try again later.", RETRY
                )
        self._fastest_ms = min(plan.latency_ms for plan in decision.plans)
        return plan

    def _left_ms(self) -> float:
        return (self._deadline - now()) * 1e3

    def _send(self, entry: SwitchEntry, slices: Sequence[int], devices: Sequence[str], expected_ms: float) -> None:
        """Asks devices for slices of a switch, and gives them the time that is expected and some more."""
        self._entries[entry.switch] = entry
        for number, name in zip(slices, devices, strict=True):
            device = self._fleet.device(name)
            if device is None:
                continue
            answer = device.infer(entry.slices[number].model, self._images, max(0.001, self._left_ms() / 1e3))
            self._running[answer] = _Sent(entry, number, device, now() + expected_ms / 1e3)
        most_ms = max(1.1 * expected_ms, self._left_ms() - _FALLBACK_TIMES * self._fastest_ms)
        self._patience_ends = now() + min(_PATIENCE * expected_ms + _PATIENCE_MS, most_ms) / 1e3

    def _take_in(self, task: asyncio.Task[Partial]) -> bool:
        """Takes in what became of a request to a device; returns whether it has answered."""
        sent = self._running.pop(task)
        error = task.exception()
        if isinstance(error, DeviceError):
            self._avoided.add(sent.device.name)
            self.failures.append(error)
            return False
        if error is not None:
            raise error
        arrivals = self._arrived.setdefault(sent.entry.switch, {})
        arrivals.setdefault(sent.slice, Arrival(sent.device.name, sent.device.url, task.result()))
        return True

    def _finished(self) -> Outcome | None:
        for switch, arrivals in self._arrived.items():
            entry = self._entries[switch]
            if len(arrivals) == len(entry.slices):
                return self._outcome(entry, early=False)
            if self._is_settled is not None:
                contributions = {number: arrival.partial.outputs for number, arrival in arrivals.items()}
                if self._is_settled(entry, contributions):
                    return self._outcome(entry, early=True)
        return None

    def _recover(self) -> None:
        """Sends what does not come, of the switch that runs or of another, to devices that do not keep it waiting."""
        for sent in self._running.values():
            if now() >= self._patience_ends and sent.device.name not in self._avoided:
                self._avoided.add(sent.device.name)
                sent.device.doubt(sent.entry.slices[sent.slice].model)
        left_ms = self._left_ms()
        plans, _ = self._fleet.plans(len(self._images), self._avoided)
        options = self._completions()
        options += [(plan, range(len(plan.devices))) for plan in plans if plan.entry.switch not in self._entries]
        in_time = [option for option in options if option[0].latency_ms <= left_ms]
        if not in_time:
            # Nothing better than to wait for what still runs.
            self._patience_ends = self._deadline
            if self._running or not options:
                return
            in_time = [min(options, key=lambda option: option[0].latency_ms)]
        plan, slices = max(in_time, key=lambda option: (*option[0].rank, -option[0].latency_ms))
        if slices:
            self.retries += 1
        self._send(plan.entry, slices, plan.devices, plan.latency_ms)

    def _completions(self) -> list[tuple[Plan, Sequence[int]]]:
        """For each switch that runs: a plan for the slices that have not come and run on no device but avoided ones,
        and their numbers."""
        completions: list[tuple[Plan, Sequence[int]]] = []
        latencies = self._fleet.latencies(len(self._images), self._avoided)
        for switch, entry in self._entries.items():
            waiting = [
                sent
                for sent in self._running.values()
                if sent.entry.switch == switch and sent.device.name not in self._avoided
            ]
            covered = {sent.slice for sent in waiting} | set(self._arrived.get(switch, ()))
            slices = [number for number in range(len(entry.slices)) if number not in covered]
            assigned = planner.assign([entry.slices[i].model for i in slices], latencies, self._fleet.busy())
            if assigned is None:
                continue
            devices, latency_ms = assigned
            latest_ms = max([latency_ms, *((sent.expected - now()) * 1e3 for sent in waiting)])
            completions.append((Plan(entry, devices, latest_ms, self._fleet.accuracy(entry)), slices))
        return completions

    def _best(self) -> Outcome:
        """What has arrived of the switch of which that is worth most."""
        if not self._arrived:
            if self.failures:
                error = self.failures[-1]
                raise OipError(error.status, str(error), RETRY if error.status == 503 else None)
            raise OipError(504, f"no device has answered within {self._goal.deadline_ms:g} ms.")
        outcomes = [self._outcome(self._entries[switch], early=False) for switch in self._arrived]
        return max(
            outcomes,
            key=lambda outcome: (
                -1.0 if outcome.accuracy is None else outcome.accuracy,
                sum(outcome.entry.slices[number].madds for number in outcome.arrivals),
            ),
        )

    def _outcome(self, entry: SwitchEntry, early: bool) -> Outcome:
        arrivals = dict(sorted(self._arrived[entry.switch].items()))
        return Outcome(entry, arrivals, early, self._fleet.accuracy(entry, None if early else arrivals))

    async def _cancel_running(self) -> None:
        if not self._running:
            return
        for task, sent in self._running.items():
            self.late.append(sent.device.name)
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()
