"""What every switch of a trained supernet costs and how good it is: one dict per switch, and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fusion.base import columns
from paradis_tf.base.metrics import metric_of
from paradis_tf.builders.cost import path_costs, tail_cost
from paradis_tf.evaluation import classification, super_resolution
from paradis_tf.evaluation.live_subsets import means_by_left, text_form
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

Report = Callable[[str], None]

# By task: measures all switches of a model on a part, with the task's metric and `live_subsets` for each.
_MEASURES: dict[str, Callable[[Supernet, Any, Report], Mapping[Switch, dict[str, Any]]]] = {
    "classification": classification.measure,
    "super_resolution": super_resolution.measure,
}


def evaluate(model: Supernet, part: Any, report: Report = lambda text: None) -> list[dict[str, Any]]:
    """One dict per switch, JSON-ready.

    Keys: `model_id`, `switch`, `devices`, `images`, `metric` (the name of the task's metric), that metric, further ones
    of the task, `madds_total`, `madds_largest` (of the device that has most), `parameters`, and `live_subsets`, a list
    of {`devices`: those whose slices arrived, metric: the value with their sum alone}.

    `parameters` counts what the switch uses: the blocks of the shared kernels that its devices own, the classifier's
    bias, and the scales and shifts of its own batch norm. It and `madds_total` count the tail too.

    Args:
      model: the trained supernet.
      part: what to judge it by, as the model's task takes it.
      report: is told what is being done.
    """
    model_id = model.model_id()
    measured = _MEASURES[model.task.name](model, part, report)
    tail = tail_cost(model.architecture)
    rows = []
    for switch in model.switches:
        costs = path_costs(model.architecture, switch)
        values = dict(measured[switch])
        subsets = values.pop("live_subsets")
        rows.append(
            {
                "model_id": model_id,
                "switch": str(switch),
                "devices": switch.devices,
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
    """The rows of `evaluate` as a table, a line per switch; of super-resolution as one for each set of images."""
    if "sets" in rows[0]:
        return super_resolution.quality_table(rows)
    metric = metric_of(rows[0], "evaluation")
    top5 = rows[0].get("top5_accuracy") is not None
    header = ["switch", "devices", "MAdds total (M)", "largest device (M)", "parameters", metric.heading]
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
    """What remains of each switch of several devices, a line per set of devices that answer."""
    metric = metric_of(rows[0], "evaluation")
    lines = [
        (
            "" if number else row["switch"],
            text_form(subset["devices"], row["devices"]),
            metric.text(subset[metric.key]),
        )
        for row in rows
        if row["devices"] > 1
        for number, subset in enumerate(row["live_subsets"])
    ]
    return columns.render(("switch", "answering", metric.heading), lines)


def left_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per switch of several devices, a column per number of them that are left: the mean over such sets."""
    metric = metric_of(rows[0], "evaluation")
    means = {
        row["switch"]: means_by_left(
            {tuple(subset["devices"]): subset[metric.key] for subset in row["live_subsets"]}, row["devices"]
        )
        for row in rows
        if row["devices"] > 1
    }
    numbers = sorted({left for of_switch in means.values() for left in of_switch}, reverse=True)
    lines = [
        (switch, *(metric.text(of_switch[left]) if left in of_switch else "" for left in numbers))
        for switch, of_switch in means.items()
    ]
    return columns.render(("switch", *(f"{left} left" for left in numbers)), lines)
