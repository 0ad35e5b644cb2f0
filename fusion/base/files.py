"""Writes result files so that a reader never meets half of one."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .program import UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

PRIVATE = 0o600
"""Permissions of a file that nobody else may read."""


# Where a shell puts the pipes that it hands over, as `<(...)`; their other end closes when it has given all.
_PIPES = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")


def is_handed_pipe(path: str | Path, what: str) -> bool:
    """Whether a file is a pipe that the shell has handed over.

    Raises `UserError`, which calls it `what`, for what might be waited for without end: another pipe, a socket, a
    device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        # Whoever opens it says why that cannot be.
        return False
    handed = stat.S_ISFIFO(mode) and str(path).startswith(_PIPES)
    if not (handed or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{what} {str(path)!r} is a pipe, a socket or a device; legal: a file, or a shell's <(...).")
    return handed


def read_bytes(path: Path, what: str) -> bytes:
    """What a file holds. Raises `UserError`, which calls it `what`, when it cannot be read."""
    is_handed_pipe(path, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{what} {str(path)!r} cannot be read: {error.strerror}.") from error


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, see `text_of`. Raises `UserError` as that and `read_bytes`."""
    return text_of(read_bytes(path, what), f"{what} {str(path)!r}")


def text_of(data: bytes, where: str) -> str:
    """UTF-8 text, without the byte-order mark that editors and spreadsheets may put before it.

    Raises `UserError`, which begins with `where`, for anything else; UTF-16, which some editors and shells write, is
    named.
    """
    if data.startswith(_UTF_16) or data[:2].count(0) == 1:
        raise UserError(f"{where} is UTF-16 text; legal: UTF-8, as which an editor can save it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text.") from error


@contextlib.contextmanager
def results() -> Iterator[Callable[..., None]]:
    """For a block that first writes results and then prints them: nothing that goes wrong with the one takes the other.

    Gives a function to call those with that write, `write(write_json, path, value)`. Their `UserError` is raised when
    the block, with all that it prints, has ended; of several the first.
    """
    errors: list[UserError] = []

    def write(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except UserError as error:
            errors.append(error)

    try:
        yield write
    except OSError:
        # Of what cannot be written and what cannot be printed, the former is what a reader has to know.
        if not errors:
            raise
    if errors:
        raise errors[0]


def check_json_target(path: str | Path | None) -> None:
    """Finds out before the work whether `write_json` could write to `path` after it.

    Raises `UserError` when `path` is a folder, lies in none or in one that is not writable; an empty one or None means
    no file.
    """
    if not path:
        return
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise UserError(f"file {str(path)!r} cannot be written: {parent!r} is no folder; legal: a file in a folder.")
    if os.path.isdir(path):
        raise UserError(f"file {str(path)!r} cannot be written: it is a folder; legal: a file in a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"file {str(path)!r} cannot be written: folder {parent!r} does not let this user write.")


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON; all else is as of `write_bytes`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text, line ends as they are; all else is as of `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes, mode: int = 0o644) -> None:
    """Writes `data` to `path`, with the permissions `mode`: aside first, then renamed over it.

    Raises `UserError` when that fails; an older file is then left as it was.
    """
    try:
        with replacing(Path(path), prefix=os.path.basename(path), suffix=".part", mode=mode) as stream:
            stream.write(data)
    except OSError as error:
        raise UserError(f"file {str(path)!r} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def replacing(path: Path, prefix: str, suffix: str = "", mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A new file beside `path`, which takes its place when the block ends, and goes when that ends by an error.

    Args:
      path: the file to replace or to make.
      prefix, suffix: of the new file's name until then.
      mode: its permissions then.

    Raises `OSError` when it cannot be made or renamed.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
        with os.fdopen(handle, "wb") as stream:
            yield stream
        # mkstemp gives a private file; a result is for whoever may read its folder.
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        # Also after Ctrl-C; of a file that was written nothing bears this name any more.
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
