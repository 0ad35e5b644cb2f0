"""How good every switch of a trained supernet is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from paradis_tf import super_resolution_evaluation
from paradis_tf.builders.cost import switch_costs, tail_cost
from paradis_tf.data import pipeline
from paradis_tf.data.datasets import Part
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_BATCH = 256


def logits_of(model: Supernet, switch: Switch, part: Part) -> np.ndarray:
    """The fused logits of a switch, float32 (images, classes), in the order of the part."""
    batches = pipeline.evaluation_batches(part, _BATCH)
    return np.concatenate([model(images, switch=switch)["prediction"].numpy() for images, _ in batches])


def evaluate(model: Supernet, part: Any, report: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """One dict per switch: `model_id`, `switch`, `devices`, `images`, its MAdds with those of the tail, and of
    a classifier `accuracy` (top-1, 0..1), of super-resolution what `super_resolution_evaluation.measure` gives.

    Args:
      model: the trained supernet.
      part: the images to judge it by: a `Part`, or `ImagePairs`.
      report: is told what is being done.
    """
    model_id = model.model_id()
    measured = _MEASURES[model.task.name](model, part, report)
    tail = tail_cost(model.architecture).madds
    rows = []
    for switch in model.switches:
        costs = switch_costs(model.architecture, switch)
        rows.append(
            {
                "model_id": model_id,
                "switch": str(switch),
                "devices": switch.devices,
                "images": len(part),
                "metric": model.task.metric,
                **measured[switch],
                "madds_total": sum(cost.madds for cost in costs) + tail,
                "madds_largest": max(cost.madds for cost in costs),
            }
        )
    return rows


def _accuracies(model: Supernet, part: Part, report: Callable[[str], None]) -> dict[Switch, dict[str, Any]]:
    found = {}
    for switch in model.switches:
        report(f"evaluating switch {switch}")
        correct = logits_of(model, switch, part).argmax(axis=-1) == part.labels
        found[switch] = {"accuracy": float(correct.mean())}
    return found


# By task: what is measured of each switch.
_MEASURES: dict[str, Callable[[Supernet, Any, Callable[[str], None]], Mapping[Switch, dict[str, Any]]]] = {
    "classification": _accuracies,
    "super_resolution": super_resolution_evaluation.measure,
}
