"""Clustering: the weights of each convolution take few distinct values."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from export.compression import folded
from export.compression.folded import Weights
from export.compression.library import tfmot
from export.compression.settings import Compression

# Weights of int8 files are -127 to 127: symmetric.
_LARGEST = 127


class UnitConv2D(tf_keras.layers.Conv2D, tfmot.clustering.keras.ClusterableLayer):
    """A convolution whose outputs are multiplied by a gain for each channel before the bias is added.

    With a kernel whose channels all reach from -1 to 1, clusters of the kernel are clusters of the integers in an int8
    file, where every channel has a scale of its own. Weights: `kernel`, `bias` and `gain` (filters,).
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.gain = self.add_weight("gain", (self.filters,), initializer="ones")

    def call(self, inputs: Any) -> Any:
        outputs = self.convolution_op(inputs, self.kernel) * self.gain
        return outputs if self.bias is None else outputs + self.bias

    def get_clusterable_weights(self) -> list[tuple[str, Any]]:
        return [("kernel", self.kernel)]


def wrap(model: Any, weights: Weights, compression: Compression, images: np.ndarray) -> Any:
    """A model each of whose convolutions has `compression.clusters` centroids, which are trained with it.

    The first convolution, depthwise ones and the classifier keep their values, as in pruning. A kernel of so few values
    already is not trained here.

    Args:
      model: a folded slice model, to be trained.
      weights: its weights.
      compression: gives the clusters; with a sparsity the zeros are kept.
      images: not used.

    Source: Han et al. 2016, section 3, with the library's k-means++ start; the channels' gains are ours.
    """
    may = [layer for layer in model.layers if folded.compressible(layer)]
    chosen = {layer.name for layer in may if len(np.unique(weights[f"{layer.name}/kernel"])) > compression.clusters}

    def scale(layer: Any) -> Any:
        return (UnitConv2D if layer.name in chosen else type(layer)).from_config(layer.get_config())

    made = tf_keras.models.clone_model(model, clone_function=scale)
    units = dict(weights)
    for name in chosen:
        kernel = weights[f"{name}/kernel"]
        largest = np.abs(kernel).max(axis=(0, 1, 2))
        gain = np.where(largest > 0, largest, 1).astype(np.float32)
        units[f"{name}/kernel"], units[f"{name}/gain"] = kernel / gain, gain
    folded.load(made, units)
    for layer in may:
        made.get_layer(layer.name).trainable = layer.name in chosen

    def cluster(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        return tfmot.clustering.keras.cluster_weights(
            layer,
            compression.clusters,
            tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=compression.sparsity > 0,
        )

    return tf_keras.models.clone_model(made, clone_function=cluster)


def finish(model: Any, compression: Compression) -> Weights:
    """The weights; of a clustered layer the kernel of few values times the gains.

    The converter chooses the channels' scales from their largest weights. For the scales to be the gains, the largest
    weight of every channel is moved to the outermost cluster of its sign, and these two to the same size.
    """
    stripped = tfmot.clustering.keras.strip_clustering(model)
    weights = folded.weights_of(stripped)
    for layer in stripped.layers:
        if isinstance(layer, UnitConv2D):
            unit, gain = weights[f"{layer.name}/kernel"], weights[f"{layer.name}/gain"]
            weights[f"{layer.name}/kernel"] = reach_outermost(unit) * gain
    return weights


def reach_outermost(unit: np.ndarray) -> np.ndarray:
    """A clustered kernel (..., channels) in which every channel that is not all 0 has a weight of the largest size.

    Its clusters are as many or fewer, and whole multiples of that size / 127.
    """
    most = np.abs(unit).max()
    if most == 0:
        return unit
    flat = unit.reshape(-1, unit.shape[-1]).copy()
    low, high = flat.min(), flat.max()
    channels = np.arange(flat.shape[1])
    places = np.abs(flat).argmax(axis=0)
    signs = np.sign(flat[places, channels])
    flat[flat == high] = max(high, most if high > 0 else high)
    flat[flat == low] = min(low, -most if low < 0 else low)
    flat[places, channels] = signs * most
    return on_grid(flat).reshape(unit.shape)


def on_grid(values: np.ndarray) -> np.ndarray:
    """Values rounded to whole multiples of the largest one's size / 127, so that no rounding can part equal ones."""
    step = np.abs(values).max() / _LARGEST
    return (np.rint(values / step) * step).astype(np.float32) if step else values
