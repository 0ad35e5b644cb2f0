"""Which device runs which slice, so that the last of them answers as early as possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Latencies = Mapping[str, Mapping[str, float]]
"""Milliseconds for a slice model, by its name and that of each device that can run it, in the order of preference."""
_Option = tuple[float, int, str]
"""A device for a model: its latency, its preference, its name."""


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
