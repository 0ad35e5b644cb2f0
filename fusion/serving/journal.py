"""The JSON-lines log of a server: one JSON object per line, which neither a full disk nor a slow one can hold up."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

from ..base.columns import utc_now
from ..base.program import UserError

MAX_WAITING = 10_000
"""Lines that wait for the disk at most; those beyond are dropped and counted."""

_CLOSE_S = 2.0
_STDOUT = 1
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class Journal:
    """Writes events as lines `{"ts": "2024-05-01T12:00:00.000Z", "event": ..., fields}`; a context manager.

    Args:
      path: the file to append to, made if it is not there; "-" is standard output, None writes nothing.

    Lines are written in order by a thread of the journal's own, each at once and whole. Where that fails, as on a full
    disk, they are dropped and counted, and the next line that can be written comes after one of the event
    `journal_dropped` with their number, `lines`. A file that was moved or removed, as by logrotate, is opened anew
    under its name before the next line, without a signal. Any thread may call `write`; the file belongs to one process.

    Raises `UserError` when the file cannot be opened.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path in (None, "-") else str(path)
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closed = path is None
        self._dropped = self._untold = 0
        self._torn = False
        self._handle = -1
        if self._path is not None:
            try:
                self._handle = self._open()
            except OSError as error:
                raise UserError(f"log file {self._path!r} cannot be written: {error.strerror}.") from error
        elif path is not None:
            self._handle = _STDOUT
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        if not self._closed:
            self._thread.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """How many lines could not be written so far."""
        return self._dropped

    def write(self, event: str, **fields: Any) -> None:
        """Adds a line; returns at once and never fails.

        Args:
          event: what happened, as a word.
          fields: what JSON can hold, by name; NumPy's numbers become plain ones, NaN and infinity null, anything else
            its text.
        """
        if self._closed:
            return
        line = _encode({"ts": utc_now(), "event": event} | fields)
        with self._changed:
            if len(self._lines) >= MAX_WAITING:
                self._drop(1)
            else:
                self._lines.append(line)
                self._changed.notify()

    def close(self) -> None:
        """Writes what waits, for 2 seconds at most, and closes the file. Nothing is written after it."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closed:
                    self._changed.wait()
                if not self._lines:
                    break
                line = self._lines.popleft()
            self._append(line)
        if self._path is not None:
            os.close(self._handle)

    def _append(self, line: bytes) -> None:
        if self._path is not None:
            self._follow()
        untold = self._untold
        if untold:
            line = _encode({"ts": utc_now(), "event": "journal_dropped", "lines": untold}) + line
        if self._write(line):
            with self._changed:
                self._untold -= untold
        else:
            with self._changed:
                self._drop(1)

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        self._untold += lines

    def _write(self, line: bytes) -> bool:
        """Whether all of `line` was written; of one that was not, nothing stays in a file."""
        data = b"\n" + line if self._torn else line
        written = 0
        try:
            if self._path is not None and os.fstat(self._handle).st_nlink == 0:
                return False
            while written < len(data):
                written += os.write(self._handle, data[written:])
        except OSError:
            self._torn = (self._torn or written > 0) and not self._take_back(written)
            return False
        self._torn = False
        return True

    def _take_back(self, written: int) -> bool:
        """Whether the last `written` bytes of the file could be removed again."""
        if self._path is None:
            return False
        try:
            os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
        except OSError:
            return False
        # The older half of a line is still there.
        return not self._torn

    def _open(self) -> int:
        handle = os.open(str(self._path), _FLAGS, 0o640)
        try:
            about = os.fstat(handle)
            if stat.S_ISFIFO(about.st_mode) or stat.S_ISSOCK(about.st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            self._torn = about.st_size > 0 and not _ends_a_line(str(self._path))
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _follow(self) -> None:
        """Opens the file anew where another one, or none, bears its name."""
        try:
            named = os.stat(str(self._path))
            held = os.fstat(self._handle)
            if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
                return
        except OSError:
            pass
        try:
            handle = self._open()
        except OSError:
            # The old one is still better than none.
            return
        os.close(self._handle)
        self._handle = handle


def _ends_a_line(path: str) -> bool:
    """Whether the last byte of a file ends a line; it does not where a process was killed while it wrote."""
    try:
        with open(path, "rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"
    except OSError:
        return True


def _encode(fields: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(fields, allow_nan=False, default=_plain, skipkeys=True, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(fields), default=str, skipkeys=True, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    """What JSON can hold of anything else: a NumPy scalar's or array's numbers, or its text."""
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _finite(value: Any) -> Any:
    """`value` with None for every number that JSON lacks."""
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _finite(_plain(value))
