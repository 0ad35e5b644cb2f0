"""Accuracy of a classifier's paths, with all devices and with every set of them that may be left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from paradis_tf.builders.cost import summed_channels
from paradis_tf.cuts import Cut, Path
from paradis_tf.data import pipeline
from paradis_tf.evaluation.live_subsets import live_subsets
from paradis_tf.levels import LevelCut, answers_of
from paradis_tf.supernet import Supernet

_BATCH = 256
_TOP = 5
_REPORT_S = 10.0

# The cuts whose partial logits are added.
_Answer = tuple[Cut, ...]


def measure(
    model: Supernet, part: Any, report: Callable[[str], None], validation: Any = None
) -> dict[Path, dict[str, Any]]:
    """By path: `accuracy`, `top5_accuracy` (0..1; None up to 5 classes, where it says nothing) and `live_subsets`.

    Each device runs once per image; a subset's answer is the plain sum of the partial logits that arrived, added in
    double precision as the runner does. The classifier's bias is in the first slice, so a subset without device 0
    answers without the bias. Where a subset of a diagonal level has several heads to answer with, it is the one that is
    best on the validation part, the later of equals, named as `level`.

    Args:
      model: the trained supernet.
      part: a `Part` of images and labels.
      report: is told what is being done.
      validation: the `Part` that heads are chosen by; `part` itself if left out.
    """
    subsets = {path: {live: answers_of(path, live) for live in live_subsets(path.devices)} for path in model.paths}
    answers = {path: [each for found in of_path.values() for each in found] for path, of_path in subsets.items()}
    hits = _count(model, part, answers, report)
    choices = {path: found for path, found in answers.items() if len(found) > len(subsets[path])}
    chosen_by = hits
    if choices and validation is not None and validation is not part:
        report("choosing heads by the validation part")
        chosen_by = {**hits, **_count(model, validation, choices, report)}
    classes = summed_channels(model.architecture)
    measured = {}
    for path, of_path in subsets.items():
        right = {answer: count[0] for answer, count in chosen_by[path].items()}
        best = {live: max(reversed(found), key=right.__getitem__) for live, found in of_path.items()}
        measured[path] = _rates(hits[path], best, len(part), classes)
    return measured


def _count(
    model: Supernet, part: Any, answers: Mapping[Path, Sequence[_Answer]], report: Callable[[str], None]
) -> dict[Path, dict[_Answer, np.ndarray]]:
    """By path and answer how many images are right, and right among the five best, int64 (2,)."""
    hits = {path: {answer: np.zeros(2, np.int64) for answer in of_path} for path, of_path in answers.items()}
    # Levels share what they run.
    groups = [[path] for path in hits] if model.switches else [list(hits)]
    cuts = [list(dict.fromkeys(cut for path in group for each in hits[path] for cut in each)) for group in groups]
    run: list[Callable[[tf.Tensor], list[tf.Tensor]]] = []
    seen, reported = 0, time.monotonic()
    with pipeline.reading():
        for images, labels in pipeline.evaluation_batches(part, _BATCH):
            for index, group in enumerate(groups):
                if not seen:
                    report(f"evaluating {', '.join(path.title for path in group)}")
                    run.append(partial_logits(model, cuts[index]))
                logits = [each.numpy().astype(np.float64) for each in run[index](images)]
                partial = dict(zip(cuts[index], logits, strict=True))
                for answer, count in (pair for path in group for pair in hits[path].items()):
                    fused = np.sum([partial[cut] for cut in answer], axis=0).astype(np.float32)
                    places = label_places(fused, labels.numpy())
                    count += (places < 1).sum(), (places < _TOP).sum()
            seen += len(labels)
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                report(f"evaluated {seen:,}/{len(part):,} images")
    return hits


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


def partial_logits(model: Supernet, cuts: Sequence[Cut]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """From uint8 images (batch, height, width, 3) to the logits of each of several cuts, float32 (batch, classes)."""
    image = tf.TensorSpec((None, *model.architecture.image_shape), tf.uint8)

    @tf.function(input_signature=[image])
    def run(images: tf.Tensor) -> list[tf.Tensor]:
        outputs = model.call_cuts(images, cuts)
        return [tf.cast(outputs[cut].prediction, tf.float32) for cut in cuts]

    # Traced here: TensorFlow takes one function for each path for one that is traced again and again, and warns.
    return run.get_concrete_function()


def _rates(
    hits: Mapping[_Answer, np.ndarray], best: Mapping[tuple[int, ...], _Answer], images: int, classes: int
) -> dict[str, Any]:
    """Of a path, by the answer of each set of its devices."""
    # The first set is that of all devices.
    right, among_top = hits[next(iter(best.values()))]
    subsets = []
    for live, answer in best.items():
        head = {"level": answer[0].level} if isinstance(answer[0], LevelCut) and len(best) > 1 else {}
        subsets.append({"devices": list(live), **head, "accuracy": float(hits[answer][0] / images)})
    return {
        "accuracy": float(right / images),
        "top5_accuracy": float(among_top / images) if classes > _TOP else None,
        "live_subsets": subsets,
    }
