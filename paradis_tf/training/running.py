"""Passes run: the outputs of their paths from one forward run where they share it, and what each learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from paradis_tf.methods.passes import Pass, Teacher
from paradis_tf.supernet import Supernet
from paradis_tf.training.live_sets import draw_live_sets, scaled_by
from paradis_tf.training.moment import Moment

# The detached outputs of teachers.
Taught = dict[Teacher, Mapping[str, tf.Tensor]]


@dataclass(frozen=True)
class Learned:
    """What a pass gave.

    Attributes:
      outputs: of its path.
      loss: of them, before the factor.
      weighted: what is minimized, with what sets of live devices learn.
    """

    outputs: Mapping[str, tf.Tensor]
    loss: tf.Tensor
    weighted: tf.Tensor


def run_together(
    network: Supernet, passes: Sequence[Pass], images: Any, targets: Any, taught: Taught, moment: Moment, place: int
) -> list[Learned]:
    """Runs several passes together; recorded by the caller's tape.

    Args:
      network: what is trained.
      passes: the passes; each may learn from the others.
      images, targets: a batch.
      taught: the teachers' outputs so far; those of these passes are added, detached.
      moment: the step.
      place: that of the passes in the step.
    """
    of_cuts = network.call_cuts(images, [cut for entry in passes for cut in entry.path.cuts], training=True)
    partial = {entry.path: [of_cuts[cut] for cut in entry.path.cuts] for entry in passes}
    outputs = {path: network.fuse(images, of_path) for path, of_path in partial.items()}
    for path, of_path in outputs.items():
        taught[Teacher(path)] = {name: tf.stop_gradient(value) for name, value in of_path.items()}
    learned = []
    for entry in passes:
        loss = entry.loss(network.task, targets, outputs[entry.path], taught)
        weighted = loss
        if entry.live:
            of_sets = []
            for device_weights in draw_live_sets(entry.live, entry.path.devices, moment.seed_of(place)):
                fused = network.fuse(images, scaled_by(partial[entry.path], device_weights))
                of_sets.append(entry.loss(network.task, targets, fused, taught, entry.live.objectives))
            # A mean, not a sum: the path's say in the shared weights stays what it is.
            weight = moment.now(entry.live.weight)
            weighted = (loss + weight / len(of_sets) * tf.add_n(of_sets)) / (1.0 + weight)
        learned.append(Learned(outputs[entry.path], loss, weighted * moment.now(entry.factor)))
    return learned
