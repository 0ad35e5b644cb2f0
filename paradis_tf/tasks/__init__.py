"""Tasks: what an architecture's prediction is trained for and judged by."""

from __future__ import annotations

from typing import Any

from export.fusion.program import UserError
from paradis_tf.tasks.classification import Classification
from paradis_tf.tasks.super_resolution import SuperResolution
from paradis_tf.tasks.task import Task

TASKS: dict[str, type[Task]] = {"classification": Classification, "super_resolution": SuperResolution}


def create(name: str, **options: Any) -> Task:
    """The task of that name with these options.

    Raises:
      UserError: an unknown name or option, or an option out of range; the legal ones are listed.
    """
    family = TASKS.get(name)
    if family is None:
        raise UserError(f"task {name!r} is unknown; known are {', '.join(sorted(TASKS))}.")
    known = list(family().get_config())
    for option in options:
        if option not in known:
            raise UserError(f"task {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}.")
    return family(**options)
