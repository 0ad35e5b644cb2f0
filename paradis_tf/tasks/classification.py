"""Classification: one label for each image."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from fusion.base.program import UserError
from paradis_tf.tasks.task import Task


class Classification(Task):
    """Logits (batch, classes) against class indices (batch,).

    Args:
      label_smoothing: how much of a hard label's weight is spread evenly over all classes, in [0, 1); targets that
        a teacher gives are not smoothed.

    Raises:
      UserError: an option out of range.

    Source: cross-entropy; label smoothing from Szegedy et al. 2016, section 7; distillation from Hinton et al. 2015,
    with the loss multiplied by the squared temperature.
    """

    name: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"
    output: ClassVar[str] = "logits"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"classification: label_smoothing is {label_smoothing!r}; it lies in [0, 1).")
        self.label_smoothing = label_smoothing

    def loss(self, targets: Any, prediction: Any) -> Any:
        logits = keras.ops.cast(prediction, "float32")
        if not self.label_smoothing:
            return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(targets, logits, from_logits=True))
        wanted = keras.ops.one_hot(targets, logits.shape[-1])
        return keras.ops.mean(
            keras.losses.categorical_crossentropy(
                wanted, logits, from_logits=True, label_smoothing=self.label_smoothing
            )
        )

    def distillation_loss(self, prediction: Any, taught: Any, temperature: float = 1.0) -> Any:
        wanted = keras.ops.softmax(keras.ops.cast(taught, "float32") / temperature)
        logits = keras.ops.cast(prediction, "float32") / temperature
        per_image = keras.losses.categorical_crossentropy(wanted, logits, from_logits=True)
        return temperature**2 * keras.ops.mean(per_image)

    def sum_distance(self, summed: Any, taught: Any) -> Any:
        return self.distillation_loss(summed, taught) - self.distillation_loss(taught, taught)

    def new_metric(self, name: str) -> keras.Metric:
        return keras.metrics.SparseCategoricalAccuracy(name=name)

    def text(self, value: float) -> str:
        return f"{100 * value:.1f} %"

    def get_config(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing}
