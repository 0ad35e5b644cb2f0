"""Sets emulated boards up and runs a module of a bundle on each, as on real boards of those processors.

    python -m export.emulation.run
    python -m export.emulation.run --bundle=build/digits -- fusion.selftest --bundle=. --json=/tmp/{board}.json

Without a module it only sets the boards up, which a later call finds done. The module runs in the bundle's folder, on
all boards at once; {board} in its arguments becomes the board's name. Exits 1 if it failed on any board.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from absl import flags

from export.emulation.boards import ARCHITECTURES, Board
from export.emulation.installation import DEFAULT_CACHE, set_up
from export.fusion import manifest, program
from export.fusion.program import UserError

_BOARDS = flags.DEFINE_list("boards", list(ARCHITECTURES), "The boards, of aarch64 (64-bit) and armhf (32-bit).")
_CACHE = flags.DEFINE_string("cache", DEFAULT_CACHE, "The folder that boards are set up in.")
_MIRROR = flags.DEFINE_string("mirror", "", "URI of a Debian mirror; by default that of the host's apt sources.")
_BUNDLE = flags.DEFINE_string("bundle", "", "The bundle whose module is run.")


def main(arguments: list[str]) -> int:
    if bool(arguments) != bool(_BUNDLE.value):
        raise UserError("a module is run with its bundle: --bundle=FOLDER -- MODULE [ARGUMENTS], or none of both.")
    if not _BOARDS.value:
        raise UserError(f"--boards is empty; legal: one or more of {', '.join(ARCHITECTURES)}.")
    if arguments:
        manifest.load(_BUNDLE.value)
    made = set_up(_BOARDS.value, _CACHE.value, _MIRROR.value, lambda text: print(text, flush=True))
    if not arguments:
        print(f"ready: {', '.join(board.name for board in made)}")
        return 0
    statuses = run_module(made, Path(_BUNDLE.value), arguments)
    for board, status in zip(made, statuses, strict=True):
        print(f"{board.name}: {'passed' if status == 0 else f'failed, exit status {status}'}")
    return 1 if any(statuses) else 0


def run_module(made: Sequence[Board], bundle: Path, arguments: Sequence[str]) -> list[int]:
    """Runs a module on all boards at once and prints its lines, each after its board's name.

    Args:
      made: the boards.
      bundle: the folder to run it in.
      arguments: the module's name and its arguments, of which {board} becomes the board's name.

    Returns the exit statuses, in the boards' order.
    """
    with ExitStack() as stack:
        readers, processes = [], []
        for board in made:
            process = subprocess.Popen(
                board.command(["-m", *(argument.replace("{board}", board.name) for argument in arguments)]),
                cwd=bundle,
                env=board.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            stack.enter_context(process)
            # Before it is waited for, so that Ctrl-C ends all.
            stack.callback(process.kill)
            reader = threading.Thread(target=_print_lines, args=(board.name, process), daemon=True)
            reader.start()
            readers.append(reader)
            processes.append(process)
        for reader in readers:
            reader.join()
        return [process.wait() for process in processes]


def _print_lines(name: str, process: subprocess.Popen[str]) -> None:
    for line in process.stdout or ():
        print(f"{name}: {line}", end="", flush=True)


if __name__ == "__main__":
    program.run(main, takes_arguments=True)
