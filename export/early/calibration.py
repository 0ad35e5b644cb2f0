"""When some slices of a switch may answer without the others: calibration and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from fusion.base.program import UserError
from fusion.rules.early import margins as leads_of
from fusion.rules.sum import Sum
from paradis_tf.evaluation.live_subsets import live_subsets

Arrived = frozenset[int]
# What a needed margin is raised by, as a fraction of the largest lead: leads of quantized outputs come in steps, so
# many images share the one that just does not answer, and rounding in another order of addition must not let them pass.
_RAISED = 1e-4


@dataclass(frozen=True)
class Outcomes:
    """What sums of the slices of a switch make of n images.

    Attributes:
      devices: how many slices the switch has.
      full: bool (n,), whether the sum of all slices is right.
      right: by set of arrived slices, bool (n,), whether their sum is; the sets are those of `live_subsets` but all.
      lead: by set, float (n,), how far the leading class is ahead of the second.
    """

    devices: int
    full: np.ndarray
    right: Mapping[Arrived, np.ndarray]
    lead: Mapping[Arrived, np.ndarray]

    def lost(self, arrived: Arrived) -> np.ndarray:
        """Bool (n,): the images that all slices are right about and these are not."""
        return self.full & ~self.right[arrived]


def measure(partial_logits: Sequence[np.ndarray], labels: np.ndarray) -> Outcomes:
    """The outcomes of dequantized partial logits, float64 (n, classes) for each slice, with the right classes (n,).

    Raises:
      UserError: a logit is NaN or infinite.
    """
    devices = len(partial_logits)
    for device, logits in enumerate(partial_logits):
        if not np.isfinite(logits).all():
            raise UserError(f"slice {device} of a switch of {devices} gives NaN or infinity; legal: finite logits.")
    right, lead = {}, {}
    for live in live_subsets(devices):
        summed = Sum().fuse([partial_logits[device] for device in live])
        right[frozenset(live)] = summed.argmax(axis=1) == labels
        lead[frozenset(live)] = leads_of(summed)
    full = right.pop(frozenset(range(devices)))
    del lead[frozenset(range(devices))]
    return Outcomes(devices, full, right, lead)


def orders(outcomes: Outcomes) -> Iterator[tuple[Arrived, ...]]:
    """For each order that slices can arrive in, the sets of arrived slices that outcomes have, the smallest first."""
    everyone = frozenset(range(outcomes.devices))
    waited_for = outcomes.devices - min(map(len, outcomes.right), default=outcomes.devices)
    for last in permutations(range(outcomes.devices), waited_for):
        yield tuple(everyone - set(last[arrived:]) for arrived in range(waited_for))


def calibrate(outcomes: Outcomes, max_drop: float) -> dict[Arrived, float]:
    """By set of arrived slices, the least margins with which early answers lose no more than `max_drop`, 0..1.

    An image counts as lost if all slices are right about it and the early answer is not; what early answers win is not
    set against it. Every set may lose equally many images, as many as keep all that an order of arrival can lose within
    the drop. So that holds of the images that were calibrated on whatever the order, also if it is another for each
    image, and however they are batched, as a batch waits for sets at which each of its images would be answered.
    """
    most = math.floor(max_drop * len(outcomes.full) + 1e-9)
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if most_lost(outcomes, margins_losing(outcomes, middle)) <= most:
            low = middle
        else:
            high = middle - 1
    return margins_losing(outcomes, low)


def margins_losing(outcomes: Outcomes, images: int) -> dict[Arrived, float]:
    """By set of arrived slices, about the least margin of 0 or more that is exceeded on so many lost images at most."""
    margins = {}
    for arrived, lead in outcomes.lead.items():
        lost = np.sort(lead[outcomes.lost(arrived)])[::-1]
        margins[arrived] = float(lost[images] + _RAISED * lead.max()) if images < len(lost) else 0.0
    return margins


def most_lost(outcomes: Outcomes, margins: Mapping[Arrived, float]) -> int:
    """How many images at most are lost by an order of arrival, whenever on its way they are answered."""
    lost = {arrived: outcomes.lost(arrived) & (outcomes.lead[arrived] > margin) for arrived, margin in margins.items()}
    most = 0
    for order in orders(outcomes):
        lost_by_order = [lost[arrived] for arrived in order if arrived in lost]
        most = max(most, int(np.logical_or.reduce(lost_by_order).sum()) if lost_by_order else 0)
    return most


@dataclass(frozen=True)
class EarlyResult:
    """What early answers of a switch come to on a part, over all orders of arrival.

    Attributes:
      accuracy: with all slices, 0..1.
      mean_accuracy, least_accuracy: with early answers, over all orders and in the worst.
      mean_share, least_share: the fraction of images that are answered before the last slice.
      mean_waited: how many slices an answer waits for.
    """

    accuracy: float
    mean_accuracy: float
    least_accuracy: float
    mean_share: float
    least_share: float
    mean_waited: float


def evaluate(outcomes: Outcomes, margins: Mapping[Arrived, float]) -> EarlyResult:
    """What early answers at these margins come to, one image at a time."""
    accuracies, shares, waited = [], [], []
    for order in orders(outcomes):
        right, waits = outcomes.full.copy(), np.full(len(outcomes.full), outcomes.devices)
        # The first set that answers decides, so the later ones are written first.
        for arrived in reversed(order):
            answered = outcomes.lead[arrived] > margins.get(arrived, math.inf)
            right[answered], waits[answered] = outcomes.right[arrived][answered], len(arrived)
        accuracies.append(right.mean())
        shares.append((waits < outcomes.devices).mean())
        waited.append(waits.mean())
    return EarlyResult(
        accuracy=float(outcomes.full.mean()),
        mean_accuracy=float(np.mean(accuracies)),
        least_accuracy=float(np.min(accuracies)),
        mean_share=float(np.mean(shares)),
        least_share=float(np.min(shares)),
        mean_waited=float(np.mean(waited)),
    )
