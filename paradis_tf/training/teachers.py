"""A teacher that is another, finished training: loaded, and checked to fit who is to learn from it."""

from __future__ import annotations

from fusion.base.paths import expand
from fusion.base.program import UserError
from paradis_tf import tasks
from paradis_tf.builders.architecture import Architecture
from paradis_tf.methods.passes import Method
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet
from paradis_tf.switches import WHOLE_SWITCH


def load_teacher(method: Method, name: str, architecture: Architecture) -> None:
    """Hands the network of its `teacher_run` to a method; does nothing for a method without one.

    Args:
      method: the method.
      name: its name, for errors.
      architecture: of the network that is to learn.

    Raises:
      UserError: the network cannot be loaded, has no switch 1.0, or cannot teach one of the architecture.
    """
    if not method.teacher_run:
        return
    workdir = Workdir(expand(method.teacher_run))
    if not workdir.config_file.exists():
        raise UserError(f"{name}: teacher is {method.teacher_run!r}, which holds no run; there is no config.json.")
    network = workdir.load_model()
    if WHOLE_SWITCH not in network.switches:
        known = ", ".join(map(str, network.switches))
        raise UserError(f"{name}: the teacher in {method.teacher_run} has no switch 1.0; it has {known}.")
    check_teacher(network, architecture, method.learns_features)
    method.use_teacher(network)


def check_teacher(teacher: Supernet, architecture: Architecture, features: bool) -> None:
    """Raises UserError unless a network can teach one of an architecture.

    Args:
      teacher: the finished network.
      architecture: of the network that is to learn.
      features: whether its features are learnt from, too; then it is of the same architecture, else it gives the same
        kind of prediction for the same images.
    """
    if teacher.architecture.task != architecture.task:
        raise UserError(f"the teacher is for {teacher.architecture.task}, and the network for {architecture.task}.")
    theirs, ours = teacher.architecture_config(), {"name": architecture.name, **architecture.get_config()}
    keys = theirs.keys() | ours.keys() if features else {"image_shape", "classes", "scale"}
    if tasks.TASKS[architecture.task].enlarges:
        keys -= {"image_shape"}
    for key in sorted(keys):
        if theirs.get(key) != ours.get(key):
            why = " to be taught by its features" if features else ""
            raise UserError(
                f"the teacher has {key} {theirs.get(key)}, and the network {ours.get(key)}; they agree{why}."
            )
