"""When some slices of a switch may answer without the others: found on one part of a dataset, measured on another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from fusion.base.program import UserError
from fusion.rules import sum as fuse
from fusion.rules.early import margins
from paradis_tf.evaluation.live_subsets import live_subsets

Arrived = frozenset[int]
# What a needed margin is raised by, as a part of the largest one: leads of quantized outputs come in steps, so many
# images share the one that just does not answer, and rounding in another order of addition must not let them pass.
_RAISED = 1e-4


@dataclass(frozen=True)
class Outcomes:
    """What sums of the slices of a switch make of n images.

    Attributes:
      devices: how many slices the switch has.
      full: bool (n,), whether the sum of all is right.
      right: by set of arrived slices, bool (n,), whether their sum is; the sets are those of `live_subsets`.
      lead: by set, float (n,), how far the leading class is ahead of the second.
    """

    devices: int
    full: np.ndarray
    right: Mapping[Arrived, np.ndarray]
    lead: Mapping[Arrived, np.ndarray]

    def lost(self, arrived: Arrived) -> np.ndarray:
        """Bool (n,): the images that all slices are right about and these are not."""
        return self.full & ~self.right[arrived]


def outcomes(partial: Sequence[np.ndarray], labels: np.ndarray) -> Outcomes:
    """The outcomes of dequantized partial logits, float64 (n, classes) for each slice, with the right classes (n,).

    Raises:
      UserError: a logit is NaN or infinite.
    """
    devices = len(partial)
    for device, one in enumerate(partial):
        if not np.isfinite(one).all():
            raise UserError(f"slice {device} of a switch of {devices} gives NaN or infinity; legal: finite logits.")
    right, lead = {}, {}
    for live in live_subsets(devices):
        summed = fuse.fuse([partial[device] for device in live])
        right[frozenset(live)] = summed.argmax(axis=1) == labels
        lead[frozenset(live)] = margins(summed)
    full = right.pop(frozenset(range(devices)))
    del lead[frozenset(range(devices))]
    return Outcomes(devices, full, right, lead)


def orders(found: Outcomes) -> Iterator[tuple[Arrived, ...]]:
    """For each order that slices can arrive in, the sets of arrived slices that outcomes have, the smallest first."""
    everyone = frozenset(range(found.devices))
    waited_for = found.devices - min(map(len, found.right), default=found.devices)
    for last in permutations(range(found.devices), waited_for):
        yield tuple(everyone - set(last[arrived:]) for arrived in range(waited_for))


def calibrate(found: Outcomes, max_drop: float) -> dict[Arrived, float]:
    """By set of arrived slices, the least margins with which early answers lose no more than `max_drop`, 0..1.

    An image counts as lost if all slices are right about it and the early answer is not; what early answers win is not
    set against it. Every set may lose equally many images, as many as keep all that an order of arrival can lose within
    the drop. So that holds of the images that this is found on whatever the order, also if it is another for each
    image, and however they are batched, as a batch waits for sets at which each of its images would be answered.
    """
    most = math.floor(max_drop * len(found.full) + 1e-9)
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if most_lost(found, allowing(found, middle)) <= most:
            low = middle
        else:
            high = middle - 1
    return allowing(found, low)


def allowing(found: Outcomes, images: int) -> dict[Arrived, float]:
    """By set of arrived slices, about the least margin of 0 or more that is exceeded on so many lost images at most."""
    needed = {}
    for arrived, lead in found.lead.items():
        lost = np.sort(lead[found.lost(arrived)])[::-1]
        needed[arrived] = float(lost[images] + _RAISED * lead.max()) if images < len(lost) else 0.0
    return needed


def most_lost(found: Outcomes, needed: Mapping[Arrived, float]) -> int:
    """How many images at most are lost by an order of arrival, whenever on its way they are answered."""
    lost = {arrived: found.lost(arrived) & (found.lead[arrived] > margin) for arrived, margin in needed.items()}
    most = 0
    for order in orders(found):
        of_order = [lost[arrived] for arrived in order if arrived in lost]
        most = max(most, int(np.logical_or.reduce(of_order).sum()) if of_order else 0)
    return most


@dataclass(frozen=True)
class Early:
    """What early answers of a switch come to on a part, over all orders of arrival.

    Attributes:
      accuracy: with all slices, 0..1.
      mean_accuracy, least_accuracy: with early answers, of all orders and of the worst.
      mean_share, least_share: the part of images that are answered before the last slice.
      mean_waited: how many slices an answer waits for.
    """

    accuracy: float
    mean_accuracy: float
    least_accuracy: float
    mean_share: float
    least_share: float
    mean_waited: float


def evaluate(found: Outcomes, needed: Mapping[Arrived, float]) -> Early:
    """What early answers at these margins come to, one image at a time."""
    accuracies, shares, waited = [], [], []
    for order in orders(found):
        right, waits = found.full.copy(), np.full(len(found.full), found.devices)
        # The first set that answers decides, so the later ones are written first.
        for arrived in reversed(order):
            answered = found.lead[arrived] > needed.get(arrived, math.inf)
            right[answered], waits[answered] = found.right[arrived][answered], len(arrived)
        accuracies.append(right.mean())
        shares.append((waits < found.devices).mean())
        waited.append(waits.mean())
    return Early(
        accuracy=float(found.full.mean()),
        mean_accuracy=float(np.mean(accuracies)),
        least_accuracy=float(np.min(accuracies)),
        mean_share=float(np.mean(shares)),
        least_share=float(np.min(shares)),
        mean_waited=float(np.mean(waited)),
    )
