"""Sets emulated boards up: emulator, Debian packages and wheels, in folders of their own."""

from __future__ import annotations

import dataclasses
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from export.emulation import boards, debian
from export.emulation.boards import PROCESSORS, PYTHON, Board
from export.emulation.installed import install
from export.emulation.installed import run as run_on_host
from fusion.base.program import UserError

DEFAULT_CACHE = "build/emulation"
_EMULATORS = tuple(architecture.emulator for architecture in PROCESSORS.values())
_REQUIREMENTS = Path(__file__).parents[2] / "fusion" / "requirements.txt"
# There are no wheels of these for the 32-bit board, so both boards have Debian's.
_FROM_DEBIAN = {"numpy": "python3-numpy", "pillow": "python3-pil"}
_PACKAGES = (f"python{PYTHON}", *_FROM_DEBIAN.values())
# The range of glibc that wheels may ask for: from manylinux's oldest with ARM to Debian 12's own.
_GLIBC = range(17, 37)
_PROBE = "import sys, numpy, tflite_runtime.interpreter as t; print(sys.version.split()[0], numpy.__version__)"


def set_up(
    names: Sequence[str],
    cache: str | Path = DEFAULT_CACHE,
    mirror: str = "",
    report: Callable[[str], None] = lambda text: None,
) -> list[Board]:
    """Sets boards up, each whole or not at all; one that is there is left alone.

    Args:
      names: of `PROCESSORS`.
      cache: the folder to put them in.
      mirror: URI of a Debian mirror; "" takes that of the host's apt sources.
      report: is told what is being done.

    Raises:
      UserError: an unknown name, a host that is no x86_64 Linux with apt, or a mirror or package index that cannot be
        used.
    """
    for name in names:
        if name not in PROCESSORS:
            raise UserError(f"board {name!r} is unknown; legal: {', '.join(PROCESSORS)}.")
    host = f"{platform.system()} on {platform.machine()}"
    if host != "Linux on x86_64":
        raise UserError(f"boards cannot be emulated on {host}; legal: Linux on x86_64, or take a real board.")
    cache = Path(cache).resolve()
    recipe = [debian.SUITE, *_EMULATORS]
    install(cache / "qemu", recipe, partial(_make_emulators, mirror=mirror, report=report), report)
    made = []
    for name in names:
        board = Board(name, cache / name, cache / "qemu" / PROCESSORS[name].emulator)
        make = partial(_make_board, board, mirror=mirror, report=report)
        install(board.folder, [debian.SUITE, *_PACKAGES, *_requirements()], make, report)
        made.append(board)
    return made


def _make_emulators(folder: Path, mirror: str, report: Callable[[str], None]) -> None:
    mirror = debian.find_mirror(mirror)
    report("emulators: downloading (70 MB)")
    debian.unpack_files(folder, "amd64", "qemu-user-static", [f"usr/bin/{name}" for name in _EMULATORS], mirror)


def _make_board(board: Board, folder: Path, mirror: str, report: Callable[[str], None]) -> None:
    """Fills the folder of a board, which is not in its place yet."""
    began = time.monotonic()
    mirror = debian.find_mirror(mirror)
    aside = dataclasses.replace(board, folder=folder)
    architecture = PROCESSORS[board.name]
    report(f"{board.name}: downloading Debian packages (50 MB)")
    debian.unpack(aside.root, architecture.debian, _PACKAGES, mirror)
    # Documentation, for the most part.
    shutil.rmtree(aside.root / "usr" / "share", ignore_errors=True)
    report(f"{board.name}: downloading wheels (10 MB)")
    # pip does not see that Debian's numpy is there.
    runtime = [line for line in _requirements() if line.startswith("tflite-runtime")]
    _install_wheels(aside.site, architecture.wheels, ["--no-deps", *runtime])
    _install_wheels(aside.site, architecture.wheels, [line for line in _requirements() if line not in runtime])
    report(f"{board.name}: compiling its Python files")
    folders = [aside.root / "usr" / "lib" / name for name in (f"python{PYTHON}", "python3")]
    run_on_host([sys.executable, "-m", "compileall", "-q", *folders], f"board {board.name}: Python does not compile")
    done = boards.run(aside, ["-c", _PROBE])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"emulated board {board.name} cannot run tflite-runtime ({last}); name another --mirror.")
    python, numpy = done.stdout.split()
    report(f"{board.name}: set up in {time.monotonic() - began:.0f} s; Python {python}, numpy {numpy}")


def _requirements() -> list[str]:
    """The lines of the runner's requirements that wheels are installed for."""
    lines = [line.strip() for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and line[0] != "#" and re.split(r"[^\w-]", line)[0] not in _FROM_DEBIAN]


def _install_wheels(site: Path, architecture: str, requirements: Sequence[str]) -> None:
    legal = [f"manylinux_2_{minor}" for minor in _GLIBC] + ["manylinux2014"]
    run_on_host(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *(f"--target={site}", "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"),
            *(f"--abi=cp{PYTHON.replace('.', '')}", "--abi=abi3"),
            *(f"--platform={tag}_{architecture}" for tag in legal),
            *requirements,
        ],
        f"wheels for {architecture} cannot be installed; see that pip can reach its package index",
    )
