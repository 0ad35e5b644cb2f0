"""Lines: the runs of one method and one setting, averaged over their seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusion.base.program import UserError
from paradis_tf.records.workdir import flat
from paradis_tf.reports.runs import TITLES, Run

# Methods that others are compared with.
REFERENCES = ("individual", "slimmable", "us_slimmable")


@dataclass(frozen=True)
class Estimate:
    """The mean of some seeds' values, and their sample standard deviation; None of a single seed."""

    mean: float
    spread: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of one value per seed, at least one."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two independent means; its spread is the root of the sum of squares, None if one is."""
        both = self.spread is not None and other.spread is not None
        spread = ((self.spread or 0.0) ** 2 + (other.spread or 0.0) ** 2) ** 0.5 if both else None
        return Estimate(self.mean - other.mean, spread, min(self.seeds, other.seeds))


@dataclass(frozen=True)
class Point:
    """A switch of a line.

    Attributes:
      by_seed: the value of each seed.
      live: by set of devices that answer, over the seeds for which it was measured.
    """

    switch: str
    devices: int
    images: int
    madds_total: int
    madds_largest: int
    parameters: int | None
    by_seed: Mapping[int, float]
    live: Mapping[tuple[int, ...], Estimate]

    @property
    def value(self) -> Estimate:
        return Estimate.of(list(self.by_seed.values()))


@dataclass(frozen=True)
class Line:
    """The runs of one method and setting; `points` has the costliest switch first."""

    label: str
    method: str
    runs: tuple[Run, ...]
    points: tuple[Point, ...]

    @property
    def epochs(self) -> tuple[int, ...]:
        """How long its runs were trained, each number once."""
        return tuple(sorted({run.epochs for run in self.runs}))

    @property
    def is_reference(self) -> bool:
        return self.method in REFERENCES


def make_lines(runs: Sequence[Run]) -> list[Line]:
    """Groups runs into lines, those to be judged first.

    Raises:
      UserError: two results of one switch and seed in a line, results of a switch that differ in cost, or a label that
        is of two lines or not of all runs of its line.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.line, []).append(run)
    labels = _labels(list(groups.values()))
    lines = [
        Line(label, group[0].method, tuple(group), _points(group))
        for label, group in zip(labels, groups.values(), strict=True)
    ]
    order = [method for method in TITLES if method not in REFERENCES] + list(REFERENCES)
    return sorted(lines, key=lambda line: order.index(line.method) if line.method in order else 0)


def _points(group: Sequence[Run]) -> tuple[Point, ...]:
    by_switch: dict[str, dict[int, tuple[Run, Any]]] = {}
    for run in group:
        for row in run.rows:
            seeds = by_switch.setdefault(row.switch, {})
            if run.seed in seeds:
                raise UserError(
                    f"{seeds[run.seed][0].where} and {run.where} both give switch {row.switch} of "
                    f"{run.method} with seed {run.seed}; give one of them."
                )
            seeds[run.seed] = run, row
    points = []
    for switch, seeds in by_switch.items():
        first_run, first = next(iter(seeds.values()))
        for run, row in seeds.values():
            if (row.madds_total, row.madds_largest) != (first.madds_total, first.madds_largest):
                raise UserError(
                    f"switch {switch} takes {first.madds_total} multiply-adds in {first_run.where} and "
                    f"{row.madds_total} in {run.where}; a report is of one architecture."
                )
        live: dict[tuple[int, ...], list[float]] = {}
        for _, row in seeds.values():
            for devices, value in row.live.items():
                live.setdefault(devices, []).append(value)
        points.append(
            Point(
                switch,
                first.devices,
                first.images,
                first.madds_total,
                first.madds_largest,
                first.parameters,
                {seed: seeds[seed][1].value for seed in sorted(seeds)},
                {devices: Estimate.of(values) for devices, values in live.items()},
            )
        )
    return tuple(sorted(points, key=lambda point: (-point.madds_total, point.devices, point.switch)))


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    labels = []
    for group in groups:
        chosen = {run.label for run in group}
        if len(chosen) > 1:
            raise UserError(
                f"{group[0].where} and {next(r.where for r in group if r.label != group[0].label)} differ in the seed "
                f"alone but are labelled {', '.join(sorted(map(repr, chosen)))}; they are one line, label them alike."
            )
        labels.append(chosen.pop() or _title(group[0], groups))
    for index, label in enumerate(labels):
        if label in labels[:index]:
            one, other = groups[labels.index(label)][0], groups[index][0]
            raise UserError(f"{one.where} and {other.where} are two lines labelled {label!r}; set --labels apart.")
    return labels


def _title(run: Run, groups: Sequence[Sequence[Run]]) -> str:
    """The method's name, and where it has several lines, what this one's config has of its own."""
    title = TITLES.get(run.method, run.method)
    alike = [group[0] for group in groups if group[0].method == run.method and not group[0].label]
    if len(alike) < 2:
        return title
    configs = [flat(one.config, "") if one.config else {"epochs": one.epochs} for one in alike]
    mine = flat(run.config, "") if run.config else {"epochs": run.epochs}
    skipped = {"seed", "switches", "grid"} if run.method == "individual" else {"seed"}
    own = {k: v for k, v in mine.items() if k not in skipped and any(c.get(k) != v for c in configs)}
    return f"{title} ({', '.join(f'{key}={value}' for key, value in own.items()) or run.name})"
