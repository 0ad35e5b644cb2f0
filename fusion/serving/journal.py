"""The JSON-lines log of a server: one JSON object per line, which neither a full disk nor a slow one can hold up."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ..base.columns import utc_now
from ..base.program import UserError

MAX_WAITING = 10_000
"""Lines that wait for the disk at most; those beyond are dropped."""


class Journal:
    """Writes events as lines `{"ts": "2024-05-01T12:00:00.000Z", "event": ..., fields}`; a context manager.

    Args:
      path: the file to append to, made if it is not there; "-" is standard output, None writes nothing.

    Lines are written in order by a thread of the journal's own. A line that cannot be written, as on a full disk, is
    dropped. A file that was moved or removed, as by logrotate, is opened anew under its name before the next line,
    without a signal. Any thread may call `write`.

    Raises `UserError` when the file cannot be opened, or has an empty name.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._lines: SimpleQueue[Any] | None = None
        if path == "":
            raise UserError("the log file's name is empty; legal: a file, or - for standard output.")
        # Who started it may have closed standard output.
        if path is None or (path == "-" and sys.stdout is None):
            return
        self._lines = SimpleQueue()
        self._sender = _Sender(self._lines)
        self._writer = _Output(sys.stdout) if path == "-" else _file(Path(path))
        self._listener = QueueListener(self._lines, self._writer)
        self._listener.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, event: str, **fields: Any) -> None:
        """Adds a line; returns at once and never fails.

        Args:
          event: what happened, as a word.
          fields: what JSON can hold, by name; NumPy's numbers become plain ones, anything else its text.
        """
        if self._lines is not None:
            text = json.dumps({"ts": utc_now(), "event": event} | fields, default=_plain, separators=(",", ":"))
            self._sender.handle(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        """Writes what waits, and closes the file. Nothing is written after it."""
        if self._lines is not None:
            self._lines = None
            self._listener.stop()
            self._writer.close()


class _Sender(QueueHandler):
    """Hands lines over to the thread that writes them."""

    def __init__(self, lines: SimpleQueue[Any]) -> None:
        super().__init__(lines)
        self._lines = lines

    def enqueue(self, record: logging.LogRecord) -> None:
        """Drops a line that comes while too many wait."""
        if self._lines.qsize() < MAX_WAITING:
            self._lines.put_nowait(record)


class _Quiet(logging.Handler):
    """Drops a line that cannot be written, without a word."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        pass


class _Output(_Quiet, logging.StreamHandler[Any]):
    """Standard output."""


class _File(_Quiet, WatchedFileHandler):
    """A file, wherever its name leads."""

    def close(self) -> None:
        # What was left of the last lines, where the disk is full.
        with contextlib.suppress(OSError):
            super().close()


def _file(path: Path) -> _File:
    try:
        # Only for who may read this program's other files; no pipe that nobody reads.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o640))
        return _File(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"log file {str(path)!r} cannot be written: {error.strerror}.") from error


def _plain(value: Any) -> Any:
    """What JSON can hold of anything else: a NumPy scalar's or array's numbers, or its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
