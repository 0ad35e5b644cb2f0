"""How far long work has come, and how long it will still take."""

from __future__ import annotations

import sys
import time

from fusion.base.streams import say


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds: `1:05`, `2:00:05`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """Prints `what 300/1,000, 0:07 left` as work goes on: in place on a terminal, else a line every so often.

    Args:
      what: what is being done.
      total: how many things there are.
      every: seconds between two lines where there is no terminal.
    """

    def __init__(self, what: str, total: int, every: float = 30.0) -> None:
        self._what, self._total = what, total
        self._began = self._last = time.monotonic()
        self._every = 0.2 if sys.stdout.isatty() else every

    def update(self, done: int, before: int = 0) -> None:
        """So many are done, of which `before` were so from the start."""
        now = time.monotonic()
        if now - self._last < self._every and done < self._total:
            return
        self._last = now
        left = (now - self._began) / max(1, done - before) * (self._total - done)
        line = f"{self._what} {done:,}/{self._total:,}, {duration(left)} left"
        if sys.stdout.isatty():
            say(f"\r\x1b[K{line}", end="" if done < self._total else "\n")
        else:
            say(line)
