"""A bundle's folder: written aside, then put in the place of an older one."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusion.base.program import UserError

_FILES = {"manifest.json", "labels.txt", "requirements.txt", "README.md"}
# What the folders of a bundle hold, by the ends of the names.
_RUNNER = (".py", ".pyc", ".html", ".service", ".md", "requirements.txt")
_FOLDERS = {"slices": (".tflite",), "samples": (".png", ".npz"), "fusion": _RUNNER}
# What a program that was killed while it wrote to a bundle has left there (`fusion.base.files`).
_HALF_WRITTEN = re.compile(r"(manifest\.json|README\.md).*\.part")
_OLD = ".old"
# Of renameat2(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_target(target: Path) -> None:
    """Raises UserError unless `target` is missing, an empty folder, or a bundle with nothing of anybody else in it."""
    try:
        target.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror}.") from None
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


def own_files(bundle: Path) -> list[Path]:
    """The files of a bundle's folder that are its own, in order; not what somebody keeps there, such as a token."""
    own = [bundle / name for name in sorted(_FILES) if (bundle / name).is_file()]
    for name, ends in sorted(_FOLDERS.items()):
        files = (file for file in sorted((bundle / name).rglob("*")) if file.name.endswith(ends))
        own += [file for file in files if file.is_file() and "__pycache__" not in file.parts]
    return own


def _foreign(target: Path) -> str | None:
    """The first file in a folder that no bundle has, or None."""
    for entry in sorted(target.iterdir()):
        if _HALF_WRITTEN.fullmatch(entry.name):
            continue
        if entry.name not in _FILES | _FOLDERS.keys():
            return entry.name
        for file in sorted(entry.rglob("*")) if entry.is_dir() else ():
            if not file.name.endswith(_FOLDERS.get(entry.name, ())) and (file.is_symlink() or not file.is_dir()):
                return str(file.relative_to(target))
    return None


def _is_bundle(file: Path) -> bool:
    try:
        written = json.loads(file.read_bytes())
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
    except shutil.Error as error:
        # Of a whole tree: a list of files, each with its reason.
        raise UserError(f"--bundle={target} cannot be written: {error.args[0][0][2]}.") from error
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _put_in_place(folder: Path, target: Path) -> None:
    """Gives `folder` the name `target`; an older bundle there, if any, ends under `folder`'s name, or goes."""
    if not target.exists():
        os.rename(folder, target)
        return
    with locked(target):
        if _exchange(folder, target):
            return
        # Not on every file system: for a moment there is no bundle, and the next conversion mends it after a kill.
        old = folder.with_name(f"{folder.name}{_OLD}")
        os.rename(target, old)
        try:
            os.rename(folder, target)
        except BaseException:
            if not target.exists():
                os.rename(old, target)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(bundle: Path) -> Iterator[None]:
    """Keeps conversions from replacing a bundle's folder, and others that ask for the same from changing it.

    Raises:
      OSError: the folder cannot be read.
    """
    lock = os.open(bundle, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders in one step; False where kernel or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Has this process, and those it starts meanwhile, make temporary files in a folder inside of `folder`.

    TensorFlow's converter leaves what it wrote there if its process is killed; so all goes with the folder.
    """
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix=".temporary-", dir=folder, ignore_cleanup_errors=True) as place:
        os.environ["TMPDIR"] = tempfile.tempdir = place
        try:
            yield
        finally:
            tempfile.tempdir = None
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


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
