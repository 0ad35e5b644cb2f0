"""What every path of a trained supernet costs and how good it is: one dict per path, and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusion.base import columns
from paradis_tf.base.metrics import metric_of
from paradis_tf.builders.cost import path_costs, tail_cost
from paradis_tf.cuts import Path
from paradis_tf.evaluation import classification, super_resolution
from paradis_tf.evaluation.live_subsets import means_by_left, text_form
from paradis_tf.paths import heading_of
from paradis_tf.supernet import Supernet

Report = Callable[[str], None]

# By task: measures all paths of a model on a part, with the task's metric and `live_subsets` for each; heads are chosen
# by the last argument, the validation part.
_MEASURES: dict[str, Callable[[Supernet, Any, Report, Any], Mapping[Path, dict[str, Any]]]] = {
    "classification": classification.measure,
    "super_resolution": super_resolution.measure,
}


def evaluate(
    model: Supernet, part: Any, report: Report = lambda text: None, validation: Any = None
) -> list[dict[str, Any]]:
    """One dict per path, JSON-ready.

    Keys: `model_id`, `switch` (the path's name), `devices`, `images`, `metric` (the name of the task's metric), that
    metric, further ones of the task, `madds_total`, `madds_largest` (of the device that has most), `parameters`, and
    `live_subsets`, a list of {`devices`: those whose slices arrived, metric: the value with their sum alone}; for a
    diagonal level also `level`: the one whose head answers, chosen by the validation part.

    `parameters` counts what the path uses: the blocks of the shared kernels that its devices own, the classifier's
    bias, and the scales and shifts of its own batch norm. It and `madds_total` count the tail too.

    Args:
      model: the trained supernet.
      part: what to judge it by, as the model's task takes it.
      report: is told what is being done.
      validation: the validation part, if `part` is another.
    """
    model_id = model.model_id()
    measured = _MEASURES[model.task.name](model, part, report, validation)
    tail = tail_cost(model.architecture)
    rows = []
    for path in model.paths:
        costs = path_costs(model.architecture, path)
        values = dict(measured[path])
        subsets = values.pop("live_subsets")
        rows.append(
            {
                "model_id": model_id,
                "switch": str(path),
                "devices": path.devices,
                "images": len(part),
                "metric": model.task.metric,
                **values,
                "madds_total": sum(cost.madds for cost in costs) + tail.madds,
                "madds_largest": max(cost.madds for cost in costs),
                "parameters": sum(cost.parameters for cost in costs) + tail.parameters,
                "live_subsets": subsets,
            }
        )
    return rows


def switch_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `evaluate` as a table, a line per path; of super-resolution as one for each set of images."""
    if "sets" in rows[0]:
        return super_resolution.quality_table(rows)
    metric = metric_of(rows[0], "evaluation")
    top5 = rows[0].get("top5_accuracy") is not None
    header = [
        heading_of(row["switch"] for row in rows),
        "devices",
        "MAdds total (M)",
        "largest device (M)",
        "parameters",
        metric.heading,
    ]
    lines = [
        [
            row["switch"],
            row["devices"],
            f"{row['madds_total'] / 1e6:.2f}",
            f"{row['madds_largest'] / 1e6:.2f}",
            f"{row['parameters']:,}",
            metric.text(row[metric.key]),
            *([f"{100 * row['top5_accuracy']:.2f}"] if top5 else []),
        ]
        for row in rows
    ]
    return columns.render([*header, *(["top-5 (%)"] if top5 else [])], lines)


def live_table(rows: Sequence[dict[str, Any]]) -> str:
    """What remains of each path of several devices, a line per set of devices that answer, with the level whose head
    answers where there are several."""
    metric = metric_of(rows[0], "evaluation")
    several = [row for row in rows if row["devices"] > 1]
    heads = any("level" in subset for row in several for subset in row["live_subsets"])
    lines = [
        (
            "" if number else row["switch"],
            text_form(subset["devices"], row["devices"]),
            *([f"level_{subset['level']}"] if heads else []),
            metric.text(subset[metric.key]),
        )
        for row in several
        for number, subset in enumerate(row["live_subsets"])
    ]
    header = (heading_of(row["switch"] for row in rows), "answering", *(["head"] if heads else []), metric.heading)
    return columns.render(header, lines)


def left_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per path of several devices, a column per number of them that are left: the mean over such sets."""
    metric = metric_of(rows[0], "evaluation")
    means = {
        row["switch"]: means_by_left(
            {tuple(subset["devices"]): subset[metric.key] for subset in row["live_subsets"]}, row["devices"]
        )
        for row in rows
        if row["devices"] > 1
    }
    numbers = sorted({left for of_path in means.values() for left in of_path}, reverse=True)
    lines = [
        (path, *(metric.text(of_path[left]) if left in of_path else "" for left in numbers))
        for path, of_path in means.items()
    ]
    return columns.render((heading_of(means), *(f"{left} left" for left in numbers)), lines)
