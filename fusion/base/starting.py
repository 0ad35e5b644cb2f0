"""What a program does before it imports anything else."""

from __future__ import annotations

import sys

from . import stopping, streams


def begin() -> None:
    """To be called by the first package that `python -m PACKAGE.PROGRAM` imports; does nothing where that is imported
    for another reason."""
    # So it is while Python looks for the program's module, and not later.
    if getattr(sys, "argv", [])[:1] == ["-m"]:
        streams.set_up()
        stopping.end_at_once()
