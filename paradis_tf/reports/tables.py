"""The report's tables: what the page shows, and what its JSON file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from paradis_tf.base.metrics import Metric
from paradis_tf.evaluation.live_subsets import text_form
from paradis_tf.reports.claims import Comparison
from paradis_tf.reports.image_sets import ImageSet
from paradis_tf.reports.lines import Line, SeedMean, with_missing

NONE = "–"


@dataclass(frozen=True)
class TextTable:
    """A heading row and rows of text; `left` columns are aligned to the left."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 2


def show(value: SeedMean | None, metric: Metric, signed: bool = False) -> str:
    """`97.49 ± 0.12`: mean and sample standard deviation over seeds."""
    if value is None:
        return NONE
    text = f"{metric.scale * value.mean:{'+' if signed else ''}.2f}"
    return text if value.spread is None else f"{text} ± {metric.scale * value.spread:.2f}"


def means(of_set: ImageSet, metric: Metric) -> TextTable:
    """A row per line and switch, bicubic enlargement first where it was measured."""
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
    costs = ("MAdds total (M)", "largest device (M)", "parameters")
    header = ("line", "switch", "devices", *costs, "epochs", "seeds", metric.heading)
    return TextTable(header, (*bicubic, *rows))


def unequal_training(lines: Sequence[Line]) -> str:
    """A sentence for runs of different lengths; empty if all are alike."""
    epochs = sorted({epochs for line in lines for epochs in line.epochs})
    if len(epochs) < 2:
        return ""
    lengths = ", ".join(map(str, epochs))
    return f"The runs were trained for different numbers of epochs, {lengths}: differences are of that too."


def comparisons(all_claims: Sequence[Comparison], claim: str, metric: Metric) -> TextTable:
    """The comparisons of a claim, `a`, `b` or `c`: both values and their difference, in the metric's units."""
    rows = tuple(
        (
            compared.line,
            compared.switch,
            show(compared.value, metric),
            f"{compared.reference_line}: {compared.against}",
            show(compared.reference, metric),
            show(compared.difference, metric, signed=True),
        )
        for compared in all_claims
        if compared.claim == claim
    )
    values = (metric.heading, "compared with", metric.heading, f"difference ({metric.difference_unit})")
    return TextTable(("line", "switch", *values), rows)


def devices_left(lines: Sequence[Line], metric: Metric) -> TextTable:
    """A row per switch of several devices and number of them that are left, a column per line measured so.

    Then what each line that is no reference has above the first line. No row where nothing was measured so.
    """
    shown = [line for line in lines if line.with_missing]
    compared = [line for line in shown[1:] if not line.is_reference]
    rows = []
    for switch, of_switch in with_missing(lines).items():
        for left in sorted({left for point in of_switch.values() for left in point.left}, reverse=True):
            value_of = {label: point.left[left] for label, point in of_switch.items() if left in point.left}
            first = value_of.get(shown[0].label)
            values = [show(value_of.get(line.label), metric) for line in shown]
            others = [value_of.get(line.label) for line in compared]
            above = [show(other.minus(first) if other and first else None, metric, signed=True) for other in others]
            rows.append((switch, str(left), *values, *above))
    difference = f"difference ({metric.difference_unit})"
    heads = [difference] if len(compared) == 1 else [f"{line.label}: {difference}" for line in compared]
    return TextTable(("switch", "devices left", *(line.label for line in shown), *heads), tuple(rows), left=1)


def live(lines: Sequence[Line], metric: Metric) -> TextTable:
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
    return TextTable(header, tuple(rows), left=3)


def results_json(all_images: ImageSet, sets: Sequence[ImageSet], metric: Metric) -> dict[str, Any]:
    """The drawn points, the comparisons and the live subsets, in the unit of evaluation; `sets` has those by set."""
    by_set = {
        of_set.name: {"images": of_set.images, "bicubic": of_set.bicubic, **_set_json(of_set)}
        for of_set in sets
        if of_set.name
    }
    return {"metric": metric.key, **_set_json(all_images), **({"sets": by_set} if by_set else {})}


def _set_json(of_set: ImageSet) -> dict[str, Any]:
    points = []
    for line in of_set.lines:
        for point in line.points:
            keys = ("switch", "devices", "images", "madds_total", "madds_largest", "parameters")
            values = {key: getattr(point, key) for key in keys}
            live = [{"devices": list(devices), **asdict(value)} for devices, value in point.live.items()]
            left = [{"left": number, **asdict(value)} for number, value in point.left.items()]
            about = {"line": line.label, "method": line.method}
            points.append({**about, **values, **asdict(point.value), "live_subsets": live, "devices_left": left})
    comparisons = [
        {**asdict(compared), "difference": asdict(compared.difference) if compared.difference else None}
        for compared in of_set.comparisons
    ]
    return {"points": points, "comparisons": comparisons}
