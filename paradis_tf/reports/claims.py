"""The three comparisons that a distributable network is judged by. Definitions: ours.

(a) each switch minus the individual network of the same structure;
(b) each switch minus universally slimmable networks at equal multiply-adds in all, interpolated linearly in the
    logarithm of the multiply-adds;
(c) each switch of several devices minus the slimmable width that costs what its largest device does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from paradis_tf.reports.lines import Line, LinePoint, SeedMean


@dataclass(frozen=True)
class Comparison:
    """One switch against one reference; values in the unit of evaluation.

    Attributes:
      claim: `a`, `b` or `c`.
      against: what of the reference line it is compared with, in words.
      reference: the reference's value; None where it has none to compare with.
    """

    claim: str
    line: str
    switch: str
    value: SeedMean
    reference_line: str
    against: str
    reference: SeedMean | None

    @property
    def difference(self) -> SeedMean | None:
        """The value minus that of the reference; None where there is none."""
        return self.value.minus(self.reference) if self.reference else None


def compare(lines: Sequence[Line]) -> list[Comparison]:
    """All comparisons that the lines allow, by claim, line and switch."""
    judged = [line for line in lines if not line.is_reference]
    return [*_with_individual(judged, lines), *_with_curves(judged, lines), *_with_widths(judged, lines)]


def _with_individual(judged: Sequence[Line], lines: Sequence[Line]) -> Iterator[Comparison]:
    for line in judged:
        for other in lines:
            if other.method == "individual":
                same = {point.switch: point for point in other.points}
                for point in line.points:
                    alone = same.get(point.switch)
                    against = f"switch {point.switch} alone" if alone else "not trained alone"
                    yield _comparison("a", line, point, other, against, alone.value if alone else None)


def _with_curves(judged: Sequence[Line], lines: Sequence[Line]) -> Iterator[Comparison]:
    for line in judged:
        for other in lines:
            if other.method == "us_slimmable":
                for point in line.points:
                    value = _curve_at(other, point.madds_total)
                    against = f"its curve at {point.madds_total / 1e6:.2f} M in all"
                    yield _comparison("b", line, point, other, against if value else "outside its curve", value)


def _with_widths(judged: Sequence[Line], lines: Sequence[Line]) -> Iterator[Comparison]:
    for line in judged:
        for other in lines:
            if other.method in ("slimmable", "us_slimmable"):
                # Not their multiply-adds in all, which have those of a tail, too.
                widths = {width.madds_largest: width for width in other.points if width.devices == 1}
                for point in line.points:
                    if point.devices > 1:
                        width = widths.get(point.madds_largest)
                        against = f"width {width.switch}" if width else "no width that costs the same"
                        yield _comparison("c", line, point, other, against, width.value if width else None)


def _comparison(
    claim: str, line: Line, point: LinePoint, other: Line, against: str, reference: SeedMean | None
) -> Comparison:
    return Comparison(claim, line.label, point.switch, point.value, other.label, against, reference)


def _curve_at(line: Line, madds: int) -> SeedMean | None:
    """The curve's value at so many multiply-adds, interpolated seed by seed; None outside of it."""
    values = []
    for seed in {seed for point in line.points for seed in point.by_seed}:
        curve = {p.madds_total: p.by_seed[seed] for p in line.points if seed in p.by_seed and p.devices == 1}
        value = interpolate(curve, madds)
        if value is not None:
            values.append(value)
    return SeedMean.of(values) if values else None


def interpolate(curve: Mapping[int, float], madds: int) -> float | None:
    """Linear in log(madds) between the neighbours of a curve; None outside of it."""
    below = max((x for x in curve if x <= madds), default=None)
    above = min((x for x in curve if x >= madds), default=None)
    if below is None or above is None:
        return None
    if below == above:
        return curve[below]
    share = math.log(madds / below) / math.log(above / below)
    return (1 - share) * curve[below] + share * curve[above]
