"""What becomes of many images: a line for each, and their totals."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from ..base.columns import counted
from ..base.streams import warn
from ..base.walk import left_out_text
from ..runtime.timing import percentile

_LATEST = 10_000


class Tally:
    """Counts images, and prints about them.

    Args:
      total: how many there will be; None where nobody knows.
    """

    def __init__(self, total: int | None) -> None:
        self._total, self._began, self._silent_until = total, time.monotonic(), 0.0
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
            warn(f"waiting, up to {seconds:g} s: {reason}")

    def finish(self, left_out: Mapping[str, int]) -> None:
        """Prints the totals on standard error, with what of folders is left out, by kind."""
        seconds = time.monotonic() - self._began
        ranked = sorted(self._ms)
        counts = [f"{self.answered} answered" + (f" ({self.degraded} degraded)" if self.degraded else "")]
        counts += [f"{count} {what}" for count, what in ((self.unfit, "unfit"), (self.failed, "failed")) if count]
        counts += [f"{self._total - self.done} not done"] if self._total and self._total > self.done else []
        counts += [f"left out {left_out_text(left_out)}"] if left_out else []
        text = f"{counted(self.done, 'image')} in {seconds:.1f} s: {', '.join(counts)}"
        if ranked:
            p50, p95 = (percentile(ranked, percent) for percent in (50, 95))
            text += f"; {self.done / max(seconds, 1e-9):.1f} per second, median {p50:.1f} ms, p95 {p95:.1f} ms"
        warn(text)
