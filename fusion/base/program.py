"""What every command-line program of the project shares: how it ends on bad input and on Ctrl-C."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from absl import app, flags

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

    A `UserError` prints `error: <sentence>` and exits 2; Ctrl-C and SIGTERM print `interrupted` and `terminated` and
    exit 130 and 143; where whoever reads its output has enough of it, it exits 1 without a word. Anything else is a
    defect of the program and keeps its traceback.
    """

    def guarded(argv: list[str]) -> None:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            if len(argv) > 1 and not takes_arguments:
                raise UserError(f"unexpected argument {argv[1]!r}; every option of this program is a --flag.")
            status = main(argv[1:])
            sys.stdout.flush()
        except UserError as error:
            _end(f"error: {error}", 2)
        except KeyboardInterrupt:
            _end("interrupted", 130)
        except BrokenPipeError:
            _end_without_reader()
        sys.exit(status or 0)

    def parsed(argv: list[str]) -> list[str]:
        try:
            return (parse_flags or parse_command_line)(argv)
        except UserError as error:
            _end(f"error: {error}", 2)
        except BrokenPipeError:
            _end_without_reader()

    app.run(guarded, flags_parser=parsed)


def _terminate(number: int, frame: FrameType | None) -> None:
    print("terminated", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def _end_without_reader() -> NoReturn:
    # Or Python, as it ends, writes what is left in the buffer once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _end(line: str, status: int) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    sys.exit(status)
