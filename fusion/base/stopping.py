"""How Ctrl-C, SIGTERM and SIGHUP end a program: in one way, whatever it is doing.

While a program still imports what it needs, such a signal ends it at once; later it raises an exception, so that what
is half done is undone first. Either way the last line on standard error is `interrupted`, `terminated` or `hung up`,
and the status 128 plus the signal's number. A signal that whoever started the program has ignored, as `nohup` does,
stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

# Windows has no SIGHUP.
_WORDS = {
    getattr(signal, name): word
    for name, word in (("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "hung up"))
    if hasattr(signal, name)
}
_Handler = Callable[[int, "FrameType | None"], None]


class Stopped(KeyboardInterrupt):
    """A signal that ends the program; what Ctrl-C raises is its base class.

    Attributes:
      number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS[number])
        self.number = number


def end_at_once() -> None:
    """From now on such a signal ends the program without undoing anything, as before there is something to undo."""
    _handle(_ending(2))


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """As `end_at_once`, for a block that imports: libraries would take what is raised there for a fault of theirs, or
    swallow it. Standard error is the one before the block."""
    errors = os.dup(2)
    before = _handle(_ending(errors))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(errors)


def end_by_exception() -> None:
    """From now on Ctrl-C raises `KeyboardInterrupt`, and the other signals `Stopped`."""
    _handle(_raise)
    if signal.getsignal(signal.SIGINT) is _raise:
        # asyncio has a way of its own with this handler alone.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end(stop: KeyboardInterrupt) -> NoReturn:
    """Ends the program that such an exception has left."""
    number = stop.number if isinstance(stop, Stopped) else int(signal.SIGINT)
    # What is left to do is quick, and a second Ctrl-C would spoil it.
    for other in _WORDS:
        signal.signal(other, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # Not by Python's own ending, in which threads that are at work, as TensorFlow's in a step, may crash or be waited
    # for.
    _ending(2)(number, None)
    raise stop


def _ending(errors: int) -> _Handler:
    """A handler that writes the last line to this file and ends the process."""

    def end_now(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(errors, f"{_WORDS[number]}\n".encode())
        os._exit(128 + number)

    return end_now


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _handle(handler: _Handler) -> dict[int, signal.Handlers | _Handler | int | None]:
    """Sets the handler of all signals that are not ignored; returns those before."""
    before = {number: signal.getsignal(number) for number in _WORDS}
    ignored = (signal.SIG_IGN, None)
    for number in [number for number, old in before.items() if old not in ignored]:
        signal.signal(number, handler)
    return {number: old for number, old in before.items() if old not in ignored}
