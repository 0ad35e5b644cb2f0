"""What every command-line program of the project shares: its flags of numbers, and how it ends."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags

from . import stopping, streams

# Flags defined by a function here belong to the module that calls it, and stand in that one's --help.
flags.disclaim_key_flags()

# The longest wait that a flag may ask for: a day, in seconds.
LONGEST_S = 86_400.0


class UserError(ValueError):
    """Bad input. The message is one sentence that names the thing, the value and what is legal."""


def define_float(
    name: str, default: float | None, text: str, lower: float, upper: float
) -> flags.FlagHolder[float | None]:
    """Defines a float flag of the calling module from `lower` to `upper`, both finite and legal.

    absl's own bounds let NaN pass, and infinity where one bound is missing.
    """
    return flags.DEFINE(_BoundedFloat(lower, upper), name, default, text, serializer=flags.ArgumentSerializer())


class _BoundedFloat(flags.FloatParser):
    def parse(self, argument: float | int | str) -> float:
        legal = f"legal: a number from {self.lower_bound:.10g} to {self.upper_bound:.10g}"
        try:
            value = float(argument)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{argument!r} is no number; {legal}.") from None
        # NaN is not within any bounds.
        if not (math.isfinite(value) and self.lower_bound <= value <= self.upper_bound):
            raise ValueError(f"{value} is out of bounds; {legal}.")
        return value


def parse_command_line(argv: list[str]) -> list[str]:
    """Parses the flags and returns what is left over, the program's name first.

    Raises `UserError`, with absl's reason, for a flag that is unknown, missing or out of range.
    """
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        missing = re.fullmatch(r"flag --(\w+)=None: .*", reason)
        raise UserError(f"--{missing[1]} is missing." if missing else f"{reason}; see --help.") from None


def run(
    main: Callable[[list[str]], int | None],
    takes_arguments: bool = False,
    parse_flags: Callable[[list[str]], list[str]] | None = None,
) -> None:
    """Runs an absl program and turns the expected ways of failing into one line and an exit status.

    Args:
      main: receives the arguments left over after flag parsing and returns the exit status (`None` is 0).
      takes_arguments: whether the program takes any besides its flags; if not, one is refused.
      parse_flags: used in place of `parse_command_line`; may raise `UserError`.

    A `UserError` prints `error: <sentence>` and exits 2, and so does standard output that cannot be written, but for
    where whoever reads it has enough of it: that exits 1 without a word. Ctrl-C, SIGTERM and SIGHUP end it as
    `stopping` says. Anything else is a defect of the program and keeps its traceback.
    """

    def guarded(argv: list[str]) -> int | None:
        stopping.end_by_exception()
        if len(argv) > 1 and not takes_arguments:
            raise UserError(f"unexpected argument {argv[1]!r}; every option of this program is a --flag.")
        return main(argv[1:])

    streams.set_up()
    status: Any = 0
    try:
        try:
            app.run(guarded, flags_parser=parse_flags or parse_command_line)
        except SystemExit as ending:
            status = ending.code
        failure = streams.failure()
    except UserError as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as stop:
        stopping.end(stop)
    except OSError as error:
        failure = streams.failure(error)
        if failure is None:
            raise
    if isinstance(failure, BrokenPipeError):
        sys.exit(1)
    if failure is not None:
        _end(f"error: standard output cannot be written: {failure.strerror or failure}.", 2)
    # Nothing is left to undo, and what Python does at its end may take a while.
    stopping.end_at_once()
    sys.exit(status)


def _end(line: str, status: int) -> NoReturn:
    streams.failure()
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    stopping.end_at_once()
    sys.exit(status)
