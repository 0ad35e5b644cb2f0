"""Which devices of a switch may answer while others are missing, and what is left of it then."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

ALL_SUBSETS_UP_TO = 6
_MISSING_BEYOND = 2
_Devices = TypeVar("_Devices", bound=Collection[int])


def live_subsets(devices: int) -> Iterator[tuple[int, ...]]:
    """The sets of devices that answer, in ascending order each, the fullest sets first.

    All 2^n - 1 of them up to 6 devices; beyond, those that miss 2 devices at most.
    """
    fewest = 1 if devices <= ALL_SUBSETS_UP_TO else devices - _MISSING_BEYOND
    for live in range(devices, fewest - 1, -1):
        yield from combinations(range(devices), live)


def text_form(live: Sequence[int], devices: int) -> str:
    """`0,1,-,3`: the devices that answer, and a dash for each that is missing."""
    return ",".join(str(device) if device in live else "-" for device in range(devices))


def means_by_left(values: Mapping[_Devices, float], devices: int) -> dict[int, float]:
    """By number of devices left, most first: the mean over the sets of so many, each of which is as likely to be left.

    Args:
      values: by set of devices that answer.
      devices: of the switch. A number of which `values` lacks a set has no mean.
    """
    of_left: dict[int, list[float]] = {}
    for live, value in values.items():
        of_left.setdefault(len(live), []).append(value)
    return {
        left: statistics.fmean(of_left[left])
        for left in sorted(of_left, reverse=True)
        if len(of_left[left]) == math.comb(devices, left)
    }
