"""Which device runs which slice of each switch, so that the last of them answers as early as possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ..bundle.contents import SwitchEntry
from .planner import Plan, not_served, patience_ms

Accuracy = Callable[[SwitchEntry, Collection[int]], "float | None"]
"""Gives that of a switch with only these slices answering."""
Latencies = Mapping[str, Mapping[str, float]]
"""Milliseconds for a slice model, by its name and that of each device that can run it, in the order of preference."""
_Option = tuple[float, int, str]
"""A device for a model: its latency, its preference, its name."""


def best_plans(
    switches: Sequence[SwitchEntry],
    accuracy: Accuracy,
    latencies: Latencies,
    busy: Mapping[str, float],
) -> tuple[list[Plan], dict[str, str]]:
    """The best assignment of each switch, and why other switches have none.

    A switch of which devices serve some slices alone is run without the others. Where all devices that have a slice
    take far longer than the rest, a second plan of the switch does without it.

    Args:
      switches: those that may be run.
      accuracy: that of a switch with these slices answering.
      latencies: of the living devices.
      busy: by device, the milliseconds of work that it has before it.
    """
    plans: list[Plan] = []
    impossible: dict[str, str] = {}
    for entry in switches:
        plan = _best_plan(entry, accuracy, latencies, busy)
        if plan is None:
            impossible[entry.switch] = not_served(range(len(entry.slices)))
            continue
        quick = _without_slow(plan, accuracy, latencies, busy)
        plans += [plan] if quick is None else [plan, quick]
    return plans, impossible


def _best_plan(entry: SwitchEntry, accuracy: Accuracy, latencies: Latencies, busy: Mapping[str, float]) -> Plan | None:
    served = [number for number, slice_ in enumerate(entry.slices) if latencies.get(slice_.model)]
    assigned = assign([entry.slices[number].model for number in served], latencies, busy)
    if not served or assigned is None:
        return None
    device_of = dict(zip(served, assigned[0], strict=True))
    devices = tuple(device_of.get(number, "") for number in range(len(entry.slices)))
    return Plan(entry, devices, assigned[1], accuracy(entry, served))


def _without_slow(plan: Plan, accuracy: Accuracy, latencies: Latencies, busy: Mapping[str, float]) -> Plan | None:
    """The plan of the same switch without the slowest devices, if none but these has some slices, and they are so slow
    that the others would not wait for them in mid-request either."""
    models, left = [slice_.model for slice_ in plan.entry.slices], plan
    # No plan of any of the slices is sooner than that.
    soonest_ms = min(
        busy.get(device, 0.0) + ms for number in plan.answering for device, ms in latencies[models[number]].items()
    )
    while plan.latency_ms > patience_ms(soonest_ms):
        ends = dict(busy)
        for model, device in zip(models, left.devices, strict=True):
            if device:
                ends[device] = ends.get(device, 0.0) + latencies[model][device]
        slowest = max(filter(None, left.devices), key=lambda device: ends[device])
        latencies = {
            model: {device: ms for device, ms in latencies.get(model, {}).items() if device != slowest}
            for model in models
        }
        fewer = _best_plan(plan.entry, accuracy, latencies, busy)
        if fewer is None:
            return None
        left = fewer
        if plan.latency_ms > patience_ms(left.latency_ms):
            return replace(left, slow=(tuple(sorted(plan.answering - left.answering)), plan.latency_ms))
    return None


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
    options = {
        model: sorted((ms, rank, device) for rank, (device, ms) in enumerate(latencies.get(model, {}).items()))
        for model in models
    }
    if not all(options.values()):
        return None

    def end(option: _Option) -> float:
        return busy.get(option[2], 0.0) + option[0]

    # The model that takes longest at best is placed first: what it rules out need not be tried with the others.
    placed = sorted(models, key=lambda model: -options[model][0][0])
    # As many devices as there are models are enough for each: whatever the others take, one of its best is left.
    most = len(models)
    earliest = [sorted(options[model], key=end)[:most] for model in placed]
    _, (latest, _) = _search(earliest, busy, math.inf, lambda latest, work: (latest, 0.0))
    in_time = [[option for option in options[model] if end(option) <= latest][:most] for model in placed]
    devices, _ = _search(in_time, busy, latest, lambda latest, work: (0.0, work))
    of_model = dict(zip(placed, devices, strict=True))
    return tuple(of_model[model] for model in models), latest


def _search(
    options: Sequence[Sequence[_Option]],
    busy: Mapping[str, float],
    limit: float,
    cost: Callable[[float, float], tuple[float, float]],
) -> tuple[tuple[str, ...], tuple[float, float]]:
    """The cheapest devices for some models and their cost, of those that have all answered by `limit`.

    `options` are those of each model; `cost` is that of when the last answers and of the work in all, and rises with
    both.
    """
    # What the models from each step on add to the work at least.
    least = [sum(min(of_model)[0] for of_model in options[step:]) for step in range(len(options) + 1)]
    ends = {device: busy.get(device, 0.0) for of_model in options for _, _, device in of_model}
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
