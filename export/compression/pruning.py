"""Pruning: the smallest weights of each convolution become zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from export.compression import folded
from export.compression.folded import Weights
from export.compression.library import tfmot
from export.compression.settings import Compression

# The part of the steps during which zeros are added, and how often that happens; the rest trains what is left.
_GROWING = 0.6
_UPDATES = 20


def wrap(model: Any, weights: Weights, compression: Compression, images: np.ndarray) -> Any:
    """A model whose convolutions are pruned as it is trained, from no zeros to `compression.sparsity` of each kernel.

    The first convolution, depthwise ones and the classifier keep all weights: they are few, and each of them matters.

    Args:
      model: a folded slice model, to be trained; changed by this.
      weights: its weights.
      compression: gives the sparsity and the steps.
      images: not used.

    Source: Zhu & Gupta 2017, the cubic schedule.
    """
    growing = max(1, round(_GROWING * compression.steps))
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0, compression.sparsity, 1, 1 + growing, frequency=max(1, growing // _UPDATES)
    )

    def prune(layer: Any) -> Any:
        if not folded.compressible(layer):
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule)

    wrapped = tf_keras.models.clone_model(model, clone_function=prune)
    for layer in _pruned(wrapped):
        layer.pruning_step.assign(0)
    return wrapped


def finish(model: Any, compression: Compression) -> Weights:
    """The weights with their zeros."""
    for layer in _pruned(model):
        layer.pruning_obj.weight_mask_op()
    return folded.weights_of(tfmot.sparsity.keras.strip_pruning(model))


def _pruned(model: Any) -> list[Any]:
    return [layer for layer in model.layers if hasattr(layer, "pruning_obj")]
