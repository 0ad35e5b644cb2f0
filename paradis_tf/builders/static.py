"""The static interpretation: one slice as a plain functional model of stock layers, for keras or tf_keras."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.builders.cost import summed_channels
from paradis_tf.builders.operations import PIXEL_OFFSET, PIXEL_SCALE, Operations, Tailed
from paradis_tf.layers.depth_to_space import DepthToSpace
from paradis_tf.layers.switchable_batch_normalization import EPSILON
from paradis_tf.switches import FULL, Slice, Switch

if TYPE_CHECKING:
    from paradis_tf.supernet import Supernet


def extract(
    supernet: Supernet,
    switch: Switch,
    device: int,
    keras_module: ModuleType = keras,
    normalized_input: bool = False,
    image_shape: tuple[int, int, int] | None = None,
) -> Any:
    """One device's slice model: stock layers only, weights copied from the supernet.

    Args:
      supernet: the model that owns the weights.
      switch: one of the supernet's switches.
      device: index of the device in the switch.
      keras_module: `keras` or `tf_keras`.
      normalized_input: if true the model takes float32 images in [-1, 1) (pixel / 128 - 1); if false it
        takes raw pixels 0..255 in any number type and normalizes them itself.
      image_shape: (height, width, 3) of the image; the architecture's if left out.

    Returns:
      a functional model (batch, height, width, 3) -> partial prediction, for a classifier logits (batch, classes),
      whose layers bear the names of the architecture.

    Raises:
      SwitchError: the supernet has no such switch or device.
    """
    supernet.check_device(switch, device)
    architecture = supernet.architecture
    weights = _weights_of(supernet, switch, device)
    ops = _StaticOperations(keras_module, switch.slices[device], normalized_input, weights)
    image = keras_module.Input(image_shape or architecture.image_shape, name="image", dtype="float32")
    outputs = architecture(ops, image)
    name = f"{architecture.name}_{switch.slug}_{device}"
    return _with_weights(keras_module.Model(image, outputs.prediction, name=name), weights)


def extract_tail(
    supernet: Supernet,
    keras_module: ModuleType = keras,
    image_shape: tuple[int | None, int | None, int] | None = None,
    normalized_input: bool = False,
) -> Any:
    """What an architecture with a tail does once with the summed predictions of the slices.

    Args:
      supernet: the model that owns the weights; its architecture has a tail.
      keras_module: `keras` or `tf_keras`.
      image_shape: (height, width, 3) of the image, `None` for an open side; the architecture's if left out.
      normalized_input: as in `extract`.

    Returns:
      a functional model (image, sum of the slice models' outputs) -> answer: of super-resolution, float pixels
      (batch, height * scale, width * scale, 3), not clipped. Its layers are stock but for `DepthToSpace` in keras and
      TensorFlow's own `depth_to_space` in tf_keras, one TFLite operator in both.

    Raises:
      ValueError: the architecture has no tail.
    """
    architecture = supernet.architecture
    if not isinstance(architecture, Tailed):
        raise ValueError(f"architecture {architecture.name!r} has no tail; the sum of its slices is the answer.")
    weights = _weights_of(supernet, Switch((FULL,)), 0)
    ops = _StaticOperations(keras_module, FULL, normalized_input, weights)
    image = keras_module.Input(image_shape or architecture.image_shape, name="image", dtype="float32")
    channels = summed_channels(architecture)
    summed = keras_module.Input((*image.shape[1:3], channels), name="summed", dtype="float32")
    answer = architecture.tail(ops, image, summed)
    return _with_weights(keras_module.Model([image, summed], answer, name=f"{architecture.name}_tail"), weights)


def _weights_of(supernet: Supernet, switch: Switch, device: int) -> Callable[[str], list[np.ndarray]]:
    """The weights of a layer by its name, computed when they are asked for."""
    layers = {layer.name: layer for layer in supernet.shared_layers}
    return functools.cache(lambda name: layers[name].static_weights(switch, device))


def _with_weights(model: Any, weights: Callable[[str], list[np.ndarray]]) -> Any:
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights(layer.name))
    return model


class _StaticOperations(Operations[Any]):
    """Makes stock layers; a "tensor" is a symbolic tensor of `keras` or `tf_keras`."""

    def __init__(
        self,
        keras_module: ModuleType,
        slice: Slice,
        normalized_input: bool,
        weights: Callable[[str], list[np.ndarray]],
    ) -> None:
        self.keras = keras_module
        self.layers = keras_module.layers
        self.slice = slice
        self.normalized_input = normalized_input
        self.weights = weights

    def normalize(self, image: Any) -> Any:
        if self.normalized_input:
            return image
        return self.layers.Rescaling(PIXEL_SCALE, PIXEL_OFFSET, name="normalize")(image)

    def conv(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        strides: int = 1,
        slice_inputs: bool = True,
    ) -> Any:
        first, last = self.slice.channels(filters, name)
        return self.layers.Conv2D(last - first, kernel_size, strides, padding="same", use_bias=False, name=name)(x)

    def weight_norm_conv(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        gain: float = 1.0,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
    ) -> Any:
        first, last = self.slice.channels(filters, name) if slice_outputs else (0, filters)
        biased = use_bias and (slice_outputs or self.slice.start == 0)
        return self.layers.Conv2D(last - first, kernel_size, padding="same", use_bias=biased, name=name)(x)

    def bias(self, x: Any, *, name: str) -> Any:
        # No stock layer keeps a bias alone.
        (offset,) = self.weights(name)
        return self.layers.Rescaling(1.0, offset.tolist(), name=name)(x)

    def depthwise_conv(self, x: Any, kernel_size: int, *, name: str, strides: int = 1) -> Any:
        return self.layers.DepthwiseConv2D(kernel_size, strides, padding="same", use_bias=False, name=name)(x)

    def batch_norm(self, x: Any, *, name: str) -> Any:
        return self.layers.BatchNormalization(epsilon=EPSILON, name=name)(x)

    def relu6(self, x: Any, *, name: str) -> Any:
        return self.layers.ReLU(6.0, name=name)(x)

    def relu(self, x: Any, *, name: str) -> Any:
        return self.layers.ReLU(name=name)(x)

    def add(self, x: Any, y: Any, *, name: str) -> Any:
        return self.layers.Add(name=name)([x, y])

    def max_pool(self, x: Any, pool_size: int, *, name: str, strides: int) -> Any:
        return self.layers.MaxPooling2D(pool_size, strides, padding="same", name=name)(x)

    def depth_to_space(self, x: Any, block_size: int, *, name: str) -> Any:
        if self.keras is keras:
            return DepthToSpace(block_size, name=name)(x)
        return tf.nn.depth_to_space(x, block_size, name=name)

    def denormalize(self, x: Any, *, name: str) -> Any:
        return self.layers.Rescaling(1 / PIXEL_SCALE, -PIXEL_OFFSET / PIXEL_SCALE, name=name)(x)

    def global_average_pool(self, x: Any, *, name: str) -> Any:
        return self.layers.GlobalAveragePooling2D(name=name)(x)

    def classifier(self, x: Any, classes: int, *, name: str) -> Any:
        return self.layers.Dense(classes, use_bias=self.slice.start == 0, name=name)(x)
