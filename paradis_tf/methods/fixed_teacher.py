"""A teacher that is another, finished training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.fusion.program import UserError
from paradis_tf.records.workdir import Workdir
from paradis_tf.switches import FULL, Switch

if TYPE_CHECKING:
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
