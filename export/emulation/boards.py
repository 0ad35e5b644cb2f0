"""Boards of other processors, emulated: real ARM programs and wheels on an x86_64 Linux host, without privileges.

QEMU's user-mode emulation runs a Debian Python and the real tflite-runtime wheel. It sees the host's files, so a bundle
needs no copying. Its results are those of the processor; its speed says nothing.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fusion.base.streams import say

PYTHON = "3.11"


@dataclass(frozen=True)
class Processor:
    """What a processor is called by those who have to do with it.

    Attributes:
      debian: Debian, of packages.
      wheels: Python, in a wheel's platform tag.
      libraries: the folder of its libraries.
      emulator: QEMU's program.
    """

    debian: str
    wheels: str
    libraries: str
    emulator: str


PROCESSORS = {
    "aarch64": Processor("arm64", "aarch64", "aarch64-linux-gnu", "qemu-aarch64-static"),
    "armhf": Processor("armhf", "armv7l", "arm-linux-gnueabihf", "qemu-arm-static"),
}


@dataclass(frozen=True)
class Board:
    """An emulated board that is set up; made by `installation.set_up`.

    Attributes:
      name: its architecture, "aarch64" (64-bit) or "armhf" (32-bit).
      folder: what its Python sees as the root of its file system (`root`), and the wheels (`site`).
      emulator: the program that runs its programs.
    """

    name: str
    folder: Path
    emulator: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command of the host that runs `python ARGUMENTS` on the board, given `environment`."""
        return [str(self.emulator), "-L", str(self.root), f"{self.root}/usr/bin/python{PYTHON}", *arguments]

    def environment(self) -> dict[str, str]:
        """The environment variables of such a command: the host's without those of its own Python and loader."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LD_", "QEMU_"))}
        libraries = PROCESSORS[self.name].libraries
        # The emulator shows the loader the root's files but not its folders, so these are named as the host sees them.
        # Packages are unpacked, not configured, so that nothing made the last two the system's.
        searched = [f"lib/{libraries}", f"usr/lib/{libraries}"]
        searched += [f"usr/lib/{libraries}/{name}" for name in ("blas", "lapack")]
        return kept | {
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.site),
            "PYTHONUNBUFFERED": "1",
            # A bundle is to stay as it was copied.
            "PYTHONDONTWRITEBYTECODE": "1",
            # The user's packages are the host's.
            "PYTHONNOUSERSITE": "1",
            "LD_LIBRARY_PATH": ":".join(f"{self.root}/{name}" for name in searched),
        }


def run(
    board: Board, arguments: Sequence[str], cwd: str | Path | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `python ARGUMENTS` on a board to its end, such as ["-m", "fusion.worker", "--help"] in a bundle's folder.

    Args:
      board: from `installation.set_up`.
      arguments: of Python.
      cwd: the folder to run it in, whose modules `-m` finds; None is the current one.
      timeout_s: seconds after which it is killed; None waits for ever.

    Returns its exit status and what it printed; a failure is the caller's to judge. A program that starts another by
    `sys.executable` fails, since the host cannot run that file itself.

    Raises:
      subprocess.TimeoutExpired: it took longer than `timeout_s`.
    """
    return subprocess.run(
        board.command(arguments),
        cwd=cwd,
        env=board.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
    )


def run_on_all(made: Sequence[Board], bundle: Path, arguments: Sequence[str]) -> list[int]:
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
        say(f"{name}: {line}", end="")
