"""One slice as convolutions with a bias: the static model with batch norm folded away, for `tf_keras`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from paradis_tf.builders.static import extract
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

# Weights of a model by `layer/weight`, as they travel between processes.
Weights = dict[str, np.ndarray]

_layers = tf_keras.layers
_CONVOLUTIONS = (_layers.Conv2D, _layers.DepthwiseConv2D)


def fold(
    model: Supernet,
    switch: Switch,
    device: int,
    trainable: bool = False,
    image_shape: tuple[int, int, int] | None = None,
) -> Any:
    """One device's slice model without batch norm, which is in the kernels and biases of the convolutions before it.

    A file has batch norm folded, so this is the network that is quantized. Zeros and clusters are those of the kernels
    that reach the file, weight ranges are the file's, and no statistics move while it is trained.

    Args:
      model: the supernet that owns the weights.
      switch: one of its switches.
      device: index of the device in the switch.
      trainable: whether it is to be trained. A strided 1x1 convolution is then a strided pooling over one pixel and a
        plain convolution, as oneDNN's gradient of the strided kernel is wrong for narrow slices.
      image_shape: (height, width, 3) of the image; the architecture's if left out.

    Returns:
      a functional tf_keras model (batch, height, width, 3) float32 in [-1, 1) -> partial prediction; its layers bear
      the names of the architecture, whatever `trainable` is.

    Raises:
      ValueError: a batch norm that follows no convolution.

    Source: folding as in Jacob et al. 2018, section 3.2, with the statistics of inference.
    """
    source = extract(model, switch.cut(device), tf_keras, normalized_input=True, image_shape=image_shape)
    weights: Weights = {}
    made: dict[str, Any] = {}
    for layer in source.layers:
        if isinstance(layer, _layers.InputLayer):
            made[layer.name] = tf_keras.Input(layer.output.shape[1:], name=layer.name, dtype="float32")
            continue
        before = [node.layer for node in layer.inbound_nodes[0].parent_nodes]
        inputs = [made[one.name] for one in before]
        if isinstance(layer, _layers.BatchNormalization):
            _fold_into(weights, before[0], layer)
            made[layer.name] = inputs[0]
            continue
        made[layer.name] = _apply(layer, inputs, trainable)
        weights.update((f"{layer.name}/{_short(weight)}", weight.numpy()) for weight in layer.weights)
    folded = tf_keras.Model(made[source.layers[0].name], made[source.layers[-1].name], name=source.name)
    load(folded, weights)
    return folded


def weights_of(model: Any) -> Weights:
    """All weights of a model by `layer/weight`, of wrapped layers by the name of the layer inside."""
    return {
        f"{_layer_name(layer)}/{_short(weight)}": weight.numpy() for layer in model.layers for weight in layer.weights
    }


def load(model: Any, weights: Weights) -> None:
    """Gives those weights of a model their values that are named; the others keep theirs.

    Raises:
      ValueError: a weight of that name has another shape.
    """
    for layer in model.layers:
        for weight in layer.weights:
            name = f"{_layer_name(layer)}/{_short(weight)}"
            if name in weights:
                weight.assign(weights[name])


def consumers(model: Any, layer: Any) -> list[Any]:
    """The layers of a functional model that take a layer's output."""
    inside = {id(one) for one in model.layers}
    return [node.layer for node in layer.outbound_nodes if id(node.layer) in inside]


def compressible(layer: Any) -> bool:
    """Whether a layer of a folded model is a convolution whose kernel may be pruned and clustered: neither depthwise
    nor the first one."""
    if type(layer) is not _layers.Conv2D:
        return False
    return not any(isinstance(node.layer, _layers.InputLayer) for node in layer.inbound_nodes[0].parent_nodes)


def _apply(layer: Any, inputs: list[Any], trainable: bool) -> Any:
    config = layer.get_config()
    if isinstance(layer, _CONVOLUTIONS) and not config["use_bias"] and _normalized(layer):
        config["use_bias"] = True
    x = inputs if len(inputs) > 1 else inputs[0]
    if trainable and type(layer) is _layers.Conv2D and layer.kernel_size == (1, 1) and layer.strides != (1, 1):
        x = _layers.MaxPooling2D(1, layer.strides, name=f"{layer.name}_stride")(x)
        config["strides"] = (1, 1)
    return type(layer).from_config(config)(x)


def _normalized(layer: Any) -> bool:
    return any(isinstance(node.layer, _layers.BatchNormalization) for node in layer.outbound_nodes)


def _fold_into(weights: Weights, conv: Any, norm: Any) -> None:
    if not isinstance(conv, _CONVOLUTIONS):
        raise ValueError(f"batch norm {norm.name!r} follows {conv.name!r}, which is no convolution.")
    kernel = f"{conv.name}/{_short(conv.weights[0])}"
    gamma, beta, mean, variance = (value.astype(np.float64) for value in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    # The outputs are a depthwise kernel's third dimension, and any other's fourth.
    depthwise = isinstance(conv, _layers.DepthwiseConv2D)
    weights[kernel] = (weights[kernel] * (scale[:, np.newaxis] if depthwise else scale)).astype(np.float32)
    weights[f"{conv.name}/bias"] = (beta - mean * scale).astype(np.float32)


def _short(weight: Any) -> str:
    return weight.name.split(":")[0].split("/")[-1]


def _layer_name(layer: Any) -> str:
    return layer.layer.name if hasattr(layer, "layer") else layer.name
