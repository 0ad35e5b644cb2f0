"""Tasks: what an architecture's prediction is trained for and judged by."""

from __future__ import annotations

from typing import Any

from paradis_tf.base import registry
from paradis_tf.tasks.classification import Classification
from paradis_tf.tasks.super_resolution import SuperResolution
from paradis_tf.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classification": Classification, "super_resolution": SuperResolution}


def create(name: str, **options: Any) -> Task:
    """The task of that name with these options.

    Raises:
      UserError: an unknown name or option, or an option out of range; the legal ones are listed.
    """
    return registry.create("task", TASKS, lambda family: list(family().get_config()), name, options)
