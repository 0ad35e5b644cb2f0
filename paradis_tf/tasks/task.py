"""What every task offers to training and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import keras


class Task(ABC):
    """Losses and the metric of one kind of prediction. Every option of a subclass has a default.

    Attributes:
      name: its name in `TASKS` and in an architecture's `task`.
      metric: the name of the metric that training reports for each switch; more is better.
      output: the name of what each slice gives, which is summed.
      enlarges: whether the answer is an enlarged image; the network then takes images of any size.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    output: ClassVar[str]
    enlarges: ClassVar[bool] = False

    @abstractmethod
    def loss(self, targets: Any, prediction: Any) -> Any:
        """The mean loss of a fused prediction against the true targets, a float32 scalar."""

    @abstractmethod
    def distillation_loss(self, prediction: Any, taught: Any, temperature: float = 1.0) -> Any:
        """The mean loss of a prediction against a teacher's, a float32 scalar.

        Args:
          prediction: the student's fused prediction.
          taught: the teacher's, of the same shape; no gradient is to flow into it.
          temperature: softens both sides, above 0; a task without a softmax takes no notice.
        """

    @abstractmethod
    def sum_distance(self, summed: Any, taught: Any) -> Any:
        """How far the sum of the slices' outputs is from a teacher's, a float32 scalar; 0 where they agree."""

    def check(self, architecture: Any) -> None:  # noqa: B027  most options fit all architectures
        """Raises UserError where an option does not fit an architecture of this task."""

    @abstractmethod
    def new_metric(self, name: str) -> keras.Metric:
        """A fresh metric with `update_state(targets, prediction)`."""

    @abstractmethod
    def text(self, value: float) -> str:
        """A value of the metric for people, with its unit."""

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The options that make it again."""
