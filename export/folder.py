"""A bundle's folder: written aside, then put in the place of an older one."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.fusion.program import UserError

_FILES = {"manifest.json", "labels.txt", "requirements.txt", "README.md"}
# What the folders of a bundle hold, by the ends of the names.
_RUNNER = (".py", ".pyc", ".html", ".md", "requirements.txt")
_FOLDERS = {"slices": (".tflite",), "samples": (".png", ".npz"), "fusion": _RUNNER}
_OLD = ".old"


def check_target(target: Path) -> None:
    """Raises UserError unless `target` is missing, an empty folder, or a bundle with nothing of anybody else in it."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"--bundle={target} is a file; give a new folder or an older bundle.")
    try:
        foreign = _foreign(target)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be read: {error.strerror}.") from None
    if foreign is not None:
        raise UserError(
            f"--bundle={target} holds {foreign!r}, which is not part of a bundle and would be lost; give a new "
            "folder or an older bundle."
        )
    if any(target.iterdir()) and not _is_bundle(target / "manifest.json"):
        raise UserError(f"--bundle={target} is there and is not a bundle; give a new folder or an older bundle.")


def _foreign(target: Path) -> str | None:
    """The first file in a folder that no bundle has, or None."""
    for entry in sorted(target.iterdir()):
        if entry.name not in _FILES | _FOLDERS.keys():
            return entry.name
        for file in sorted(entry.rglob("*")) if entry.is_dir() else ():
            if not file.name.endswith(_FOLDERS.get(entry.name, ())) and (file.is_symlink() or not file.is_dir()):
                return str(file.relative_to(target))
    return None


def _is_bundle(file: Path) -> bool:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(written, dict) and {"schema_version", "model_id"} <= written.keys()


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends, and vanishes if the block fails.

    The folder is locked while it is written, so that what a killed process left behind is told from what another
    process is writing, and removed; an older bundle that such a process had moved aside is put back.

    Raises:
      UserError: `target` is something else than a bundle, or has become so meanwhile, or cannot be written.
    """
    check_target(target)
    target = target.resolve()
    prefix = f".{target.name}.aside-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{glob.escape(prefix)}*"):
            _tidy_unless_locked(left, target)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        folder.chmod(0o755)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
        check_target(target)
        _put_in_place(folder, target)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _put_in_place(folder: Path, target: Path) -> None:
    if not target.exists():
        os.rename(folder, target)
        return
    old = folder.with_name(f"{folder.name}{_OLD}")
    lock = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(target, old)
        try:
            os.rename(folder, target)
        except BaseException:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(lock)


def _tidy_unless_locked(left: Path, target: Path) -> None:
    """Removes a folder that is left, or puts it back if it is a bundle that nothing has replaced."""
    try:
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        # It has gone meanwhile, or is somebody else's.
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if left.name.endswith(_OLD) and not target.exists():
            os.rename(left, target)
        else:
            shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)
