"""Accuracy of a classifier's switches, with all devices and with every set of them that may be left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from paradis_tf.data import pipeline
from paradis_tf.evaluation.live_subsets import live_subsets
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_BATCH = 256
_TOP = 5
_REPORT_S = 10.0


def measure(model: Supernet, part: Any, report: Callable[[str], None]) -> dict[Switch, dict[str, Any]]:
    """By switch: `accuracy`, `top5_accuracy` (0..1; None up to 5 classes, where it says nothing) and `live_subsets`.

    Each device's slice runs once per image; a subset's answer is the plain sum of the partial logits that arrived,
    added in double precision as the runner does. The classifier's bias is in the first slice, so a subset without
    device 0 answers without the bias.

    Args:
      model: the trained supernet.
      part: a `Part` of images and labels.
      report: is told what is being done.
    """
    slices: dict[Switch, Callable[[tf.Tensor], list[tf.Tensor]]] = {}
    hits = {switch: {live: np.zeros(2, np.int64) for live in live_subsets(switch.devices)} for switch in model.switches}
    seen, reported = 0, time.monotonic()
    with pipeline.reading():
        for images, labels in pipeline.evaluation_batches(part, _BATCH):
            for switch in model.switches:
                if not seen:
                    report(f"evaluating switch {switch}")
                    slices[switch] = partial_logits(model, switch)
                partial = [logits.numpy().astype(np.float64) for logits in slices[switch](images)]
                for live, count in hits[switch].items():
                    fused = np.sum([partial[device] for device in live], axis=0).astype(np.float32)
                    places = label_places(fused, labels.numpy())
                    count += (places < 1).sum(), (places < _TOP).sum()
            seen += len(labels)
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                report(f"evaluated {seen:,}/{len(part):,} images")
    classes = partial[0].shape[1]
    return {switch: _rates(counts, seen, classes) for switch, counts in hits.items()}


def label_places(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes stand before the label's, int64 (images,): 0 where the answer is right.

    Of equal logits the lower class stands first, as in argmax; a label whose logit is NaN stands behind all.

    Args:
      logits: float (images, classes).
      labels: int (images,), 0..classes - 1.
    """
    labels = labels[:, None]
    own = np.take_along_axis(logits, labels, axis=1)
    classes = np.arange(logits.shape[1])
    behind = (logits < own) | ((logits == own) & (classes >= labels))
    return logits.shape[1] - behind.sum(axis=1)


def partial_logits(model: Supernet, switch: Switch) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """From uint8 images (batch, height, width, 3) to the logits of each device, float32 (batch, classes)."""
    image = tf.TensorSpec((None, *model.architecture.image_shape), tf.uint8)

    @tf.function(input_signature=[image])
    def run(images: tf.Tensor) -> list[tf.Tensor]:
        return [tf.cast(model.call_cut(images, cut).prediction, tf.float32) for cut in switch.cuts]

    # Traced here: TensorFlow takes one function for each switch for one that is traced again and again, and warns.
    return run.get_concrete_function()


def _rates(counts: dict[tuple[int, ...], np.ndarray], images: int, classes: int) -> dict[str, Any]:
    # The first subset is that of all devices.
    right, among_top = next(iter(counts.values()))
    return {
        "accuracy": float(right / images),
        "top5_accuracy": float(among_top / images) if classes > _TOP else None,
        "live_subsets": [
            {"devices": list(live), "accuracy": float(count[0] / images)} for live, count in counts.items()
        ],
    }
