"""The static reading: one cut as a plain functional model of stock layers, for keras or tf_keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

import keras

from paradis_tf.builders.architecture import FUSION, Architecture, Reading, has_tail, read
from paradis_tf.builders.cost import summed_channels
from paradis_tf.cuts import WHOLE, Cut
from paradis_tf.operations.operation import Build, Operation

# What is done with each tensor that a static model makes: by the name of the operation that made it, and itself.
Pin = Callable[[str, Any], Any]


def unpinned(name: str, tensor: Any) -> Any:
    """The tensor as it is."""
    return tensor


class SharedNetwork(Protocol):
    """What owns the weights: a `Supernet`."""

    @property
    def architecture(self) -> Architecture: ...

    @property
    def shared_layers(self) -> Sequence[Any]: ...

    def check_cut(self, cut: Cut) -> None: ...


def extract(
    network: SharedNetwork,
    cut: Cut,
    keras_module: ModuleType = keras,
    normalized_input: bool = False,
    image_shape: tuple[int, int, int] | None = None,
    pin: Pin = unpinned,
) -> Any:
    """One device's slice model: stock layers only, weights copied from the network.

    Args:
      network: the supernet that owns the weights.
      cut: a cut of one of its paths, such as `network.switches[0].cut(1)` or `network.paths[0].cuts[0]`.
      keras_module: `keras` or `tf_keras`.
      normalized_input: if true the model takes float32 images in [-1, 1) (pixel / 128 - 1); if false it
        takes raw pixels 0..255 in any number type and normalizes them itself.
      image_shape: (height, width, 3) of the image; the architecture's if left out.
      pin: is given each tensor that an operation makes, and gives the one to go on with, such as one rounded to the
        range that an int8 file is to have for it.

    Returns:
      a functional model (batch, height, width, 3) -> partial prediction, for a classifier logits (batch, classes),
      whose layers bear the names of the architecture.

    Raises:
      SwitchError: the network has no such cut.
    """
    network.check_cut(cut)
    architecture = network.architecture
    image = keras_module.Input(image_shape or architecture.image_shape, name="image", dtype="float32")
    reading = _Static(build_of(network, cut, keras_module, normalized_input), pin)
    prediction, _ = read(architecture, reading, image, end=FUSION)
    return keras_module.Model(image, prediction, name=f"{architecture.name}_{cut.slug}")


def extract_tail(
    network: SharedNetwork,
    keras_module: ModuleType = keras,
    image_shape: tuple[int | None, int | None, int] | None = None,
    normalized_input: bool = False,
) -> Any:
    """What an architecture does once with the summed predictions of the slices.

    Args:
      network: the supernet that owns the weights; its architecture has a tail.
      keras_module: `keras` or `tf_keras`.
      image_shape: (height, width, 3) of the image, `None` for an open side; the architecture's if left out.
      normalized_input: as in `extract`.

    Returns:
      a functional model (image, sum of the slice models' outputs) -> answer: of super-resolution, float pixels
      (batch, height * scale, width * scale, 3), not clipped. Its layers are stock but for `PixelShuffle` in keras and
      TensorFlow's own `depth_to_space` in tf_keras, one TFLite operator in both.

    Raises:
      ValueError: the architecture has no tail.
    """
    architecture = network.architecture
    if not has_tail(architecture):
        raise ValueError(f"architecture {architecture.name!r} has no tail; the sum of its slices is the answer.")
    image = keras_module.Input(image_shape or architecture.image_shape, name="image", dtype="float32")
    channels = summed_channels(architecture)
    summed = keras_module.Input((*image.shape[1:3], channels), name="summed", dtype="float32")
    reading = _Static(build_of(network, WHOLE, keras_module, normalized_input))
    answer, _ = read(architecture, reading, image, begin=FUSION, handed=(summed, None))
    return keras_module.Model([image, summed], answer, name=f"{architecture.name}_tail")


def build_of(network: SharedNetwork, cut: Cut, keras_module: ModuleType, normalized_input: bool) -> Build:
    """How static models of a cut are made, with the weights of a network; arguments as of `extract`."""
    layers = {layer.name: layer for layer in network.shared_layers}
    return Build(keras_module, cut, functools.cache(lambda name: layers[name].static_weights(cut)), normalized_input)


class _Static(Reading[Any]):
    """Makes stock layers; a "tensor" is a symbolic tensor of `keras` or `tf_keras`."""

    def __init__(self, build: Build, pin: Pin = unpinned) -> None:
        self.build, self.pin = build, pin

    def __call__(self, operation: Operation, *tensors: Any, name: str) -> Any:
        return self.pin(name, operation.static(self.build, *tensors, name=name))
