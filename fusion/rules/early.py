"""Whether the sum of the slices that have arrived is the answer already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..base.program import UserError
from ..bundle.contents import Bundle, SwitchEntry
from .sum import Sum

IsSettled = Callable[[SwitchEntry, Mapping[int, np.ndarray]], bool]
"""Whether the contributions, (N, ...), of some slices of a switch, by number, decide the answer."""
MODES = ("off", "bound", "confidence")
# What float32 rounding may add to or take from the difference of two fused logits, as a share of the largest one: the
# sums themselves are rounded by at most 2^-24 each, and so is the answer.
_ROUNDING = 2.0**-21


class EarlyAnswer:
    """Decides whether the sum of some slices of a switch may be the answer already.

    Args:
      bundle: the bundle, of a classifier unless the mode is `off`.
      entry: one of its switches.
      precision: which of its files run.
      mode: `off`: only the sum of all slices is the answer. `bound`: also one whose leading class no output of the
        missing slices can overtake, a proof from the range of their int8 or uint8 outputs; a float32 output has no
        range, and one that was measured on data proves nothing, so with such a slice nothing is ever settled early.
        `confidence`: also one whose leading class is ahead by more than `export.calibrate` found to be needed for that
        set of slices, which is true of most images like those it was calibrated on, and proves nothing of any one.

    Raises `UserError` on an unknown mode or precision, on a bundle of another task, and for `confidence` on a switch of
    several slices that is not calibrated at that precision.
    """

    def __init__(self, bundle: Bundle, entry: SwitchEntry, precision: str, mode: str) -> None:
        if mode not in MODES:
            raise UserError(f"the mode of early answers is {mode!r}; legal: {', '.join(MODES)}.")
        bundle.check_precision(precision)
        if mode != "off":
            require_classifier(bundle)
        self._mode = mode
        self._all = frozenset(range(len(entry.slices)))
        self._ranges = [Sum().bounds(slice_.files[precision].output) for slice_ in entry.slices]
        self._calibrated = {}
        if mode == "confidence" and len(entry.slices) > 1:
            if precision not in entry.early:
                raise UserError(
                    f"switch '{entry.switch}' of bundle {str(bundle.folder)!r} has no calibrated early answers for "
                    f"{precision}; legal: one that export.calibrate has been run on, or the modes off and bound."
                )
            self._calibrated = dict(entry.early[precision])
        self._needed: dict[frozenset[int], float] = {}

    def settled(self, partial_sum: np.ndarray, arrived: frozenset[int]) -> bool:
        """Whether all images of a batch may be answered with the sum of the slices that have arrived.

        Args:
          partial_sum: float (N, K), N of 1 or more: the dequantized logits of the arrived slices, added.
          arrived: the slices that it is the sum of, from 0.

        An image whose two leading classes are equal, or that has NaN or infinity in the lead, is not settled before
        all slices have arrived. Thread-safe.
        """
        if arrived == self._all:
            return True
        if arrived not in self._needed:
            self._needed[arrived] = self.needed_margin(arrived)
        needed = self._needed[arrived]
        if needed == np.inf:
            return False
        # Of each image at least the leading class is within reach of itself, unless it is NaN.
        leading = partial_sum.max(axis=-1, keepdims=True)
        within_reach = np.count_nonzero(partial_sum >= leading - needed)
        return within_reach == len(partial_sum) and bool(np.isfinite(leading).all())

    def needed_margin(self, arrived: frozenset[int]) -> float:
        """What the leading class has to be ahead by more than; infinity where nothing is settled.

        Raises ValueError if `arrived` names a slice that the switch does not have.
        """
        if not arrived <= self._all:
            raise ValueError(f"slices {sorted(arrived)} of a switch of {len(self._all)}")
        if self._mode == "off" or not arrived:
            return float("inf")
        return min(self._bound(arrived), self._calibrated.get(arrived, float("inf")))

    def _bound(self, arrived: frozenset[int]) -> float:
        known = [range_ for range_ in self._ranges if range_ is not None]
        if len(known) < len(self._ranges):
            return float("inf")
        # The worst case: each missing slice gives the leader its least and another class its largest output.
        missing = sum(known[device][1] - known[device][0] for device in self._all - arrived)
        return missing + _ROUNDING * sum(max(abs(low), abs(high)) for low, high in known)


def of_bundle(bundle: Bundle, entries: Sequence[SwitchEntry], precision: str, mode: str) -> IsSettled | None:
    """`EarlyAnswer.settled` of any of some switches; None for the mode `off`. Raises `UserError` as `EarlyAnswer`."""
    if mode == "off":
        return None
    answers = {entry.switch: EarlyAnswer(bundle, entry, precision, mode) for entry in entries}

    def is_settled(entry: SwitchEntry, contributions: Mapping[int, np.ndarray]) -> bool:
        partial_sum = Sum().fuse([contributions[number] for number in sorted(contributions)])
        return answers[entry.switch].settled(partial_sum, frozenset(contributions))

    return is_settled


def margins(sums: np.ndarray) -> np.ndarray:
    """How far the leading class of each image is ahead of the second, (N,), of finite sums (N, K): 0 if they are equal,
    infinity if K is 1."""
    if sums.shape[-1] < 2:
        return np.full(sums.shape[:-1], np.inf)
    first_two = np.partition(sums, -2, axis=-1)[..., -2:]
    lead: np.ndarray = first_two[..., 1] - first_two[..., 0]
    return lead


def require_classifier(bundle: Bundle) -> None:
    """Raises `UserError` for a bundle whose answers are no classes."""
    if not bundle.task.has_classes:
        raise UserError(
            f"bundle {str(bundle.folder)!r} is of {bundle.task.name}, where every slice changes the answer; legal for "
            "early answers: a bundle of a classifier."
        )
