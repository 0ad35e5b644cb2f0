"""A bundle as one file to send."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import zipfile
from pathlib import Path

from export.bundles.folder import own_files
from fusion.base.files import replacing
from fusion.base.program import UserError

# The earliest date that the format knows, so that the same bundle gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def check_target(path: str, bundle: str) -> None:
    """Raises UserError unless `write` could write a bundle to `path`; an empty one means no archive."""
    if not path:
        return
    if not path.endswith(".zip"):
        raise UserError(f"--archive={path}; an archive is a .zip file.")
    parent = Path(path).parent
    there = next(folder for folder in (parent, *parent.absolute().parents) if os.path.exists(folder))
    if parent.resolve().is_relative_to(Path(bundle).resolve()):
        raise UserError(f"--archive={path} lies in the bundle {bundle}; give a file outside of it.")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"--archive={path} cannot be written: {error.strerror}.") from None
    if os.path.isdir(path) or not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--archive={path} cannot be written; give a file in a folder that can be.")


def write(bundle: Path, path: Path) -> None:
    """Writes a bundle's own files, in a folder of its name, as a .zip file: aside, then renamed; deterministic.

    Raises:
      UserError: it cannot be written; an older archive is then left as it was.
    """
    files = own_files(bundle)
    name = bundle.resolve().name
    prefix = f".{path.name}.aside-"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(prefix)}*"):
            _remove_unless_locked(left)
        with replacing(path, prefix) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    entry = zipfile.ZipInfo(f"{name}/{file.relative_to(bundle).as_posix()}", _DATE)
                    entry.external_attr = 0o644 << 16
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, file.read_bytes(), compresslevel=9)
    except OSError as error:
        raise UserError(f"--archive={path} cannot be written: {error.strerror or error}.") from error


def _remove_unless_locked(left: Path) -> None:
    """Removes what a killed process has left, and not what another one is writing."""
    with contextlib.suppress(OSError), open(left, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left.unlink()
