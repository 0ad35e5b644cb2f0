"""Which devices of a switch may answer while others are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

ALL_SUBSETS_UP_TO = 6
_MISSING_BEYOND = 2


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
