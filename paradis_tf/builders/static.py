"""The static interpretation: one slice as a plain functional model of stock layers, for keras or tf_keras."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras

from paradis_tf.builders.operations import PIXEL_OFFSET, PIXEL_SCALE, Operations
from paradis_tf.layers.switchable_batch_normalization import EPSILON
from paradis_tf.switches import Slice, Switch

if TYPE_CHECKING:
    from paradis_tf.supernet import Supernet


def extract(
    supernet: Supernet,
    switch: Switch,
    device: int,
    keras_module: ModuleType = keras,
    normalized_input: bool = False,
) -> Any:
    """One device's slice model: stock layers only, weights copied from the supernet.

    Args:
      supernet: the model that owns the weights.
      switch: one of the supernet's switches.
      device: index of the device in the switch.
      keras_module: `keras` or `tf_keras`.
      normalized_input: if true the model takes float32 images in [-1, 1) (pixel / 128 - 1); if false it
        takes raw pixels 0..255 in any number type and normalizes them itself.

    Returns:
      a functional model (batch, height, width, 3) -> partial logits (batch, classes), whose layers bear the names
      of the architecture. Source: ours.

    Raises:
      SwitchError: the supernet has no such switch or device.
    """
    supernet.check_device(switch, device)
    architecture = supernet.architecture
    ops = _StaticOperations(keras_module.layers, switch.slices[device], normalized_input)
    image = keras_module.Input(architecture.image_shape, name="image", dtype="float32")
    outputs = architecture(ops, image)
    name = f"{architecture.name}_{switch.slug}_{device}"
    model = keras_module.Model(image, outputs.prediction, name=name)
    for layer in supernet.shared_layers:
        model.get_layer(layer.name).set_weights(layer.static_weights(switch, device))
    return model


class _StaticOperations(Operations[Any]):
    """Makes stock layers; a "tensor" is a symbolic tensor of `keras` or `tf_keras`."""

    def __init__(self, layers: ModuleType, slice: Slice, normalized_input: bool) -> None:
        self.layers = layers
        self.slice = slice
        self.normalized_input = normalized_input

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

    def global_average_pool(self, x: Any, *, name: str) -> Any:
        return self.layers.GlobalAveragePooling2D(name=name)(x)

    def classifier(self, x: Any, classes: int, *, name: str) -> Any:
        return self.layers.Dense(classes, use_bias=self.slice.start == 0, name=name)(x)
