"""A worker whose models stop at white images until a test lets them go on.

Each white image that a model comes to adds a letter to the file `taken` of the folder --held, and waits for the file
`go` there.
"""

import time
from pathlib import Path

from absl import flags

from fusion.base.program import run
from fusion.runtime.interpreters import SliceInterpreter
from fusion.worker import __main__ as worker

_HELD = flags.DEFINE_string("held", None, "The folder.", required=True)


class Held(SliceInterpreter):
    def __call__(self, image):
        if (image == 255).all():
            folder = Path(str(_HELD.value))
            with (folder / "taken").open("a") as file:
                file.write("x")
            while not (folder / "go").exists():
                time.sleep(0.01)
        return super().__call__(image)


if __name__ == "__main__":
    worker.SliceInterpreter = Held  # type: ignore[misc]
    run(worker.main)
