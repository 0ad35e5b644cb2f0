"""Reading and replacing the files of runs and of prepared sets."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusion.base.files import text_of
from fusion.base.program import UserError

_temporary: list[Path] = []


def read_json(file: Path) -> Any:
    """The value of a JSON file.

    Raises:
      UserError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(text_of(file.read_bytes(), str(file)))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # brackets within brackets end the recursion
        raise UserError(f"{file} is not JSON ({error}).") from None


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None


def temporary_folder() -> Path:
    """A new folder that goes when the process ends, by `remove_temporary_folders`. Raises UserError where none can be
    made."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="paradis_tf-"))
    except OSError as error:
        raise UserError(f"a temporary folder cannot be made in {tempfile.gettempdir()}: {error.strerror}.") from None
    if not _temporary:
        atexit.register(remove_temporary_folders)
    _temporary.append(folder)
    return folder


def remove_temporary_folders() -> None:
    """Removes all of `temporary_folder`; for a process that does not end in Python's way."""
    while _temporary:
        shutil.rmtree(_temporary.pop(), ignore_errors=True)


@contextmanager
def replacing(file: Path, label: str = "") -> Iterator[Path]:
    """A path beside `file` that is renamed over it when the block ends, and removed if the block fails.

    Unlike `fusion.base.files.replacing` it is for libraries that open files by name, and by the ends of names.

    Args:
      file: the file to replace or to make.
      label: what an error calls it, such as the flag that named it; the file itself if left out.

    Raises:
      UserError: it cannot be written.
    """
    aside = file.with_name(f".{file.stem}.part{file.suffix}")
    try:
        yield aside
        aside.replace(file)
    except OSError as error:
        raise UserError(f"{label or file} cannot be written: {error.strerror or error}.") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def locked(lock: Path, sentence: str) -> Iterator[None]:
    """Holds a lock file during the block; the kernel frees it with the process, however that ends.

    Args:
      lock: the file, made if it is not there.
      sentence: the error where another process holds it.

    Raises:
      UserError: another process holds it, or the file cannot be made.
    """
    try:
        # Not by `open`, which would wait for ever where somebody has put a pipe.
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"{lock} cannot be written: {error.strerror}.") from None
    try:
        # Whoever asks whether a training is here, as benchmarks.runs does, holds the lock for a moment.
        for patience in (0.0, 0.1, 0.2, 0.4):
            time.sleep(patience)
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        else:
            raise UserError(sentence)
        yield
    finally:
        os.close(file)
