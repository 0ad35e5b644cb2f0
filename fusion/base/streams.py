"""Standard output and standard error as programs find them: closed, full, left by their reader, or without the letters
that a name has."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

# What may be wrong with an output: its reader is gone, the disk is full or fails.
_OF_OUTPUTS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)

_failure: OSError | None = None


def set_up() -> None:
    """To be called before the first output: what a stream's encoding lacks is escaped, and what is closed leads to
    nothing."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open(number, name)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, end: str = "\n") -> None:
    """Prints how far work has come. Where that cannot be written the work goes on, as its results are for the disk;
    the program's end tells of it."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        _give_up(error)


def warn(text: str) -> None:
    """Prints a line on standard error; where that cannot be written the work goes on."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def failure(error: OSError | None = None) -> OSError | None:
    """Why standard output could not be written, as far as is known, after writing what it holds.

    Args:
      error: what ended the program, if standard output may be its reason.

    After a failure output leads to nothing, or Python, as it ends, would write what is left in the buffer once more.
    """
    if _failure is None:
        try:
            sys.stdout.flush()
            if error is not None and error.errno in _OF_OUTPUTS:
                # What failed may be gone from the buffer, and other files fail in the same words.
                os.write(sys.stdout.fileno(), b"\n")
        except ValueError:
            # It is closed, or no file at all.
            pass
        except OSError as found:
            _give_up(found)
    return _failure


def _give_up(error: OSError) -> None:
    global _failure
    _failure = error
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _open(number: int, name: str) -> None:
    """Gives a closed stream a file that holds nothing; else the next file that is opened would take its number, and
    get what child processes print."""
    handle = os.open(os.devnull, os.O_RDWR)
    if handle == number:
        os.set_inheritable(handle, True)
    setattr(sys, name, os.fdopen(handle, "w" if number else "r", encoding="utf-8"))
