"""What early answers gain in latency and cost in accuracy, for given latencies of the slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.early.calibration import Arrived, Outcomes, allowing

FULL, BOUND, CALIBRATED, CONFIDENCE = "full", "bound", "calibrated", "confidence"
# Requests that a curve is simulated with, at least, and how many thresholds it is drawn of.
_REQUESTS, _THRESHOLDS = 100_000, 40


@dataclass(frozen=True)
class Latencies:
    """How long the slices of a switch take until their outputs arrive.

    Attributes:
      slice_ms: of each slice, in slice order.
      probability: of each slice and request, independently, 0..1, that it is late ...
      factor: ... and takes so many times as long, 1 or more.
    """

    slice_ms: tuple[float, ...]
    probability: float = 0.0
    factor: float = 1.0

    def draw(self, requests: int, rng: np.random.Generator) -> np.ndarray:
        """Latencies in ms, float64 (requests, slices)."""
        late = rng.random((requests, len(self.slice_ms))) < self.probability
        return np.array(self.slice_ms) * np.where(late, self.factor, 1.0)


@dataclass(frozen=True)
class Point:
    """What a rule of answering comes to.

    Attributes:
      answers: `full` (all slices), `bound`, `calibrated` (the margins of the calibration), or `confidence`, one of the
        curve's margins.
      allowed: what the margins may lose of the images they were found on, 0..1; None of `full` and `bound`.
      accuracy: 0..1. share: the part of answers that are early.
      mean_ms, p95_ms: the latency, on average and what 95 % of the requests stay within.
    """

    answers: str
    allowed: float | None
    accuracy: float
    share: float
    mean_ms: float
    p95_ms: float


def curve(
    calibration: Outcomes,
    test: Outcomes,
    bound: Mapping[Arrived, float],
    calibrated: Mapping[Arrived, float],
    max_drop: float,
    latencies: Latencies,
) -> list[Point]:
    """The points of one switch, measured on `test`.

    Args:
      calibration: the outcomes that margins are found on.
      test: those of other images.
      bound, calibrated: by set of arrived slices, what its leading class has to be ahead by more than.
      max_drop: what `calibrated` was made with, 0..1.
      latencies: of the switch's slices.

    All points are of the same simulated requests, each of the next test image; the seed is fixed. Of `confidence` the
    number of images that each set of slices may lose grows from none to all, in steps of equal ratios.
    """
    images = len(test.full)
    requests = _Requests(test, latencies.draw(images * math.ceil(_REQUESTS / images), np.random.default_rng(0)))
    points = [
        requests.answer(FULL, None, {}),
        requests.answer(BOUND, None, bound),
        requests.answer(CALIBRATED, max_drop, calibrated),
    ]
    every = len(calibration.full)
    for allowed in np.unique(np.append(np.geomspace(1, every, _THRESHOLDS).round().astype(int), 0)):
        points.append(requests.answer(CONFIDENCE, int(allowed) / every, allowing(calibration, int(allowed))))
    return points


class _Requests:
    """Requests for the images of a part, one after the other, whose slices arrive after `ms`, (requests, slices)."""

    def __init__(self, found: Outcomes, ms: np.ndarray) -> None:
        self._found = found
        self._image = np.arange(len(ms)) % len(found.full)
        order = np.argsort(ms, axis=1, kind="stable")
        self._times = np.take_along_axis(ms, order, axis=1)
        self._sets = list(found.lead)
        self._place = {sum(1 << device for device in arrived): row for row, arrived in enumerate(self._sets)}
        # After each arrival but the last, the row of the set that has arrived, -1 where outcomes have none. Nobody
        # answers between two that come at the same time.
        alone = np.diff(self._times, axis=1).T > 0
        masks = np.cumsum(1 << order, axis=1).T[:-1]
        self._arrived = [np.where(one, self._rows(mask), -1) for one, mask in zip(alone, masks, strict=True)]

    def _rows(self, masks: np.ndarray) -> np.ndarray:
        different, which = np.unique(masks, return_inverse=True)
        return np.array([self._place.get(int(mask), -1) for mask in different])[which]

    def answer(self, answers: str, allowed: float | None, needed: Mapping[Arrived, float]) -> Point:
        """What comes of answering as soon as the leading class is ahead by more than is needed."""
        found, image = self._found, self._image
        right, took, early = found.full[image].copy(), self._times[:, -1].copy(), np.zeros(len(image), bool)
        # The first set that answers decides, so the later ones are written first.
        for stage in reversed(range(len(self._arrived))):
            rows = self._arrived[stage]
            for row, arrived in enumerate(self._sets):
                if arrived not in needed:
                    continue
                asked = np.flatnonzero(rows == row)
                asked = asked[found.lead[arrived][image[asked]] > needed[arrived]]
                right[asked] = found.right[arrived][image[asked]]
                took[asked], early[asked] = self._times[asked, stage], True
        return Point(
            answers,
            allowed,
            accuracy=float(right.mean()),
            share=float(early.mean()),
            mean_ms=float(took.mean()),
            p95_ms=float(np.percentile(took, 95, method="inverted_cdf")),
        )


def rows(switch: str, precision: str, latencies: Latencies, images: int, points: Sequence[Point]) -> list[dict]:
    """The rows of a CSV: conditions, then figures; accuracy, share and drop in per cent."""
    return [
        {
            "switch": switch,
            "precision": precision,
            "images": images,
            "slice_ms": " ".join(f"{ms:.4g}" for ms in latencies.slice_ms),
            "late_probability": latencies.probability,
            "late_factor": latencies.factor,
            "answers": point.answers,
            "allowed_drop": "" if point.allowed is None else f"{100 * point.allowed:.2f}",
            "accuracy": f"{100 * point.accuracy:.2f}",
            "early": f"{100 * point.share:.2f}",
            "mean_ms": f"{point.mean_ms:.4g}",
            "p95_ms": f"{point.p95_ms:.4g}",
        }
        for point in points
    ]
