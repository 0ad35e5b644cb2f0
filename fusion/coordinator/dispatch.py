"""One request on its way through the fleet: sent by a plan, sent anew where devices fail or are slow, fused in time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..bundle.contents import SwitchEntry
from ..protocol.oip import OipError
from ..rules.early import IsSettled
from . import planner
from .assignment import assign
from .devices import FleetDevice
from .estimates import now
from .fleet import Fleet
from .planner import Goal, Plan
from .remote import DeviceError, Partial

# A device is not waited for so long that the fastest plan could not be run instead; what that is expected to take is no
# promise.
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
    """A slice that a device was asked for, when its answer is expected, and whether other devices were asked for slices
    of the switch before."""

    entry: SwitchEntry
    slice: int
    device: FleetDevice
    expected: float
    again: bool


_Option = tuple[Plan, Sequence[int]]
"""A plan that may be run, and the slices that are sent for it."""


class Dispatch:
    """One request: uint8 images (N, height, width, channels), for which these seconds are left from now on.

    A failing or slow device does not fail the request. Where what the others answer is accurate enough for the goal
    beside all that could still come, it is the answer. Else its slices go to others, or another switch is run on them,
    whichever is the more accurate in the time that is left. At the deadline what has arrived is fused, of the one
    switch of which that is expected to be the most accurate. Without `is_settled`, every slice is waited for that a
    device serves.

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
        # The slices of each switch that are an answer.
        self._wanted: dict[str, frozenset[int]] = {}
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
        self._send(plan, range(len(plan.devices)))
        try:
            while (left := self._deadline - now()) > 0 and self._running:
                wait_s = min(left, max(0.0, self._patience_ends - now()))
                await asyncio.wait(self._running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                has_failed = not all([self._take_in(task) for task in list(self._running) if task.done()])
                outcome = self._finished()
                if outcome is None and (has_failed or now() >= self._patience_ends):
                    self._recover()
                if outcome is None and self._avoided:
                    self._want_what_is_enough()
                    outcome = self._finished()
                if outcome is not None:
                    return outcome
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
        # What lacks slices is no plan to fall back on, unless it is what was chosen.
        whole_ms = (other.latency_ms for other in decision.plans if not other.missing)
        self._fastest_ms = min([plan.latency_ms, *whole_ms])
        return plan

    def _left_ms(self) -> float:
        return (self._deadline - now()) * 1e3

    def _send(self, plan: Plan, slices: Sequence[int], rivals: Sequence[Plan] = ()) -> None:
        """Asks a plan's devices for these slices, and gives them the time that is expected and some more. What they
        answer without the others is an answer where it is accurate enough beside the rivals."""
        entry, expected_ms, again = plan.entry, plan.latency_ms, plan.entry.switch in self._entries
        self._entries[entry.switch] = entry
        is_enough = plan in self._goal.accurate([plan, *rivals])
        self._wanted[entry.switch] = plan.answering if is_enough else frozenset(range(len(entry.slices)))
        for number in slices:
            # None serves the slice, or it has left the cluster.
            device = self._fleet.device(plan.devices[number])
            if device is None:
                continue
            answer = device.infer(entry.slices[number].model, self._images, max(0.001, self._left_ms() / 1e3))
            self._running[answer] = _Sent(entry, number, device, now() + expected_ms / 1e3, again)
        most_ms = max(1.1 * expected_ms, self._left_ms() - _FALLBACK_TIMES * self._fastest_ms)
        self._patience_ends = now() + min(planner.patience_ms(expected_ms), most_ms) / 1e3

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
            # First, since what the others cannot change is not worse without them, whatever became of these.
            if self._is_settled is not None and len(arrivals) < len(entry.slices):
                contributions = {number: arrival.partial.outputs for number, arrival in arrivals.items()}
                if self._is_settled(entry, contributions):
                    return self._outcome(entry, early=True)
            if self._wanted[switch] <= arrivals.keys():
                return self._outcome(entry, early=False)
        return None

    def _recover(self) -> None:
        """Is content with what comes, or sends the rest, of the switch that runs or of another, to devices that do not
        keep it waiting."""
        self._avoid_slow()
        comes = max(self._comes(self._avoided), key=lambda plan: plan.rank, default=None)
        options = self._options(comes)
        # What still runs may come too, however slow.
        rivals = [*self._comes(()), *(plan for plan, _ in options)]
        if comes is not None and comes in self._goal.accurate([comes, *rivals]):
            self._wanted[comes.entry.switch] = comes.answering
        elif options:
            self.retries += 1
            plan, slices = max(options, key=lambda option: (*option[0].rank, -option[0].latency_ms))
            self._send(plan, slices, rivals)
        elif now() >= self._patience_ends:
            # Nothing better than to wait for what still runs.
            self._patience_ends = self._deadline

    def _want_what_is_enough(self) -> None:
        """Makes an answer of what has come of a switch by all that were asked first and are not avoided, where that is
        accurate enough beside what may still come."""
        waited_for = {sent.entry.switch for sent in self._running.values() if self._is_waited_for(sent)}
        for switch in self._arrived.keys() - waited_for:
            entry, rivals = self._entries[switch], self._comes(())
            has_come = self._plan(entry, self._arrivals_of(entry), 0.0)
            if has_come in self._goal.accurate([has_come, *rivals]):
                self._wanted[switch] = has_come.answering

    def _is_waited_for(self, sent: _Sent) -> bool:
        return not sent.again and sent.device.name not in self._avoided

    def _avoid_slow(self) -> None:
        """Takes those for slow that have not answered in the time that they were given."""
        if now() < self._patience_ends:
            return
        for sent in self._running.values():
            if sent.device.name not in self._avoided:
                self._avoided.add(sent.device.name)
                sent.device.doubt(sent.entry.slices[sent.slice].model)

    def _options(self, comes: Plan | None) -> list[_Option]:
        """What may be sent in the time that is left and is better than what comes anyway; where nothing comes or runs,
        the fastest, however late."""
        left_ms = self._left_ms()
        plans, _ = self._fleet.plans(len(self._images), self._avoided)
        options = self._completions()
        options += [(plan, range(len(plan.devices))) for plan in plans if plan.entry.switch not in self._entries]
        if comes is not None:
            options = [option for option in options if option[0].rank > comes.rank]
        in_time = [option for option in options if option[0].latency_ms <= left_ms]
        if options and not in_time and comes is None and not self._running:
            in_time = [min(options, key=lambda option: option[0].latency_ms)]
        return in_time

    def _comes(self, without: Collection[str]) -> list[Plan]:
        """What is to come of each switch that runs, where that is anything: of the devices that were asked, but these,
        and what has arrived."""
        coming = ((entry, self._coming(entry, without)) for entry in self._entries.values())
        return [self._plan(entry, devices, 0.0) for entry, devices in coming if devices]

    def _completions(self) -> list[_Option]:
        """For each switch that runs: a plan with the slices that have not come and run on no device but avoided ones,
        and their numbers."""
        completions: list[_Option] = []
        latencies = self._fleet.latencies(len(self._images), self._avoided)
        for entry in self._entries.values():
            coming, models = self._coming(entry, self._avoided), [slice_.model for slice_ in entry.slices]
            slices = [number for number, model in enumerate(models) if number not in coming and latencies.get(model)]
            assigned = assign([models[number] for number in slices], latencies, self._fleet.busy())
            if not slices or assigned is None:
                continue
            devices, latency_ms = assigned
            waiting = [sent for sent in self._running.values() if sent.entry is entry and sent.slice in coming]
            latest_ms = max([latency_ms, *((sent.expected - now()) * 1e3 for sent in waiting)])
            plan = self._plan(entry, coming | dict(zip(slices, devices, strict=True)), latest_ms)
            completions.append((plan, slices))
        return completions

    def _coming(self, entry: SwitchEntry, without: Collection[str]) -> dict[int, str]:
        """By slice of a switch, the device that has answered, or was asked and is none of these."""
        running = (sent for sent in self._running.values() if sent.entry is entry)
        asked = {sent.slice: sent.device.name for sent in running if sent.device.name not in without}
        return asked | self._arrivals_of(entry)

    def _arrivals_of(self, entry: SwitchEntry) -> dict[int, str]:
        """By slice of a switch, the device that has answered."""
        return {number: arrival.device for number, arrival in self._arrived.get(entry.switch, {}).items()}

    def _plan(self, entry: SwitchEntry, devices: Mapping[int, str], latency_ms: float) -> Plan:
        """That of a switch with the slices that have a device here."""
        names = tuple(devices.get(number, "") for number in range(len(entry.slices)))
        return Plan(entry, names, latency_ms, self._fleet.accuracy(entry, devices))

    def _best(self) -> Outcome:
        """What has arrived of the switch of which that is worth most."""
        if not self._arrived:
            if self.failures:
                error = self.failures[-1]
                raise OipError(error.status, str(error), RETRY if error.status == 503 else None)
            raise OipError(504, f"no device has answered within {self._goal.deadline_ms:g} ms.")
        arrived = [self._entries[switch] for switch in self._arrived]
        best = max(arrived, key=lambda entry: self._plan(entry, self._arrivals_of(entry), 0.0).rank)
        return self._outcome(best, early=False)

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
