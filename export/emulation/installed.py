"""Folders of installed things that are there whole or not at all, whoever else is setting them up."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusion.base.files import write_json
from fusion.base.program import UserError

_RECIPE = "recipe.json"


def install(folder: Path, recipe: Any, make: Callable[[Path], None], report: Callable[[str], None]) -> None:
    """Makes a folder, unless it is there and was made by the same recipe.

    The folder is made aside and then renamed, so a killed process leaves no half of it; what it left is removed by the
    next one. Of several processes one works and the others wait for it.

    Args:
      folder: what to make; an older one of another recipe is replaced.
      recipe: all that decides what comes into the folder, ready for JSON.
      make: fills the empty folder that it is given.
      report: is told of waiting for another process.

    Raises:
      UserError: the folder cannot be written, or from `make`.
    """
    if _recipe_of(folder) == recipe:
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f".{folder.name}.lock"), "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"waiting for another process that sets up {folder}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _recipe_of(folder) != recipe:
                _make(folder, recipe, make)
    except OSError as error:
        raise UserError(
            f"folder {str(folder)!r} cannot be set up: {error.strerror or error}; legal: a folder that can be written, "
            "on a disk with room."
        ) from error


def run(command: Sequence[str | Path], failed: str, cwd: Path | None = None) -> str:
    """Runs a command of the host to its end and returns what it printed.

    Raises:
      UserError: it failed: the sentence `failed`, and the command's own first word of the cause.
    """
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        causes = [line for line in lines if line.lower().startswith(("e:", "err:", "error"))] or lines[-1:]
        cause = causes[0].rstrip(".") if causes else f"exit status {done.returncode}"
        raise UserError(f"{failed} ({cause}).")
    return done.stdout


def _make(folder: Path, recipe: Any, make: Callable[[Path], None]) -> None:
    prefix = f".{folder.name}.aside-"
    for left in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        aside.chmod(0o755)
        make(aside)
        write_json(aside / _RECIPE, recipe)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _recipe_of(folder: Path) -> Any:
    """The recipe that a folder was made by, or None where there is no such folder."""
    try:
        return json.loads((folder / _RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
