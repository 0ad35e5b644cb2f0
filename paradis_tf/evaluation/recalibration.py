"""Recomputes the statistics of batch norm with frozen weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.builders.architecture import FUSION, read
from paradis_tf.builders.shared import Applied
from paradis_tf.cuts import Cut, Path
from paradis_tf.operations.operation import CutCall
from paradis_tf.supernet import Supernet

_REPORT_SECONDS = 5.0

# Of each layer by name, (mean, variance), float64 (channels of the device,).
_Statistics = dict[str, list[np.ndarray]]


def has_batch_norm(model: Supernet) -> bool:
    """Whether a layer has statistics to recompute."""
    return any(hasattr(layer, "set_statistics") for layer in model.shared_layers)


def require_batch_norm(model: Supernet) -> None:
    """Raises UserError unless a layer has statistics to recompute."""
    if not has_batch_norm(model):
        raise UserError(f"architecture {model.architecture.name!r} has no batch norm; there is nothing to recalibrate.")


def recalibrate(
    model: Supernet,
    batches: Iterable[tuple[Any, Any]],
    report: Callable[[str], None] = lambda text: None,
) -> int:
    """Replaces the moving statistics of batch norm by plain averages over batches; no other weight changes.

    Each batch is run as in training, normalized with its own statistics. Their averages, the mean of the batch means
    and that of the unbiased batch variances, each batch counting by its images, take the place of the moving ones,
    which have no part in the result: it is the same however little a path was trained. A path's own statistics are
    replaced once all its batches have run. Levels that share statistics are run once, as the widest of them.

    Args:
      model: the supernet, changed in place.
      batches: (images, targets) as training takes them; gone through once for each path, so an iterator that is
        exhausted by the first one will not do. The same batches should come each time.
      report: is told what is being done.

    Returns:
      how many images each path has seen.

    Raises:
      UserError: no layer is batch norm, there are no batches, or statistics come out that are not finite.

    Source: US-Nets (Yu & Huang 2019, batch normalization calibrated after training), for each device of each path.
    """
    require_batch_norm(model)
    seen = 0
    done: set[str] = set()
    for path in sorted(model.paths, key=lambda path: path.width, reverse=True):
        cuts = [cut for cut in path.cuts if cut.key not in done]
        if not cuts:
            continue
        done.update(cut.key for cut in cuts)
        report(f"recalibrating {path.title}")
        averages, seen = _averages(model, batches, path, cuts, report)
        for cut, statistics in zip(cuts, averages, strict=True):
            for layer in model.shared_layers:
                if layer.name in statistics:
                    layer.set_statistics(cut, *statistics[layer.name])
    return seen


def _averages(
    model: Supernet,
    batches: Iterable[tuple[Any, Any]],
    path: Path,
    cuts: Sequence[Cut],
    report: Callable[[str], None],
) -> tuple[list[_Statistics], int]:
    """The averaged statistics of some devices of a path, and the number of images."""
    layers = {layer.name: layer for layer in model.shared_layers}

    # Made anew for each path, so that the graph and its memory go with it.
    @tf.function
    def statistics_of(images: Any) -> list[dict[str, Any]]:
        statistics: list[dict[str, Any]] = [{} for _ in cuts]
        for cut, of_cut in zip(cuts, statistics, strict=True):
            call = CutCall(cut, model.compute_dtype, training=True, statistics=of_cut)
            read(model.architecture, Applied(layers, call), images, end=FUSION)
        return statistics

    sums: Any = None
    seen = 0
    last = time.monotonic()
    for images, _ in batches:
        # In double precision: thousands of batches are added.
        sums_of_batch = [
            {name: [len(images) * value.numpy().astype(np.float64) for value in pair] for name, pair in device.items()}
            for device in statistics_of(images)
        ]
        sums = sums_of_batch if sums is None else tf.nest.map_structure(np.add, sums, sums_of_batch)
        seen += len(images)
        if time.monotonic() - last > _REPORT_SECONDS:
            last = time.monotonic()
            report(f"recalibrating {path.title}: {seen} images")
    if not seen:
        raise UserError(f"recalibration of {path.kind} '{path}' got no images; it takes at least one batch of them.")
    averages = tf.nest.map_structure(lambda value: value / seen, sums)
    for name, statistics in ((name, pair) for device in averages for name, pair in device.items()):
        if not np.isfinite(statistics).all():
            raise UserError(f"the batch statistics of layer {name!r} in {path.kind} '{path}' are not finite.")
    return averages, seen
