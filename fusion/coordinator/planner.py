"""Which switch the living devices run, and which of them runs which slice. Knows nothing of networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..base.columns import accuracy_text
from ..bundle.contents import SwitchEntry

Latencies = Mapping[tuple[str, str], float]
"""Milliseconds that a device takes for a slice model, by (device name, model name); others cannot be."""


@dataclass(frozen=True)
class Plan:
    """A switch and the devices that run its slices.

    Attributes:
      entry: the switch.
      devices: the names of the devices, in slice order; one device may run several slices, one after the other.
      latency_ms: when the last of them is expected to answer.
      accuracy: of the whole switch, in the metric of its verification; None where the bundle was not verified.
    """

    entry: SwitchEntry
    devices: tuple[str, ...]
    latency_ms: float
    accuracy: float | None

    @property
    def rank(self) -> tuple[float, int]:
        """How good its answers are; without an accuracy, more multiply-adds are taken for better."""
        return (-1.0 if self.accuracy is None else self.accuracy, self.entry.madds)


@dataclass(frozen=True)
class Rejected:
    """A switch that was not chosen: its best plan, None where the devices cannot run it, and why."""

    switch: str
    plan: Plan | None
    reason: str


@dataclass(frozen=True)
class Decision:
    """What to run, None where no switch can be run, and every other switch with its reason."""

    chosen: Plan | None
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Goal:
    """What a plan is chosen for.

    The most accurate plan within `deadline_ms`; with `min_accuracy`, in the bundle's metric, the fastest one that has
    it. Where no plan is within the deadline, the fastest; where none has that accuracy, the most accurate.
    """

    deadline_ms: float
    min_accuracy: float | None = None


def decide(
    switches: Sequence[SwitchEntry],
    accuracy: Callable[[SwitchEntry], float | None],
    latencies: Latencies,
    busy: Mapping[str, float],
    goal: Goal,
) -> Decision:
    """Chooses among the best assignments of all switches.

    Args:
      switches: those that may be run.
      accuracy: of a whole switch.
      latencies: what each device takes for each slice it can run.
      busy: milliseconds of work that a device has before it, by name; none where it is left out.
      goal: what to choose for.
    """
    return choose(*best_plans(switches, accuracy, latencies, busy), goal)


def best_plans(
    switches: Sequence[SwitchEntry],
    accuracy: Callable[[SwitchEntry], float | None],
    latencies: Latencies,
    busy: Mapping[str, float],
) -> tuple[tuple[Plan, ...], tuple[Rejected, ...]]:
    """The best assignment of each switch, and the switches that have none; arguments as of `decide`."""
    plans: list[Plan] = []
    rejected: list[Rejected] = []
    for entry in switches:
        models = [slice_.model for slice_ in entry.slices]
        assigned = assign(models, latencies, busy)
        if assigned is None:
            served = {model for _, model in latencies}
            absent = ", ".join(str(i) for i, model in enumerate(models) if model not in served)
            rejected.append(Rejected(entry.switch, None, f"no living device serves slice {absent}"))
        else:
            devices, latency = assigned
            plans.append(Plan(entry, devices, latency, accuracy(entry)))
    return tuple(plans), tuple(rejected)


def choose(plans: Sequence[Plan], impossible: Sequence[Rejected], goal: Goal) -> Decision:
    """Chooses among plans, one of each switch that has any; `impossible` are the others."""
    if not plans:
        return Decision(None, tuple(impossible))
    in_time = [plan for plan in plans if plan.latency_ms <= goal.deadline_ms]
    good = [plan for plan in in_time if _is_good(plan, goal)]
    if goal.min_accuracy is not None and good:
        chosen = _fastest(good)
    elif in_time:
        chosen = max(in_time, key=lambda plan: (*plan.rank, -plan.latency_ms))
    else:
        chosen = _fastest(plans)
    others = (plan for plan in plans if plan is not chosen)
    rejected = (Rejected(plan.entry.switch, plan, _reason(plan, chosen, goal)) for plan in others)
    return Decision(chosen, (*impossible, *rejected))


def _fastest(plans: Sequence[Plan]) -> Plan:
    """Of equally fast ones the most accurate."""
    return min(plans, key=lambda plan: (plan.latency_ms, *(-value for value in plan.rank)))


def assign(
    models: Sequence[str], latencies: Latencies, busy: Mapping[str, float]
) -> tuple[tuple[str, ...], float] | None:
    """Gives each model a device so that the last of them answers as early as possible.

    A device with several models runs them one after the other. Of several such assignments it takes the one with the
    least work, which is the sum of its latencies. Exact, by branch and bound.

    Returns:
      the devices in the order of the models, and when the last answers, in milliseconds; None where a model has no
      device.
    """
    order = {device: rank for rank, device in enumerate(dict.fromkeys(device for device, _ in latencies))}
    starts = {device: busy.get(device, 0.0) for device in order}
    options = [
        sorted((latency, order[device], device) for (device, served), latency in latencies.items() if served == model)
        for model in models
    ]
    if not all(options):
        return None
    # The model that takes longest at best is placed first: what it rules out need not be tried with the others.
    places = sorted(range(len(models)), key=lambda index: (-options[index][0][0], index))
    placed = [options[index] for index in places]
    # As many devices as there are models are enough for each: whatever the others take, one of its best is left.
    most = len(models)
    earliest = [sorted(of_model, key=lambda option: starts[option[2]] + option[0])[:most] for of_model in placed]
    _, (latest, _) = _search(earliest, starts, math.inf, lambda latest, work: (latest, 0.0))
    in_time = [[option for option in of_model if starts[option[2]] + option[0] <= latest][:most] for of_model in placed]
    devices, _ = _search(in_time, starts, latest, lambda latest, work: (0.0, work))
    return tuple(devices[places.index(index)] for index in range(len(models))), latest


def _search(
    options: Sequence[Sequence[tuple[float, int, str]]],
    starts: Mapping[str, float],
    limit: float,
    cost: Callable[[float, float], tuple[float, float]],
) -> tuple[tuple[str, ...], tuple[float, float]]:
    """The cheapest devices for some models and their cost, of those that have all answered by `limit`.

    `options` are the latencies, ranks and devices of each model; `cost` is that of when the last answers and of the
    work in all, and rises with both.
    """
    # What the models from each step on add to the work at least.
    least = [sum(min(of_model)[0] for of_model in options[step:]) for step in range(len(options) + 1)]
    ends = dict(starts)
    taken = [""] * len(options)
    best: tuple[float, float] = (math.inf, math.inf)
    devices: tuple[str, ...] = ()

    def place(step: int, latest: float, work: float) -> None:
        nonlocal best, devices
        if latest > limit or cost(latest, work + least[step]) >= best:
            return
        if step == len(options):
            best, devices = cost(latest, work), tuple(taken)
            return
        # The earliest first, so that little is left to try after it.
        ordered = sorted((ends[device] + latency, rank, latency, device) for latency, rank, device in options[step])
        for end, _, latency, device in ordered:
            before, ends[device], taken[step] = ends[device], end, device
            place(step + 1, max(latest, end), work + latency)
            ends[device] = before

    place(0, 0.0, 0.0)
    return devices, best


def unmet_goal(decision: Decision, goal: Goal) -> str:
    """What of the goal the chosen plan does not meet, as a phrase; empty where it meets all, or nothing is chosen."""
    plan = decision.chosen
    if plan is None:
        return ""
    if plan.latency_ms > goal.deadline_ms:
        return f"though it is over the deadline of {goal.deadline_ms:g} ms"
    if _is_good(plan, goal):
        return ""
    if plan.accuracy is None:
        return "though no accuracy is known"
    late = any(rejected.plan is not None and _is_good(rejected.plan, goal) for rejected in decision.rejected)
    return f"though none reaches {accuracy_text(goal.min_accuracy)}{' within the deadline' if late else ''}"


def _is_good(plan: Plan, goal: Goal) -> bool:
    return goal.min_accuracy is None or (plan.accuracy is not None and plan.accuracy >= goal.min_accuracy)


def _reason(plan: Plan, chosen: Plan, goal: Goal) -> str:
    if plan.latency_ms > goal.deadline_ms:
        return f"takes {plan.latency_ms:.1f} ms, the deadline is {goal.deadline_ms:g} ms"
    if not _is_good(plan, goal):
        accuracy, least = accuracy_text(plan.accuracy), accuracy_text(goal.min_accuracy)
        return f"its accuracy is {accuracy}, at least {least} is wanted"
    if plan.rank < chosen.rank and goal.min_accuracy is None:
        if plan.accuracy is None:
            return f"has fewer multiply-adds, {plan.entry.madds:,} against {chosen.entry.madds:,}"
        return f"is less accurate, {accuracy_text(plan.accuracy)} against {accuracy_text(chosen.accuracy)}"
    return f"takes longer, {plan.latency_ms:.1f} against {chosen.latency_ms:.1f} ms"
