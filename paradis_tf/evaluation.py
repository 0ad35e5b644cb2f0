"""What every switch of a trained supernet costs and how good it is, one dict per switch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paradis_tf import classification_evaluation
from paradis_tf.builders.cost import switch_costs
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

Report = Callable[[str], None]

# By task: measures all switches of a model on a part, with the task's metric and `live_subsets` for each.
_MEASURES: dict[str, Callable[[Supernet, Any, Report], Mapping[Switch, dict[str, Any]]]] = {
    "classification": classification_evaluation.measure,
}


def evaluate(model: Supernet, part: Any, report: Report = lambda text: None) -> list[dict[str, Any]]:
    """One dict per switch, JSON-ready.

    Keys: `model_id`, `switch`, `devices`, `images`, `metric` (the name of the task's metric), that metric, further ones
    of the task, `madds_total`, `madds_largest` (of the device that has most), `parameters`, and `live_subsets`, a list
    of {`devices`: those whose slices arrived, metric: the value with their sum alone}.

    `parameters` counts what the switch uses: the blocks of the shared kernels that its devices own, the classifier's
    bias, and the scales and shifts of its own batch norm.

    Args:
      model: the trained supernet.
      part: what to judge it by, as the model's task takes it.
      report: is told what is being done.
    """
    model_id = model.model_id()
    measured = _MEASURES[model.task.name](model, part, report)
    rows = []
    for switch in model.switches:
        costs = switch_costs(model.architecture, switch)
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
                "madds_total": sum(cost.madds for cost in costs),
                "madds_largest": max(cost.madds for cost in costs),
                "parameters": sum(cost.parameters for cost in costs),
                "live_subsets": subsets,
            }
        )
    return rows
