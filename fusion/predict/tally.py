"""What became of many images: a line that stands on the terminal while they are asked about, and their totals."""

from __future__ import annotations

import sys
import time
from collections import deque

from ..base.columns import counted

_EVERY_S = 0.2
_LATEST = 10_000


class Tally:
    """Counts images.

    Args:
      total: how many there will be; None where nobody knows.

    On a terminal a line like `37/120 images, 12.3 per second, 0:07 left` stands below what is printed.
    """

    def __init__(self, total: int | None) -> None:
        self._total, self._began, self._shown, self._silent_until = total, time.monotonic(), 0.0, 0.0
        self._terminal = sys.stderr.isatty()
        self._ms: deque[float] = deque(maxlen=_LATEST)
        self.answered = self.degraded = self.unfit = self.failed = 0

    @property
    def done(self) -> int:
        """How many images were asked about, or could not be."""
        return self.answered + self.unfit + self.failed

    def add(self, ms: float, degraded: bool) -> None:
        """An image was answered after so many ms."""
        self.answered += 1
        self.degraded += degraded
        self._ms.append(ms)

    def wait(self, reason: str, seconds: float) -> None:
        """The coordinator is waited for, up to so many seconds; said once in as long as that."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + seconds
            self.print(f"waiting, up to {seconds:g} s: {reason}", error=True)

    def print(self, line: str | None, error: bool = False) -> None:
        """Prints a line on standard output, or on standard error; None goes on without one."""
        self._clear()
        if line is not None:
            print(line, file=sys.stderr if error else sys.stdout, flush=True)
        now = time.monotonic()
        if self._terminal and self._total != 1 and now - self._shown > _EVERY_S:
            self._shown = now
            print(self._progress(now), end="\r", file=sys.stderr, flush=True)

    def finish(self, others: int) -> None:
        """Prints the totals on standard error; `others` files of folders were no images by their names."""
        self._clear()
        seconds = time.monotonic() - self._began
        ranked = sorted(self._ms)
        counts = [f"{self.answered} answered" + (f" ({self.degraded} degraded)" if self.degraded else "")]
        counts += [f"{count} {what}" for count, what in ((self.unfit, "unfit"), (self.failed, "failed")) if count]
        counts += [f"{self._total - self.done} not done"] if self._total and self._total > self.done else []
        counts += [f"{counted(others, 'other file')} left out"] if others else []
        text = f"{counted(self.done, 'image')} in {seconds:.1f} s: {', '.join(counts)}"
        if ranked:
            p50, p95 = (ranked[max(0, -(-percent * len(ranked) // 100) - 1)] for percent in (50, 95))
            text += f"; {self.done / max(seconds, 1e-9):.1f} per second, median {p50:.1f} ms, p95 {p95:.1f} ms"
        print(text, file=sys.stderr, flush=True)

    def _progress(self, now: float) -> str:
        rate = self.done / max(now - self._began, 1e-9)
        if self._total is None:
            return f"{counted(self.done, 'image')}, {rate:.1f} per second"
        left = round((self._total - self.done) / max(rate, 1e-9))
        return f"{self.done}/{self._total} images, {rate:.1f} per second, {left // 60}:{left % 60:02} left"

    def _clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
