"""The report's tables: what the page shows, and what its CSV and JSON files hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paradis_tf.evaluation.live_subsets import text_form
from paradis_tf.reports.claims import Comparison
from paradis_tf.reports.image_sets import ImageSet
from paradis_tf.reports.lines import Estimate, Line
from paradis_tf.tasks.metrics import Metric

NONE = "–"


@dataclass(frozen=True)
class Table:
    """A heading row and rows of text; `left` columns are aligned to the left."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 2


def show(estimate: Estimate | None, metric: Metric, signed: bool = False) -> str:
    """`97.49 ± 0.12`: mean and sample standard deviation over seeds."""
    if estimate is None:
        return NONE
    sign = "+" if signed else ""
    text = f"{metric.scale * estimate.mean:{sign}.2f}"
    return text if estimate.spread is None else f"{text} ± {metric.scale * estimate.spread:.2f}"


def means(of_set: ImageSet, metric: Metric) -> Table:
    """A row per line and switch, bicubic enlargement first where it is told."""
    bicubic = [] if of_set.bicubic is None else [("bicubic", *[NONE] * 7, metric.text(of_set.bicubic))]
    rows = [
        (
            line.label,
            point.switch,
            str(point.devices),
            f"{point.madds_total / 1e6:.2f}",
            f"{point.madds_largest / 1e6:.2f}",
            f"{point.parameters:,}" if point.parameters else NONE,
            ", ".join(map(str, line.epochs)),
            str(point.value.seeds),
            show(point.value, metric),
        )
        for line in of_set.lines
        for point in line.points
    ]
    header = (
        "line",
        "switch",
        "devices",
        "MAdds total (M)",
        "largest device (M)",
        "parameters",
        "epochs",
        "seeds",
        metric.heading,
    )
    return Table(header, (*bicubic, *rows))


def unequal_training(lines: Sequence[Line]) -> str:
    """A sentence for runs of different lengths; empty if all are alike."""
    epochs = sorted({one for line in lines for one in line.epochs})
    if len(epochs) < 2:
        return ""
    lengths = ", ".join(map(str, epochs))
    return f"The runs were trained for different numbers of epochs, {lengths}: differences are of that too."


def comparisons(found: Sequence[Comparison], claim: str, metric: Metric) -> Table:
    """The comparisons of a claim, `a`, `b` or `c`: both values and their difference, in the metric's units."""
    rows = [
        (
            one.line,
            one.switch,
            show(one.value, metric),
            f"{one.reference_line}: {one.against}",
            show(one.reference, metric),
            show(one.difference, metric, signed=True),
        )
        for one in found
        if one.claim == claim
    ]
    header = (
        "line",
        "switch",
        metric.heading,
        "compared with",
        metric.heading,
        f"difference ({metric.difference_unit})",
    )
    return Table(header, tuple(rows))


def live(lines: Sequence[Line], metric: Metric) -> Table:
    """By switch of several devices and set of them that answer: the value, and what the others' absence costs."""
    rows = []
    for line in lines:
        for point in line.points:
            if point.devices > 1 and point.live:
                whole = point.live.get(tuple(range(point.devices)))
                for devices, value in point.live.items():
                    # One and the same weights with and without a device: the seeds' spread is not that of the loss.
                    lost = f"{metric.scale * (value.mean - whole.mean):+.2f}" if whole else NONE
                    answering = text_form(devices, point.devices)
                    rows.append((line.label, point.switch, answering, show(value, metric), lost))
    header = ("line", "switch", "answering", metric.heading, f"against all ({metric.difference_unit})")
    return Table(header, tuple(rows), left=3)


def results_csv(lines: Sequence[Line]) -> bytes:
    """A row per switch of each run, which `read_csv` reads; the name is the line's, so that seeds stay together."""
    stream = io.StringIO()
    metric = lines[0].runs[0].metric
    identity = ("dataset", "architecture")
    header = [
        *("name", "run", "method", "seed", "epochs", *identity, "switch", "devices", "images", "metric", metric),
        *("madds_total", "madds_largest", "parameters"),
    ]
    # As `benchmarks.runs` names them.
    sets = list(dict.fromkeys(name for line in lines for run in line.runs for row in run.rows for name in row.sets))
    for name in sets:
        header += [f"sets.{name}.images", f"sets.{name}.{metric}", f"bicubic.sets.{name}.{metric}"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        for run in line.runs:
            told = [run.identity.get(key, "") for key in identity]
            for row in run.rows:
                costs = [row.madds_total, row.madds_largest, row.parameters or ""]
                about = [line.label, run.name, run.method, run.seed, run.epochs, *told]
                values: list[object] = [row.switch, row.devices, row.images, metric, repr(row.value), *costs]
                for name in sets:
                    found = row.sets.get(name)
                    values += [found.images, found.value, found.bicubic] if found else [""] * 3
                writer.writerow([*about, *values])
    return stream.getvalue().encode()


def results_json(all_images: ImageSet, sets: Sequence[ImageSet], metric: Metric) -> dict[str, Any]:
    """The drawn points, the comparisons and the live subsets, in the unit of evaluation; `sets` has those by set."""
    by_set = {one.name: {"images": one.images, "bicubic": one.bicubic, **_of_set(one)} for one in sets if one.name}
    return {"metric": metric.key, **_of_set(all_images), **({"sets": by_set} if by_set else {})}


def _of_set(of_set: ImageSet) -> dict[str, Any]:
    return {
        "points": [
            {
                "line": line.label,
                "method": line.method,
                "switch": point.switch,
                "devices": point.devices,
                "images": point.images,
                "madds_total": point.madds_total,
                "madds_largest": point.madds_largest,
                "parameters": point.parameters,
                **_estimate(point.value),
                "live_subsets": [{"devices": list(d), **_estimate(value)} for d, value in point.live.items()],
            }
            for line in of_set.lines
            for point in line.points
        ],
        "comparisons": [
            {
                "claim": one.claim,
                "line": one.line,
                "switch": one.switch,
                "reference_line": one.reference_line,
                "against": one.against,
                "value": _estimate(one.value),
                "reference": _estimate(one.reference) if one.reference else None,
                "difference": _estimate(one.difference) if one.difference else None,
            }
            for one in of_set.found
        ],
    }


def _estimate(value: Estimate) -> dict[str, Any]:
    return {"mean": value.mean, "spread": value.spread, "seeds": value.seeds}
