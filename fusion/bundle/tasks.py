"""What a bundle's answers are: the one place that knows the tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BundleTask:
    """A task, as a bundle has it.

    Attributes:
      name: its name in manifests.
      output: the name of the tensor that a slice gives.
      dimensions: of that tensor, for one image.
      answer: the names of the fused answer's tensors; the others follow from the first.
      has_classes: whether an answer is one of the bundle's labels, which may be certain before all slices have arrived;
        else it is a larger image, which a tail makes of the slices' sum.
      accuracy_scale: what a manifest's accuracy is multiplied by for people: 100 where they read per cent.
      accuracy_units: what a difference of accuracies is in, for people: of one, and of more.
      accuracy_loss: what a faster switch may lose of it unless a user says otherwise, in these units.
    """

    name: str
    output: str
    dimensions: int
    answer: tuple[str, ...]
    has_classes: bool
    accuracy_scale: int
    accuracy_units: tuple[str, str]
    accuracy_loss: float

    def difference_text(self, difference: float) -> str:
        """A difference of two accuracies of a manifest, for people: `0.4 points`, `0.1 dB`."""
        text = f"{self.accuracy_scale * difference:.3g}"
        return f"{text} {self.accuracy_units[text != '1']}"


CLASSIFICATION = BundleTask(
    name="classification",
    output="logits",
    dimensions=1,
    answer=("logits", "class", "label"),
    has_classes=True,
    accuracy_scale=100,
    accuracy_units=("point", "points"),
    accuracy_loss=1.0,
)
SUPER_RESOLUTION = BundleTask(
    name="super_resolution",
    output="residual",
    dimensions=3,
    answer=("pixels",),
    has_classes=False,
    accuracy_scale=1,
    accuracy_units=("dB", "dB"),
    accuracy_loss=0.1,
)
TASKS: Mapping[str, BundleTask] = {task.name: task for task in (CLASSIFICATION, SUPER_RESOLUTION)}


def task_of_answer(names: tuple[str, ...]) -> BundleTask | None:
    """The task whose answers have tensors of these names; None if there is none."""
    return next((task for task in TASKS.values() if task.answer == names), None)
