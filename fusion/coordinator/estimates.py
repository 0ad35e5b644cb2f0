"""How long a device is expected to take for its slices, when each of them is measured anew, and its work."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..bundle.contents import SliceModel
from .remote import Partial

# How far a new value moves the mean and the mean deviation, and how many deviations are allowed for.
_MEAN_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 2.0
# Seconds between two measurements of a slice, and the share of a device's time that they may take: a request that comes
# meanwhile has to wait.
_REFRESH_S, _REFRESH_SHARE = 30.0, 0.01
# Seconds without a request after which a device is idle.
_IDLE_S = 1.0
# Seconds after which a doubted slice of a device that is never idle is measured.
_DOUBT_S = 5.0


def now() -> float:
    """Seconds on the clock of the event loop, which all waiting is by too: a test can run on a loop of its own time."""
    return asyncio.get_running_loop().time()


class Estimate:
    """What is expected of a latency, in milliseconds: its smoothed mean and twice its mean deviation.

    Source: Jacobson and Karels 1988, the estimator of TCP's retransmission timer, with two deviations for four.
    """

    def __init__(self, first_ms: float) -> None:
        self._mean, self._deviation = first_ms, 0.0

    def add(self, ms: float) -> None:
        """Takes a value in."""
        error = ms - self._mean
        self._mean += _MEAN_GAIN * error
        self._deviation += _DEVIATION_GAIN * (abs(error) - self._deviation)

    def raise_to(self, ms: float) -> bool:
        """Takes in that a value would have been more than this; returns whether that was not expected."""
        unexpected = ms > self.ms
        self._mean = max(self._mean, ms)
        return unexpected

    @property
    def ms(self) -> float:
        return self._mean + _DEVIATIONS * self._deviation


class Measurements:
    """When each slice of a device is to be measured anew.

    While the device is idle, a doubted slice at once, and any other 30 s after its last measurement, or a hundred times
    what that took. While requests use it, a doubted one alone, 5 s after the doubt, or a hundred times what it will
    take: so each doubt is settled in the end, and requests do not wait for what can wait itself.
    """

    def __init__(self) -> None:
        self._doubted: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._used: float | None = None

    @property
    def any_doubted(self) -> bool:
        """Whether a slice takes longer than expected, as far as is known."""
        return bool(self._doubted)

    def used(self) -> None:
        """A request is at the device now."""
        self._used = now()

    def doubt(self, name: str) -> None:
        """A slice took longer than expected."""
        self._doubted.setdefault(name, now())

    def done(self, names: Collection[str], ms: float) -> None:
        """Slices of one size were measured, which took so many milliseconds, or cannot be measured now."""
        # Uneven, so that not all devices are away at one moment.
        pause_s = max(_REFRESH_S, ms / 1e3 / _REFRESH_SHARE) * random.uniform(0.75, 1.25)
        self._due |= dict.fromkeys(names, now() + pause_s)
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
        time = now()
        for names in sizes:
            doubted = [self._doubted[name] for name in names if name in self._doubted]
            wait_s = max(_DOUBT_S, max(takes_ms.get(name, 0.0) for name in names) / 1e3 / _REFRESH_SHARE)
            if doubted and (not running or time - min(doubted) >= wait_s):
                return names
        if running or (self._used is not None and time - self._used < _IDLE_S):
            return ()
        return next((names for names in sizes if min(self._due.get(name, time) for name in names) <= time), ())


class SliceEstimates:
    """What a device serves, and what is expected of each slice of it.

    Attributes:
      revision: another number after each change that plans depend on; answers that come as expected are none.
      measurements: when its slices are measured.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.measurements = Measurements()
        self._served: dict[str, SliceModel] = {}
        self._latencies: dict[str, Estimate] = {}
        # What of it the device spends on one request after the other; the rest, as on the wire, passes for all at once.
        self._invocations: dict[str, Estimate] = {}
        # Slices that are served and could not be answered, for want of memory.
        self._unable: set[str] = set()

    @property
    def latencies(self) -> dict[str, float]:
        """Expected milliseconds of one image, by the slices that are served, measured and have room."""
        return {name: self._latencies[name].ms for name in self._served if self._is_usable(name)}

    def invocation_ms(self, name: str) -> float:
        """For how long one image of a slice keeps the device from the next request; 0 where that is not known."""
        return self._invocations[name].ms if name in self._invocations else 0.0

    def serve(self, models: Sequence[SliceModel]) -> None:
        """The device serves these slices, and no others."""
        self._served = {model.model: model for model in models}
        self.revision += 1

    def unmeasured(self) -> list[str]:
        """Slices that are served and nothing is known of."""
        return [name for name in self._served if name not in self._latencies]

    def sizes(self) -> list[list[str]]:
        """The slices that are served, those of a size together, since they take the same time."""
        of_size: dict[tuple[int, int], list[str]] = {}
        for name, model in self._served.items():
            of_size.setdefault((model.madds, model.parameters), []).append(name)
        return list(of_size.values())

    def sizes_to_meet(self) -> list[list[str]]:
        """The sizes to measure of a device that was away: of one that is known, the smallest slice alone, to see
        that it can answer; of another all."""
        usable = [model for name, model in self._served.items() if self._is_usable(name)]
        if not usable or self.measurements.any_doubted or self.unmeasured():
            return self.sizes()
        smallest = min(usable, key=lambda model: model.madds)
        return [names for names in self.sizes() if smallest.model in names]

    def due(self, running: int) -> Sequence[str]:
        """The slices of one size that are to be measured now, as of `Measurements.due`."""
        return self.measurements.due(self.sizes(), running, {name: self.invocation_ms(name) for name in self._served})

    def add(self, name: str, answer: Partial, images: int) -> None:
        """Takes in the answer to a request of so many images."""
        self._latencies[name].add(_alone_ms(answer) / images)
        self._invocations[name].add(answer.invoke_ms / images)

    def raise_to(self, name: str, ms: float) -> None:
        """Takes in that an image of a slice would have taken longer than this."""
        if self._latencies[name].raise_to(ms):
            self.measurements.doubt(name)
        self.revision += 1

    def doubt(self, name: str) -> None:
        """Has a slice measured anew, since it takes longer than expected."""
        self.measurements.doubt(name)
        self.revision += 1

    def set_measured(self, names: Collection[str], answer: Partial) -> None:
        """Takes in the measurement of the slices of one size; what was known of them before counts no more."""
        ms = _alone_ms(answer)
        self._unable -= set(names)
        self._latencies |= {name: Estimate(ms) for name in names}
        self._invocations |= {name: Estimate(answer.invoke_ms) for name in names}
        self.measurements.done(names, ms)
        self.revision += 1

    def set_unable(self, names: Collection[str]) -> None:
        """Takes in that the device has no room for these slices now."""
        self._unable |= set(names)
        self.measurements.done(names, 0.0)
        self.revision += 1

    def _is_usable(self, name: str) -> bool:
        return name in self._latencies and name not in self._unable


class Workload:
    """What a device was asked for and has not answered.

    Attributes:
      running: how many requests that is.
    """

    def __init__(self) -> None:
        self.running = 0
        # Expected milliseconds of it all, and since when the device is at the first of it.
        self._expected_ms, self._begun = 0.0, 0.0

    @property
    def ms(self) -> float:
        """Milliseconds of work that the device is expected to have before it."""
        return max(0.0, self._expected_ms - (now() - self._begun) * 1e3) if self.running else 0.0

    @contextlib.contextmanager
    def more(self, expected_ms: float) -> Iterator[None]:
        """While the device has a request more, that takes it so long."""
        if not self.running:
            self._begun = now()
        self.running += 1
        self._expected_ms += expected_ms
        try:
            yield
        finally:
            self.running -= 1
            self._expected_ms -= expected_ms
            self._begun = now()


def _alone_ms(answer: Partial) -> float:
    """What an answer took without the waiting for other requests, which `FleetDevice.busy_ms` tells of."""
    return max(answer.invoke_ms, (answer.received - answer.sent) * 1e3 - answer.queue_ms)
