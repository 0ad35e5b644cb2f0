"""A teacher that is another, finished training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusion.base.program import UserError
from paradis_tf.records.workdir import Workdir
from paradis_tf.switches import FULL, Switch

if TYPE_CHECKING:
    from paradis_tf.builders.operations import Architecture
    from paradis_tf.supernet import Supernet

# The switch that teaches.
WHOLE = Switch((FULL,))


class FixedTeacher:
    """The network of a run folder, loaded when it is asked for, so that who it taught can be used where it is not.

    Args:
      method: the name of the method that it teaches, for errors.
      path: the run folder.
    """

    def __init__(self, method: str, path: str) -> None:
        self.method = method
        self.path = path
        self._network: Supernet | None = None

    def network(self) -> Supernet:
        """The finished network.

        Raises:
          UserError: it cannot be loaded or has no switch 1.0.
        """
        if self._network is None:
            workdir = Workdir(self.path)
            if not workdir.config_file.exists():
                raise UserError(
                    f"{self.method}: teacher is {self.path!r}, which holds no run; there is no config.json."
                )
            network = workdir.load_model()
            if WHOLE not in network.switches:
                known = ", ".join(map(str, network.switches))
                raise UserError(f"{self.method}: the teacher in {self.path} has no switch 1.0; it has {known}.")
            self._network = network
        return self._network


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
    if architecture.task == "super_resolution":
        # Of any size, as patches are.
        keys -= {"image_shape"}
    for key in sorted(keys):
        if theirs.get(key) != ours.get(key):
            why = " to be taught by its features" if features else ""
            raise UserError(
                f"the teacher has {key} {theirs.get(key)}, and the network {ours.get(key)}; they agree{why}."
            )
