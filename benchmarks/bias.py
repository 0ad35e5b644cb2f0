"""The accuracy of sets of devices without the first, as they are and with the bias, which only its slice has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.base import columns
from paradis_tf.evaluation.live_subsets import live_subsets, means_by_left


def accuracies(model: Any, switch: Any, part: Any) -> dict[tuple[int, ...], tuple[float, float]]:
    """By set of live devices without device 0: the accuracy without the bias and with it, 0..1, of sums in double
    precision, as `paradis_tf.evaluate` adds."""
    import numpy as np

    from paradis_tf.data import pipeline
    from paradis_tf.evaluation.classification import label_places, partial_logits

    # The classifier is the only dense layer.
    bias = next(layer.bias for layer in reversed(model.shared_layers) if getattr(layer, "bias", None) is not None)
    hits = {live: np.zeros(2, np.int64) for live in live_subsets(switch.devices) if 0 not in live}
    run = partial_logits(model, switch.cuts)
    with pipeline.reading():
        for images, labels in pipeline.evaluation_batches(part, 256):
            partial = [logits.numpy().astype(np.float64) for logits in run(images)]
            for live, count in hits.items():
                logits = np.sum([partial[device] for device in live], axis=0)
                fused = [sum_.astype(np.float32) for sum_ in (logits, logits + bias.numpy())]
                count += [(label_places(sum_, labels.numpy()) < 1).sum() for sum_ in fused]
    return {live: (count[0] / len(part), count[1] / len(part)) for live, count in hits.items()}


def means(run: str, switch: Any, measured: Mapping[tuple[int, ...], tuple[float, float]]) -> list[tuple[Any, ...]]:
    """A row of the table for each number of devices left, as `accuracies` has measured a switch of a run."""
    # Of the devices but the first.
    without, with_bias = (
        means_by_left({live: both[place] for live, both in measured.items()}, switch.devices - 1) for place in (0, 1)
    )
    counts = Counter(map(len, measured))
    return [
        (run, str(switch), left, counts[left], mean, with_bias[left], with_bias[left] - mean)
        for left, mean in without.items()
    ]


def table(rows: Sequence[tuple[Any, ...]]) -> str:
    """The rows for the terminal."""
    shown = [(*row[:4], *(f"{100 * value:.2f}" for value in row[4:6]), f"{100 * row[6]:+.2f}") for row in rows]
    return columns.render(("run", "switch", "left", "sets", "without bias", "with it", "difference"), shown)
