"""A pass: one switch run once in a training step, and what it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from paradis_tf.switches import Switch


@dataclass(frozen=True)
class Pass:
    """One switch run once, with one loss.

    Attributes:
      switch: the switch to run.
      teacher: the switch of an earlier pass whose detached outputs replace the hard labels; `None` for hard labels.
      feature_weight: weight of the mean-squared error to the teacher's detached features, 0 or more.
    """

    switch: Switch
    teacher: Switch | None = None
    feature_weight: float = 0.0

    def loss(self, labels: Any, outputs: Mapping[str, Any], taught: Mapping[str, Any] | None) -> Any:
        """The mean loss over the batch, a float32 scalar.

        Args:
          labels: (batch,) class indices.
          outputs: this pass's `logits` (batch, classes) and `features` (batch, channels).
          taught: the teacher's outputs, detached; its features may have more channels than the switch owns,
            then the first ones are compared, which are the same channels.

        Without a teacher: cross-entropy with the labels. With one: cross-entropy with the softmax of the teacher's
        logits (temperature 1) plus `feature_weight` times the mean-squared error of the features, the mean
        over channels and batch. Source: US-Nets (Yu & Huang 2019, in-place distillation); the feature term is
        a reconstruction.

        Raises:
          ValueError: the pass has a teacher and its outputs are not given.
        """
        logits = keras.ops.cast(outputs["logits"], "float32")
        if self.teacher is None:
            per_image = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            return keras.ops.mean(per_image)
        if taught is None:
            raise ValueError(f"switch '{self.switch}' learns from '{self.teacher}', which has not run before it.")
        target = keras.ops.softmax(keras.ops.cast(taught["logits"], "float32"))
        per_image = keras.losses.categorical_crossentropy(target, logits, from_logits=True)
        loss = keras.ops.mean(per_image)
        if self.feature_weight:
            features = keras.ops.cast(outputs["features"], "float32")
            wanted = keras.ops.cast(taught["features"], "float32")[:, : features.shape[-1]]
            loss = loss + self.feature_weight * keras.ops.mean(keras.ops.square(features - wanted))
        return loss


class Method(ABC):
    """A training method. Subclasses are registered Keras serializables, and every option has a default."""

    @abstractmethod
    def passes(self, switches: Sequence[Switch], widest: Switch) -> tuple[Pass, ...]:
        """The passes of one step, in order; a teacher comes before those it teaches.

        Args:
          switches: the supernet's switches.
          widest: the one that owns most channels on fewest devices.
        """

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The options that make it again."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method:
        return cls(**config)
