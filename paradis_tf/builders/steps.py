"""One step of a triangular network as a static model: what a level adds to the one before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from paradis_tf.builders.architecture import FUSION, Reading, read
from paradis_tf.builders.static import Pin, SharedNetwork, build_of, unpinned
from paradis_tf.levels import StepCut
from paradis_tf.operations.operation import Build, Operation

PREDICTION = "prediction"
# What the names of handed tensors start with; the rest is the layer that reads it.
HANDED = "handed/"


@dataclass(frozen=True)
class StepModel:
    """A step as a model of stock layers.

    Attributes:
      model: a functional keras model, from a list of the image and of what the step before hands on to a dict of the
        `prediction` and of what the next step takes, by names.
      handed: the names, `handed/LAYER`, of what the step before hands on, in the order that the model takes it.
    """

    model: Any
    handed: tuple[str, ...]


def extract_step(
    network: SharedNetwork,
    cut: StepCut,
    normalized_input: bool = False,
    image_shape: tuple[int, int, int] | None = None,
    pin: Pin = unpinned,
) -> StepModel:
    """A step's model: what slice k of every layer adds to slices 1 to k - 1, weights copied from the network.

    A layer that mixes channels reads slices 1 to k of its input, (batch, ..., channels of all of them). Those before k
    come in, and what the layer read goes out again for the next step, so that a step needs the one before it alone.
    All else is computed on slice k. A tensor that several layers read is handed on once, under the name of the first.

    Args:
      network: the triangular network that owns the weights.
      cut: one of its steps, such as `network.steps[0]`.
      normalized_input, image_shape: as of `extract`.
      pin: what is done with a tensor that an operation made, as of `extract`; with what is handed, too.

    Returns:
      the model. Step 1 takes the image alone, the last one gives the prediction alone.

    Raises:
      SwitchError: the network has no such step.
    """
    network.check_cut(cut)
    architecture = network.architecture
    image = keras.Input(image_shape or architecture.image_shape, name="image", dtype="float32")
    reading = _Step(build_of(network, cut, keras, normalized_input), cut, pin)
    prediction, _ = read(architecture, reading, _Own(image, ""), end=FUSION)
    inputs = [image, *reading.handed_in.values()]
    outputs = {PREDICTION: prediction.tensor, **reading.handed_on}
    model = keras.Model(inputs, outputs, name=f"{architecture.name}_{cut.slug}")
    return StepModel(model, tuple(reading.handed_in))


@dataclass(frozen=True)
class _Own:
    """Slice k of a tensor, and the operation that made it."""

    tensor: Any
    maker: str


class _Step(Reading[_Own]):
    """Makes stock layers on slice k, and joins to it what is handed where a layer mixes channels."""

    def __init__(self, build: Build, cut: StepCut, pin: Pin) -> None:
        self._build, self._cut, self._pin = build, cut, pin
        self._joined: dict[str, Any] = {}
        self.handed_in: dict[str, Any] = {}
        self.handed_on: dict[str, Any] = {}

    def __call__(self, operation: Operation, *tensors: _Own, name: str) -> _Own:
        inputs = [self._join(own, name) if operation.mixes else own.tensor for own in tensors]
        return _Own(self._pin(name, operation.static(self._build, *inputs, name=name)), name)

    def _join(self, own: _Own, layer: str) -> Any:
        """Slices 1 to k of a tensor."""
        if own.maker not in self._joined:
            joined, key = own.tensor, f"{HANDED}{layer}"
            *size, channels = own.tensor.shape[1:]
            if self._cut.step > 1:
                # Keras' names have no slashes.
                handed = keras.Input((*size, channels * (self._cut.step - 1)), name=key.replace("/", "_"))
                self.handed_in[key] = handed
                pinned = self._pin(own.maker, handed)
                joined = keras.layers.Concatenate(name=f"{layer}_joined")([pinned, own.tensor])
            if self._cut.step < self._cut.levels:
                self.handed_on[key] = joined
            self._joined[own.maker] = joined
        return self._joined[own.maker]
