"""Recomputes the statistics of batch norm with frozen weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.builders.shared import SharedOperations
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

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
    switches: Sequence[Switch | str] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> int:
    """Replaces the moving statistics of batch norm by plain averages over batches; no other weight changes.

    Each batch is run as in training, normalized with its own statistics. Their averages, the mean of the batch means
    and that of the unbiased batch variances, each batch counting by its images, take the place of the moving ones,
    which have no part in the result: it is the same however little a switch was trained. A switch's own statistics are
    replaced once all its batches have run.

    Args:
      model: the supernet, changed in place.
      batches: (images, targets) as training takes them; gone through once for each switch, so an iterator that is
        exhausted by the first one will not do. The same batches should come each time.
      switches: those whose statistics to recompute, as `Switch` or in text form; `None` takes all.
      report: is told what is being done.

    Returns:
      how many images each switch has seen.

    Raises:
      SwitchError: the supernet has no such switch.
      UserError: no layer is batch norm, there are no batches, or statistics come out that are not finite.

    Source: US-Nets (Yu & Huang 2019, batch normalization calibrated after training), for each device of each switch.
    """
    require_batch_norm(model)
    asked = model.switches if switches is None else switches
    wanted = [Switch.parse(switch, model.grid) if isinstance(switch, str) else switch for switch in asked]
    for switch in wanted:
        model.check_device(switch, 0)
    seen = 0
    for switch in wanted:
        report(f"recalibrating switch {switch}")
        averages, seen = _averages(model, batches, switch, report)
        for device, statistics in enumerate(averages):
            for layer in model.shared_layers:
                if layer.name in statistics:
                    layer.set_statistics(switch, device, *statistics[layer.name])
    return seen


def _averages(
    model: Supernet, batches: Iterable[tuple[Any, Any]], switch: Switch, report: Callable[[str], None]
) -> tuple[list[_Statistics], int]:
    """The averaged statistics of each device of a switch, and the number of images."""
    layers = {layer.name: layer for layer in model.shared_layers}

    # Made anew for each switch, so that the graph and its memory go with it.
    @tf.function
    def run(images: Any) -> list[dict[str, Any]]:
        devices = [_BatchStatistics(layers, switch, device) for device in range(switch.devices)]
        for operations in devices:
            model.architecture(operations, images)
        return [operations.found for operations in devices]

    sums: Any = None
    seen = 0
    last = time.monotonic()
    for images, *_ in batches:
        # In double precision: thousands of batches are added.
        found = [
            {name: [len(images) * value.numpy().astype(np.float64) for value in pair] for name, pair in device.items()}
            for device in run(images)
        ]
        sums = found if sums is None else tf.nest.map_structure(np.add, sums, found)
        seen += len(images)
        if time.monotonic() - last > _REPORT_SECONDS:
            last = time.monotonic()
            report(f"recalibrating switch {switch}: {seen} images")
    if not seen:
        raise UserError(f"recalibration of switch '{switch}' got no images; it takes at least one batch of them.")
    averages = tf.nest.map_structure(lambda value: value / seen, sums)
    for name, statistics in ((name, pair) for device in averages for name, pair in device.items()):
        if not np.isfinite(statistics).all():
            raise UserError(f"the batch statistics of layer {name!r} in switch '{switch}' are not finite.")
    return averages, seen


class _BatchStatistics(SharedOperations):
    """Runs one slice as training does, and keeps the batch's statistics in `found` and out of the layers."""

    def __init__(self, layers: dict[str, keras.layers.Layer], switch: Switch, device: int) -> None:
        super().__init__(layers, switch, device, training=True)
        self.found: dict[str, list[Any]] = {}

    def batch_norm(self, x: Any, *, name: str) -> Any:
        outputs, mean, variance = self.layers[name].normalize_batch(x, self.switch, self.device)
        self.found[name] = [mean, variance]
        return outputs
