"""Sets emulated boards up and runs a module of a bundle on each, as on real boards of those processors.

    python -m export.emulation.run
    python -m export.emulation.run --bundle=build/digits -- fusion.selftest --bundle=. --json=/tmp/{board}.json

Without a module it only sets the boards up, which a later call finds done. The module runs in the bundle's folder, on
all boards at once; {board} in its arguments becomes the board's name. Exits 1 if it failed on any board.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from export.emulation.boards import PROCESSORS, run_on_all
from export.emulation.installation import DEFAULT_CACHE, set_up
from fusion.base import program
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.base.streams import say

_BOARDS = flags.DEFINE_list("boards", list(PROCESSORS), "The boards, of aarch64 (64-bit) and armhf (32-bit).")
_CACHE = define_path("cache", DEFAULT_CACHE, "The folder that boards are set up in.")
_MIRROR = flags.DEFINE_string("mirror", "", "URI of a Debian mirror; by default that of the host's apt sources.")
_BUNDLE = define_path("bundle", "", "The bundle whose module is run.")


def main(arguments: list[str]) -> int:
    if bool(arguments) != bool(_BUNDLE.value):
        raise UserError("a module is run with its bundle: --bundle=FOLDER -- MODULE [ARGUMENTS], or none of both.")
    if not _BOARDS.value:
        raise UserError(f"--boards is empty; legal: one or more of {', '.join(PROCESSORS)}.")
    # The bundle's own runner judges what stands in the manifest.
    if arguments and not (Path(_BUNDLE.value) / "manifest.json").is_file():
        raise UserError(f"--bundle={_BUNDLE.value} is not a bundle; legal: a folder with a manifest.json.")
    made = set_up(_BOARDS.value, _CACHE.value, _MIRROR.value, say)
    if not arguments:
        print(f"ready: {', '.join(board.name for board in made)}")
        return 0
    statuses = run_on_all(made, Path(_BUNDLE.value), arguments)
    for board, status in zip(made, statuses, strict=True):
        print(f"{board.name}: {'passed' if status == 0 else f'failed, exit status {status}'}")
    return 1 if any(statuses) else 0


if __name__ == "__main__":
    program.run(main, takes_arguments=True)
