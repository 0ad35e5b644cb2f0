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
    """

    name: str
    output: str
    dimensions: int
    answer: tuple[str, ...]
    has_classes: bool
    accuracy_scale: int


TASKS: Mapping[str, BundleTask] = {
    task.name: task
    for task in (
        BundleTask("classification", "logits", 1, ("logits", "class", "label"), True, accuracy_scale=100),
        BundleTask("super_resolution", "residual", 3, ("pixels",), False, accuracy_scale=1),
    )
}


def task_of_answer(names: tuple[str, ...]) -> BundleTask | None:
    """The task whose answers have tensors of these names; None if there is none."""
    return next((task for task in TASKS.values() if task.answer == names), None)
