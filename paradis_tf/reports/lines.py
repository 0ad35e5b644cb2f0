"""Lines: the runs of one method and one setting, averaged over their seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusion.base.program import UserError
from paradis_tf.evaluation.live_subsets import means_by_left
from paradis_tf.records.workdir import flat
from paradis_tf.reports.runs import TITLES, Row, Run

# Methods that others are compared with.
REFERENCES = ("individual", "slimmable", "us_slimmable")


@dataclass(frozen=True)
class SeedMean:
    """The mean of some seeds' values, and their sample standard deviation; None of a single seed."""

    mean: float
    spread: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> SeedMean:
        """Of one value per seed, at least one."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def minus(self, other: SeedMean) -> SeedMean:
        """The difference of two independent means; its spread is the root of the sum of squares, None if one is."""
        both = self.spread is not None and other.spread is not None
        spread = ((self.spread or 0.0) ** 2 + (other.spread or 0.0) ** 2) ** 0.5 if both else None
        return SeedMean(self.mean - other.mean, spread, min(self.seeds, other.seeds))


@dataclass(frozen=True)
class LinePoint:
    """A switch of a line.

    Attributes:
      by_seed: the value of each seed.
      live: by set of devices that answer, over the seeds for which it was measured.
      left: by number of devices left, most first: each seed's mean over the sets of so many.
    """

    switch: str
    devices: int
    images: int
    madds_total: int
    madds_largest: int
    parameters: int | None
    by_seed: Mapping[int, float]
    live: Mapping[tuple[int, ...], SeedMean]
    left: Mapping[int, SeedMean]

    @property
    def value(self) -> SeedMean:
        return SeedMean.of(list(self.by_seed.values()))


@dataclass(frozen=True)
class Line:
    """The runs of one method and setting; `points` has the costliest switch first."""

    label: str
    method: str
    runs: tuple[Run, ...]
    points: tuple[LinePoint, ...]

    @property
    def epochs(self) -> tuple[int, ...]:
        """How long its runs were trained, each number once."""
        return tuple(sorted({run.epochs for run in self.runs}))

    @property
    def with_missing(self) -> tuple[LinePoint, ...]:
        """Its points that were measured with devices missing."""
        return tuple(point for point in self.points if len(point.left) > 1)

    @property
    def is_reference(self) -> bool:
        return self.method in REFERENCES


def make_lines(runs: Sequence[Run]) -> list[Line]:
    """Groups runs into lines, those to be judged first.

    Raises:
      UserError: two results of one switch and seed in a line, results of a switch that differ in cost, or a label that
        is of two lines.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.line, []).append(run)
    firsts = [group[0] for group in groups.values()]
    labels = [first.label or _title(first, firsts) for first in firsts]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            other = firsts[labels.index(label)]
            raise UserError(
                f"{other.where} and {firsts[index].where} are two lines labelled {label!r}; set --labels apart."
            )
    lines = [
        Line(label, group[0].method, tuple(group), _points(group))
        for label, group in zip(labels, groups.values(), strict=True)
    ]
    return sorted(lines, key=lambda line: REFERENCES.index(line.method) + 1 if line.is_reference else 0)


def with_missing(lines: Sequence[Line]) -> dict[str, dict[str, LinePoint]]:
    """The points that were measured with devices missing: by switch, the costliest first, and by the line's label."""
    points = [(line.label, point) for line in lines for point in line.with_missing]
    by_switch: dict[str, dict[str, LinePoint]] = {}
    for label, point in sorted(points, key=lambda one: _costliest_first(one[1])):
        by_switch.setdefault(point.switch, {})[label] = point
    return by_switch


def _costliest_first(point: LinePoint) -> tuple[int, int, str]:
    return -point.madds_total, point.devices, point.switch


def _points(group: Sequence[Run]) -> tuple[LinePoint, ...]:
    by_switch: dict[str, dict[int, tuple[Run, Row]]] = {}
    for run in group:
        for row in run.rows:
            seeds = by_switch.setdefault(row.switch, {})
            if run.seed in seeds:
                raise UserError(
                    f"{seeds[run.seed][0].where} and {run.where} both give switch {row.switch} of "
                    f"{run.method} with seed {run.seed}; give one of them."
                )
            seeds[run.seed] = run, row
    points = [_point(seeds) for seeds in by_switch.values()]
    return tuple(sorted(points, key=_costliest_first))


def _point(seeds: Mapping[int, tuple[Run, Row]]) -> LinePoint:
    """A switch, of its run and row for each seed."""
    first_run, first = next(iter(seeds.values()))
    live: dict[tuple[int, ...], list[float]] = {}
    left: dict[int, list[float]] = {}
    for run, row in seeds.values():
        if (row.madds_total, row.madds_largest) != (first.madds_total, first.madds_largest):
            raise UserError(
                f"switch {row.switch} takes {first.madds_total} multiply-adds in {first_run.where} and "
                f"{row.madds_total} in {run.where}; a report is of one architecture."
            )
        for devices, value in row.live.items():
            live.setdefault(devices, []).append(value)
        for number, value in means_by_left(row.live, row.devices).items():
            left.setdefault(number, []).append(value)
    return LinePoint(
        switch=first.switch,
        devices=first.devices,
        images=first.images,
        madds_total=first.madds_total,
        madds_largest=first.madds_largest,
        parameters=first.parameters,
        by_seed={seed: seeds[seed][1].value for seed in sorted(seeds)},
        live={devices: SeedMean.of(values) for devices, values in live.items()},
        left={number: SeedMean.of(left[number]) for number in sorted(left, reverse=True)},
    )


def _title(run: Run, others: Sequence[Run]) -> str:
    """The method's name, and where it has several lines, what this one's config has of its own."""
    title = TITLES.get(run.method, run.method)
    configs = [flat(other.config or {}, "") for other in others if other.method == run.method and not other.label]
    if len(configs) < 2:
        return title
    skipped = ("seed", "switches", "grid") if run.method == "individual" else ("seed",)
    own = [
        f"{key}={value}"
        for key, value in flat(run.config or {}, "").items()
        if key not in skipped and any(config.get(key) != value for config in configs)
    ]
    return f"{title} ({', '.join(own) or run.name})"
