"""How long a device is expected to take for its slices, and when each of them is measured anew."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping, Sequence

# The parts that a new value moves the mean and the mean deviation by, and how many deviations are allowed for.
_MEAN_PART, _DEVIATION_PART, _DEVIATIONS = 1 / 8, 1 / 4, 2.0
# A slice is measured anew after the one, but measuring takes no more than the other of a device's time: a request that
# comes meanwhile has to wait.
_REFRESH_S, _REFRESH_PART = 30.0, 0.01
# A device without a request for so long is idle.
_IDLE_S = 1.0
# On one that is never idle a doubted slice is measured after so long.
_DOUBT_S = 5.0


class Estimate:
    """What is expected of a latency, in milliseconds: its smoothed mean and twice its mean deviation.

    Source: Jacobson and Karels 1988, the estimator of TCP's retransmission timer, with two deviations for four.
    """

    def __init__(self, first_ms: float) -> None:
        self._mean, self._deviation = first_ms, 0.0

    def add(self, ms: float) -> None:
        """Takes a value in."""
        error = ms - self._mean
        self._mean += _MEAN_PART * error
        self._deviation += _DEVIATION_PART * (abs(error) - self._deviation)

    def at_least(self, ms: float) -> bool:
        """Takes in that a value would have been more than this; returns whether that was not expected."""
        unexpected = ms > self.ms
        self._mean = max(self._mean, ms)
        return unexpected

    @property
    def ms(self) -> float:
        return self._mean + _DEVIATIONS * self._deviation


class Measurements:
    """When each slice of a device is to be measured anew.

    While the device is idle, a doubted slice at once, and any other 30 s after its last measurement, or the hundredfold
    of what that took. While requests use it, a doubted one alone, 5 s after the doubt, or the hundredfold of what it
    will take: so each doubt is settled in the end, and requests do not wait for what can wait itself.
    """

    def __init__(self) -> None:
        self._doubted: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._used = -_IDLE_S

    @property
    def any_doubted(self) -> bool:
        """Whether a slice takes longer than expected, as far as is known."""
        return bool(self._doubted)

    def used(self) -> None:
        """A request is at the device now."""
        self._used = time.monotonic()

    def doubt(self, name: str) -> None:
        """A slice took longer than expected."""
        self._doubted.setdefault(name, time.monotonic())

    def done(self, names: Collection[str], ms: float) -> None:
        """Slices of one size were measured, which took so long, or cannot be."""
        # Uneven, so that not all devices are away at one moment.
        pause_s = max(_REFRESH_S, ms / 1e3 / _REFRESH_PART) * random.uniform(0.75, 1.25)
        self._due |= dict.fromkeys(names, time.monotonic() + pause_s)
        for name in names:
            self._doubted.pop(name, None)

    def due(self, sizes: Sequence[Sequence[str]], running: int, takes_ms: Mapping[str, float]) -> Sequence[str]:
        """The slices of the one size that is to be measured now; none where that can wait.

        Never all of them one after the other, as the device would be away for too long.

        Args:
          sizes: the device's slices, those of a size together.
          running: how many requests it has.
          takes_ms: what each slice is expected to keep it for.
        """
        now = time.monotonic()
        for names in sizes:
            since = min((self._doubted[name] for name in names if name in self._doubted), default=None)
            if since is None:
                continue
            wait_s = max(_DOUBT_S, max(takes_ms.get(name, 0.0) for name in names) / 1e3 / _REFRESH_PART)
            if not running or now - since >= wait_s:
                return names
        if running or now - self._used < _IDLE_S:
            return ()
        return next((names for names in sizes if any(self._due.get(name, 0.0) <= now for name in names)), ())
