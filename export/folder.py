"""A bundle's folder: written aside, then put in the place of an older one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.fusion.program import UserError

_ENTRIES = {"manifest.json", "slices", "labels.txt", "samples", "fusion", "requirements.txt", "README.md"}


def check_target(target: Path) -> None:
    """Raises UserError unless `target` is missing, an empty folder, or a bundle with nothing of anybody else in it."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"--bundle={target} is a file; give a new folder or an older bundle.")
    foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in _ENTRIES)
    if foreign:
        raise UserError(
            f"--bundle={target} holds {foreign[0]!r}, which is not part of a bundle and would be lost; give a new "
            "folder or an older bundle."
        )
    if any(target.iterdir()) and not _is_bundle(target / "manifest.json"):
        raise UserError(f"--bundle={target} is there and is not a bundle; give a new folder or an older bundle.")


def _is_bundle(file: Path) -> bool:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(written, dict) and {"schema_version", "model_id"} <= written.keys()


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends, and vanishes if the block fails.

    The folder is locked while it is written, so that what a killed process left behind is told from what another
    process is writing, and removed.

    Raises:
      UserError: `target` is something else than a bundle, or cannot be written.
    """
    check_target(target)
    target = target.resolve()
    prefix = f".{target.name}.aside-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{prefix}*"):
            _remove_unless_locked(left)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        folder.chmod(0o755)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
        _put_in_place(folder, target)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _put_in_place(folder: Path, target: Path) -> None:
    old = folder.with_name(f"{folder.name}.old")
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(folder, target)
    except BaseException:
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_unless_locked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)
