"""Where a slice's graph is quantized while it is trained, in the terms of tensorflow-model-optimization."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from export.compression.library import tfmot

_BITS = 8
# Weights are -127 to 127: symmetric.
_LARGEST = 127
# The narrowest range of a channel whose weights are all zero.
_LEAST_RANGE = 1e-6


class KernelQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """8 bits for a kernel: symmetric, -127 to 127, in ranges that follow the weights.

    Args:
      axis: the kernel's dimension of outputs, each of which has a range of its own: 3 of a convolution, 2 of a
        depthwise one; -1 for one range of the whole kernel, as the converter takes a dense layer's.
      keeps: what training is not to change: "" nothing; "zeros", a weight that is 0; "clusters", which weights of the
        kernel are equal but for the channels' gains, and which are 0.
      clusters: how many clusters there are, where they are kept.

    Weights of its own, beside the kernel: `min` and `max` (outputs,) or scalars; for zeros `mask` (shape of the
    kernel); for clusters `centroids` (clusters,), `live` (clusters,), 0 where a centroid stays 0, `gain` (outputs,)
    and `indices` (shape of the kernel), where weight = gain[output] * centroids[index]. With clusters the range of an
    output is its gain times the largest centroid, so that equal centroids are equal integers whatever the gain.

    The library's own quantizers give depthwise kernels one range, and its cluster-preserving scheme may split a
    layer's clusters into clusters of each output. Source: ranges of each output from Krishnamoorthi 2018, section 3;
    the common range of clusters is ours.
    """

    def __init__(self, axis: int = -1, keeps: str = "", clusters: int = 0) -> None:
        self.axis = axis
        self.keeps = keeps
        self.clusters = clusters

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        shape = tuple(tensor_shape)
        outputs = (shape[self.axis],) if self.axis >= 0 else ()

        def weight(suffix: str, shape: tuple[int, ...], trainable: bool = False, dtype: str = "float32") -> Any:
            return layer.add_weight(f"{name}_{suffix}", shape, dtype, initializer="zeros", trainable=trainable)

        weights = {"min": weight("min", outputs), "max": weight("max", outputs)}
        if self.keeps == "zeros":
            weights["mask"] = weight("mask", shape)
        if self.keeps == "clusters":
            weights["centroids"] = weight("centroids", (self.clusters,), trainable=True)
            weights["live"] = weight("live", (self.clusters,))
            weights["gain"] = weight("gain", outputs, trainable=True)
            weights["indices"] = weight("indices", shape, dtype="int32")
        return weights

    def __call__(self, inputs: Any, training: bool, weights: dict[str, Any], **kwargs: Any) -> Any:
        kernel = inputs
        if training:
            kernel, most = self.constrained(inputs, weights)
            most = tf.stop_gradient(most)
            weights["min"].assign(-most)
            weights["max"].assign(most)
        options = {"num_bits": _BITS, "narrow_range": True}
        low, high = weights["min"], weights["max"]
        if self.axis < 0:
            return tf.quantization.fake_quant_with_min_max_vars(kernel, low, high, **options)
        # The operation takes its outputs last.
        order = [axis for axis in range(len(kernel.shape)) if axis != self.axis] + [self.axis]
        kernel = tf.transpose(kernel, order)
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, low, high, **options)
        return tf.transpose(kernel, np.argsort(order))

    def constrained(self, kernel: Any, weights: dict[str, Any]) -> tuple[Any, Any]:
        """The kernel with what is kept, not rounded, and the upper ends of its ranges."""
        if self.keeps == "clusters":
            centroids = weights["centroids"] * weights["live"]
            kernel = tf.gather(centroids, weights["indices"]) * weights["gain"]
            most = tf.reduce_max(tf.abs(centroids)) * tf.abs(weights["gain"])
        else:
            kernel = kernel * weights["mask"] if self.keeps == "zeros" else kernel
            most = tf.reduce_max(tf.abs(kernel), [axis for axis in range(len(kernel.shape)) if axis != self.axis])
        return kernel, tf.maximum(most, _LEAST_RANGE)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis, "keeps": self.keeps, "clusters": self.clusters}


def on_grid(values: np.ndarray) -> np.ndarray:
    """Values rounded to whole multiples of the largest one's size / 127, so that no rounding can part equal ones."""
    step = np.abs(values).max() / _LARGEST
    return (np.rint(values / step) * step).astype(np.float32) if step else values


class LayerQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """What of a layer is quantized.

    Args:
      kernel: the attribute that holds its kernel; "" for a layer without.
      output: whether its output is rounded: it is not where a ReLU follows, which the file has in the same operator,
        and not after pooling, which makes no new values.
      axis, keeps, clusters: as in `KernelQuantizer`.
    """

    def __init__(
        self, kernel: str = "", output: bool = False, axis: int = -1, keeps: str = "", clusters: int = 0
    ) -> None:
        self.kernel = kernel
        self.output = output
        self.quantizer = KernelQuantizer(axis, keeps, clusters)

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return [(getattr(layer, self.kernel), self.quantizer)] if self.kernel else []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        for kernel in quantize_weights:
            setattr(layer, self.kernel, kernel)

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        pass

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        if not self.output:
            return []
        return [
            tfmot.quantization.keras.quantizers.MovingAverageQuantizer(
                num_bits=_BITS, per_axis=False, symmetric=False, narrow_range=False
            )
        ]

    def get_config(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "output": self.output, **self.quantizer.get_config()}


class _NoTransforms:
    """The library's own would replace what the configs say, and leave kernels right before a ReLU in float."""

    def apply(self, model: Any, layer_quantize_map: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return model, layer_quantize_map


class _Scheme(tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme):
    def get_layout_transformer(self) -> _NoTransforms:
        return _NoTransforms()


def quantize(model: Any, configs: dict[str, LayerQuantizeConfig]) -> Any:
    """A copy of a functional model with fake quantization as the configs of its layers say, its weights at random."""

    def annotate(layer: Any) -> Any:
        copy = type(layer).from_config(layer.get_config())
        return (
            tfmot.quantization.keras.quantize_annotate_layer(copy, configs[layer.name])
            if layer.name in configs
            else copy
        )

    with tf_keras.utils.custom_object_scope({"LayerQuantizeConfig": LayerQuantizeConfig}):
        return tfmot.quantization.keras.quantize_apply(
            tf_keras.models.clone_model(model, clone_function=annotate), _Scheme()
        )
