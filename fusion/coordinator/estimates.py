"""How long a device is expected to take for its slices, and when each of them is measured anew."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..bundle.contents import SliceModel
from .remote import Partial

# How far a new value moves the mean and the mean deviation, and how many deviations are allowed for.
_MEAN_GAIN, _DEVIATION_GAIN, _DEVIATIONS = 1 / 8, 1 / 4, 2.0
# Seconds between two measurements of a slice, and the share of a device's time that they may take: a request that comes
# meanwhile has to wait.
_REFRESH_S, _REFRESH_SHARE = 30.0, 0.01
# Seconds without a request after which a device is idle.
_IDLE_S = 1.0
# A slice is doubted that took so many times as long as was expected. Its estimate is then high for many answers, and if
# that keeps it from being asked, for ever.
_SURPRISE = 2.0
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


@dataclass
class _Slice:
    """What is known of a slice: how long an answer takes, and how much of that its invocation, which the device spends
    on one request after the other; the rest, as on the wire, passes for all at once."""

    model: SliceModel
    latency: Estimate = field(default_factory=lambda: Estimate(0.0))
    invocation: Estimate = field(default_factory=lambda: Estimate(0.0))
    is_measured: bool = False
    # It could not be answered, for want of memory.
    is_unable: bool = False
    # Since when it may take longer than is expected, and when it is to be measured whatever is expected.
    doubted: float | None = None
    due: float = 0.0


class SliceEstimates:
    """What a device serves, what is expected of each slice of it, and when each is to be measured anew.

    While the device is idle, a doubted slice at once, and any other 30 s after its last measurement, or a hundred times
    what that took. While requests use it, a doubted one alone, 5 s after the doubt, or a hundred times what it will
    take: so each doubt is settled in the end, and requests do not wait for what can wait itself.

    Attributes:
      revision: another number after each change that plans depend on; answers that come as expected are none.
      used: when the last request ended.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.used = -math.inf
        self._known: dict[str, _Slice] = {}
        self._served: list[_Slice] = []

    @property
    def latencies(self) -> dict[str, float]:
        """Expected milliseconds of one image, by the slices that are served, measured and have room."""
        return {slice_.model.model: slice_.latency.ms for slice_ in self._usable()}

    def invocation_ms(self, name: str) -> float:
        """For how long one image of a slice keeps the device from the next request; 0 where that is not known."""
        return self._known[name].invocation.ms

    def serve(self, models: Sequence[SliceModel]) -> None:
        """The device serves these slices, and no others."""
        self._served = [self._known.setdefault(model.model, _Slice(model)) for model in models]
        for slice_ in self._served:
            if not slice_.is_measured:
                self.doubt(slice_.model.model)
        self.revision += 1

    def sizes_to_meet(self) -> list[list[str]]:
        """The slices to measure of a device that was away, as of `due`: where none is doubted, the smallest alone, to
        see that it can answer."""
        sizes, usable = self._sizes(), self._usable()
        if usable and all(slice_.doubted is None for slice_ in self._served):
            smallest = min(usable, key=lambda slice_: slice_.model.madds)
            sizes = [slices for slices in sizes if smallest in slices]
        return [_names(slices) for slices in sizes]

    def due(self, running: int) -> list[str]:
        """The slices that are to be measured now, all of one size, which take the same time; none where that can wait.

        Never all sizes one after the other, as the device would be away for too long. `running` is how many requests it
        has.
        """
        sizes, time = self._sizes(), now()
        for slices in sizes:
            takes_s = max(slice_.invocation.ms for slice_ in slices) / 1e3
            wait_s = max(_DOUBT_S, takes_s / _REFRESH_SHARE) if running else 0.0
            if any(slice_.doubted is not None and time - slice_.doubted >= wait_s for slice_ in slices):
                return _names(slices)
        if running or time - self.used < _IDLE_S:
            return []
        return next((_names(slices) for slices in sizes if any(slice_.due <= time for slice_ in slices)), [])

    def add(self, name: str, answer: Partial, images: int) -> None:
        """Takes in the answer to a request of so many images."""
        slice_, ms = self._known[name], _alone_ms(answer) / images
        if ms > _SURPRISE * slice_.latency.ms:
            self.doubt(name)
        slice_.latency.add(ms)
        slice_.invocation.add(answer.invoke_ms / images)

    def raise_to(self, name: str, ms: float) -> None:
        """Takes in that an image of a slice would have taken longer than this."""
        if self._known[name].latency.raise_to(ms):
            self.doubt(name)
        self.revision += 1

    def doubt(self, name: str) -> None:
        """Has a slice measured anew, since it takes longer than expected."""
        slice_ = self._known[name]
        slice_.doubted = now() if slice_.doubted is None else slice_.doubted
        self.revision += 1

    def set_measured(self, names: Collection[str], answer: Partial) -> None:
        """Takes in the measurement of the slices of one size; what was known of them before counts no more."""
        ms = _alone_ms(answer)
        for slice_ in self._settle(names, ms):
            slice_.latency, slice_.invocation = Estimate(ms), Estimate(answer.invoke_ms)
            slice_.is_measured, slice_.is_unable = True, False

    def set_unable(self, names: Collection[str]) -> None:
        """Takes in that the device has no room for these slices now."""
        for slice_ in self._settle(names, 0.0):
            slice_.is_unable = True

    def _settle(self, names: Collection[str], ms: float) -> list[_Slice]:
        """Slices of one size were measured, which took so many milliseconds, or cannot be measured now."""
        self.revision += 1
        slices = [self._known[name] for name in names]
        # Uneven, so that not all devices are away at one moment.
        due = now() + max(_REFRESH_S, ms / 1e3 / _REFRESH_SHARE) * random.uniform(0.75, 1.25)
        for slice_ in slices:
            slice_.doubted, slice_.due = None, due
        return slices

    def _usable(self) -> list[_Slice]:
        return [slice_ for slice_ in self._served if slice_.is_measured and not slice_.is_unable]

    def _sizes(self) -> list[list[_Slice]]:
        """The slices that are served, those of a size together."""
        of_size: dict[tuple[int, int], list[_Slice]] = {}
        for slice_ in self._served:
            of_size.setdefault((slice_.model.madds, slice_.model.parameters), []).append(slice_)
        return list(of_size.values())


def _names(slices: Sequence[_Slice]) -> list[str]:
    return [slice_.model.model for slice_ in slices]


def _alone_ms(answer: Partial) -> float:
    """What an answer took without the waiting for other requests, which `FleetDevice.busy_ms` tells of."""
    return max(answer.invoke_ms, (answer.received - answer.sent) * 1e3 - answer.queue_ms)
