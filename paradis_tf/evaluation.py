"""Accuracy of every switch of a trained supernet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from paradis_tf.builders.cost import switch_costs
from paradis_tf.data import pipeline
from paradis_tf.data.datasets import Part
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_BATCH = 256


def logits_of(model: Supernet, switch: Switch, part: Part) -> np.ndarray:
    """The fused logits of a switch, float32 (images, classes), in the order of the part."""
    batches = pipeline.evaluation_batches(part, _BATCH)
    with pipeline.reading():
        return np.concatenate([model(images, switch=switch)["prediction"].numpy() for images, _ in batches])


def evaluate(model: Supernet, part: Part, report: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """One dict per switch: `model_id`, `switch`, `devices`, `images`, `accuracy` (top-1, 0..1), and its MAdds.

    Args:
      model: the trained supernet.
      part: the images to judge it by.
      report: is told what is being done.
    """
    rows = []
    model_id = model.model_id()
    for switch in model.switches:
        report(f"evaluating switch {switch}")
        correct = logits_of(model, switch, part).argmax(axis=-1) == part.labels
        costs = switch_costs(model.architecture, switch)
        rows.append(
            {
                "model_id": model_id,
                "switch": str(switch),
                "devices": switch.devices,
                "images": len(part),
                "accuracy": float(correct.mean()),
                "madds_total": sum(cost.madds for cost in costs),
                "madds_largest": max(cost.madds for cost in costs),
            }
        )
    return rows
