"""Where a slice's graph is quantized while it is trained, in the terms of tensorflow-model-optimization."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from export.compression.library import tfmot

_BITS = 8
# The narrowest range of a channel, which may be all zeros: in steps of a narrower one its bias would leave 32 bits.
_LEAST_RANGE = 1e-3


class KernelQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """8 bits for a kernel: symmetric, -127 to 127, in ranges that follow the weights.

    Args:
      axis: the kernel's dimension of outputs, each of which has a range of its own: 3 of a convolution, 2 of a
        depthwise one; -1 for one range of the whole kernel, as the converter takes a dense layer's.
      keeps_zeros: whether a weight that is 0 stays 0.

    Weights of its own, beside the kernel: `min` and `max` (outputs,) or scalars; with zeros kept `mask` (shape of the
    kernel).

    The library's own quantizers give depthwise kernels one range. Source: ranges of each output from Krishnamoorthi
    2018, section 3.
    """

    def __init__(self, axis: int = -1, keeps_zeros: bool = False) -> None:
        self.axis = axis
        self.keeps_zeros = keeps_zeros

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        shape = tuple(tensor_shape)
        outputs = (shape[self.axis],) if self.axis >= 0 else ()

        def weight(suffix: str, shape: tuple[int, ...]) -> Any:
            return layer.add_weight(f"{name}_{suffix}", shape, initializer="zeros", trainable=False)

        weights = {"min": weight("min", outputs), "max": weight("max", outputs)}
        if self.keeps_zeros:
            weights["mask"] = weight("mask", shape)
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
        """The kernel with its zeros, not rounded, and the upper ends of its ranges."""
        kernel = kernel * weights["mask"] if self.keeps_zeros else kernel
        most = tf.reduce_max(tf.abs(kernel), [axis for axis in range(len(kernel.shape)) if axis != self.axis])
        return kernel, tf.maximum(most, _LEAST_RANGE)

    def get_config(self) -> dict[str, Any]:
        return {"axis": self.axis, "keeps_zeros": self.keeps_zeros}


class LayerQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """What of a layer is quantized.

    Args:
      kernel: the attribute that holds its kernel; "" for a layer without.
      output: whether its output is rounded: it is not where a ReLU follows, which the file has in the same operator,
        and not after pooling, which makes no new values.
      axis, keeps_zeros: as in `KernelQuantizer`.
    """

    def __init__(self, kernel: str = "", output: bool = False, axis: int = -1, keeps_zeros: bool = False) -> None:
        self.kernel = kernel
        self.output = output
        self.quantizer = KernelQuantizer(axis, keeps_zeros)

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
