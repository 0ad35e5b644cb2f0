"""Quantization-aware training: 8-bit weights and activations in the graph that is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from export.compression import folded
from export.compression.folded import Weights
from export.compression.quantizers import LayerQuantizeConfig, quantize
from export.compression.settings import Compression

_layers = tf_keras.layers
# By layer: the attribute that holds its kernel, and that one's dimension of outputs with ranges of their own.
_KERNELS = {
    _layers.Conv2D: ("kernel", 3),
    _layers.DepthwiseConv2D: ("depthwise_kernel", 2),
    _layers.Dense: ("kernel", -1),
}
_ROUNDED = (*_KERNELS, _layers.Add, _layers.ReLU, _layers.GlobalAveragePooling2D)

CALIBRATION_IMAGES = 512
_BATCH = 128


def wrap(model: Any, weights: Weights, compression: Compression, images: np.ndarray) -> Any:
    """A model with fake quantization, its ranges calibrated.

    Ranges of activations start from their least and largest value over the first 512 images and move by a thousandth
    with each step's; the library's start, -6 to 6, would take thousands of steps to leave.

    Args:
      model: a folded slice model with its weights.
      weights: its weights.
      compression: says whether zeros are kept, as they are after pruning.
      images: float32 (n, height, width, 3) in [-1, 1).

    Source: Jacob et al. 2018, section 3.
    """
    configs = _configs(model)
    start = {**weights, **_calibrated(model, configs, images)}
    for name, config in configs.items():
        if compression.sparsity and folded.compressible(model.get_layer(name)):
            config.quantizer.keeps_zeros = True
            start[f"{name}/kernel_mask"] = (weights[f"{name}/kernel"] != 0).astype(np.float32)
    return _quantized(model, configs, start)


def finish(model: Any, compression: Compression) -> Weights:
    """The weights, with the ranges of kernels, `<kernel>_min` and `_max`, and of outputs, `output_min` and `_max`.

    The ranges of kernels are those of the weights after the last step, and kept zeros are in the kernels.
    """
    weights = folded.weights_of(model)
    finished: Weights = {}
    for layer in model.layers:
        config = getattr(layer, "quantize_config", None)
        if not isinstance(config, LayerQuantizeConfig):
            continue
        name = layer.layer.name
        own = [f"{name}/{short}" for short in ("bias", "output_min", "output_max")]
        finished.update((key, weights[key]) for key in own if key in weights)
        if config.kernel:
            kernel = f"{name}/{config.kernel}"
            value, most = config.quantizer.constrained(weights[kernel], {"mask": weights.get(f"{kernel}_mask")})
            finished[kernel] = value.numpy() if tf.is_tensor(value) else value
            finished[f"{kernel}_min"], finished[f"{kernel}_max"] = -most.numpy(), most.numpy()
    return finished


def restore(model: Any, weights: Weights) -> Any:
    """A folded slice model with the fake quantization that training left, for conversion.

    Args:
      model: a folded slice model.
      weights: as `finish` gave them.
    """
    return _quantized(model, _configs(model), weights)


def _configs(model: Any) -> dict[str, LayerQuantizeConfig]:
    """What is quantized, by layer: kernels, and outputs unless a ReLU follows."""
    configs = {}
    for layer in model.layers:
        if type(layer) in _ROUNDED:
            fused = any(isinstance(after, _layers.ReLU) for after in folded.consumers(model, layer))
            kernel, axis = _KERNELS.get(type(layer), ("", -1))
            configs[layer.name] = LayerQuantizeConfig(kernel, not fused, axis)
    return configs


def _quantized(model: Any, configs: dict[str, LayerQuantizeConfig], weights: Weights) -> Any:
    made = quantize(model, configs)
    folded.load(made, weights)
    return made


def _calibrated(model: Any, configs: dict[str, LayerQuantizeConfig], images: np.ndarray) -> Weights:
    """Least and largest output of each layer whose output is quantized, over the images; 0 lies between them."""
    rounded = [name for name, config in configs.items() if config.output]
    outputs = tf_keras.Model(model.inputs, [model.get_layer(name).output for name in rounded])
    low, high = np.zeros(len(rounded)), np.zeros(len(rounded))
    for first in range(0, min(len(images), CALIBRATION_IMAGES), _BATCH):
        values = outputs(images[first : first + _BATCH], training=False)
        low = np.minimum(low, [np.min(value) for value in values])
        high = np.maximum(high, [np.max(value) for value in values])
    ranges: Weights = {}
    for name, least, most in zip(rounded, low, high, strict=True):
        ranges[f"{name}/output_min"], ranges[f"{name}/output_max"] = np.asarray(least), np.asarray(most)
    return ranges
