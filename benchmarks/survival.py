"""What becomes of requests while one worker of a cluster is dead, and what the bundle's table says of such answers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import signal
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.chaos.oracle import Oracle
from fusion.asking.client import FusionClient
from fusion.base.program import UserError
from fusion.base.streams import say
from fusion.bench.load import Attempt, Target
from fusion.bench.measure import LATE_MS
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.local.cluster import LocalCluster
from fusion.runtime.choosing import Runtime
from fusion.security.credentials import Credentials
from paradis_tf.evaluation.live_subsets import text_form

KILLED, STOPPED = "killed", "stopped"
_SIGNALS = {KILLED: signal.SIGKILL, STOPPED: signal.SIGSTOP}
_STANDARD_ERRORS = 3
# Until all workers are well again.
_WELL_S, _LOOK_S = 60.0, 0.1


@dataclass(frozen=True)
class Survival:
    """What became of the images while a worker (None: each in turn) `was` killed or stopped.

    Attributes:
      asked: how many requests were sent.
      sets: how many answers there were, by the slices that they are of.
      right: the share of right answers, 0..1; NaN without any.
      table: what the bundle says of these slices, in the mean over the answers.
      error: the standard error of such a share.
      median_ms: of the answers, at the client.
      bad: a sentence for each request that was answered wrongly, late or not at all, and for each answer of slices
        that were not measured.
    """

    worker: int | None
    was: str
    asked: int
    sets: Mapping[tuple[int, ...], int]
    right: float
    table: float
    error: float
    median_ms: float
    bad: Sequence[str]

    @property
    def answered(self) -> int:
        return sum(self.sets.values())

    @property
    def is_as_expected(self) -> bool:
        return abs(self.right - self.table) <= _STANDARD_ERRORS * self.error


def measure(
    bundle: Bundle,
    entry: SwitchEntry,
    precision: str,
    chosen: Runtime,
    images: np.ndarray,
    labels: np.ndarray,
    deadline_ms: float,
) -> list[Survival]:
    """What becomes of the images while each worker of a switch in turn is killed and stopped.

    Args:
      bundle, entry, precision, chosen: what is served, on what runtime; the switch was verified.
      images: uint8 (N, height, width, channels).
      labels: (N,) their right classes.
      deadline_ms: the coordinator's.

    Raises `UserError` where the cluster does not come up, or a worker does not come back.
    """
    say("computing what the slices give in this process")
    oracle = Oracle(dataclasses.replace(bundle, switches=(entry,)), precision, chosen, images)
    table, options = entry.accuracies(precision), [f"--deadline_ms={deadline_ms:g}"]
    rows = []
    with LocalCluster(bundle, entry.switch, precision, chosen.name, coordinator_options=options) as cluster:
        for worker, was in itertools.product(range(len(entry.slices)), _SIGNALS):
            _wait_until_well(cluster.url)
            say(f"worker {worker} is {was}: asking for {len(images)} images")
            # Asks for an image, while all are well.
            target = Target(cluster.url, Credentials())
            cluster.signal(worker, _SIGNALS[was])
            attempts = asyncio.run(_ask(target, images))
            if was == KILLED:
                cluster.restart(worker)
            else:
                cluster.signal(worker, signal.SIGCONT)
            faults = [oracle.fault(attempt.image, attempt.outputs, attempt.parameters) for attempt in attempts]
            rows.append(judge(worker, was, attempts, faults, labels, table, deadline_ms))
    return rows


def _wait_until_well(url: str) -> None:
    """Returns when the coordinator says that all workers are there."""
    end = time.monotonic() + _WELL_S
    with FusionClient(url, Credentials()) as client:
        while True:
            ill = [device["name"] for device in client.status()["devices"] if device["state"] != "up"]
            if not ill:
                return
            if time.monotonic() > end:
                raise UserError(f"{', '.join(ill)} did not come back within {_WELL_S:g} s.")
            time.sleep(_LOOK_S)


async def _ask(target: Target, images: np.ndarray) -> list[Attempt]:
    """Asks for each image, one after the other."""
    async with target.asking(images, {}) as ask:
        return [await ask(number) for number in range(len(images))]


def judge(
    worker: int,
    was: str,
    attempts: Sequence[Attempt],
    faults: Sequence[str | None],
    labels: np.ndarray,
    table: Mapping[frozenset[int], float],
    deadline_ms: float,
) -> Survival:
    """What became of the requests.

    Args:
      worker, was: what was done to whom.
      attempts: the requests.
      faults: of each, why its answer is not what it claims to be, if it is not.
      labels: the right classes of the images.
      table: as of `SwitchEntry.accuracies`.
      deadline_ms: the coordinator's; an answer may come 50 ms later.
    """
    bad, right, sets, times = [], [], [], []
    for attempt, fault in zip(attempts, faults, strict=True):
        devices = str(attempt.parameters.get("devices")).split(",")
        live = tuple(slice_ for slice_, device in enumerate(devices) if device)
        if attempt.status != 200:
            bad.append(f"status {attempt.status}: {attempt.error[:200]}")
        elif fault is not None:
            bad.append(fault)
        elif frozenset(live) not in table:
            bad.append(f"the bundle has no accuracy of {text_form(live, len(devices))}, which its answer is of")
        else:
            if attempt.ms > deadline_ms + LATE_MS:
                bad.append(f"answered after {attempt.ms:.0f} ms")
            times.append(attempt.ms)
            (logits,) = attempt.outputs.values()
            right.append(int(np.argmax(logits)) == labels[attempt.image])
            sets.append(live)
    share = float(np.mean(right)) if right else math.nan
    expected = float(np.mean([table[frozenset(live)] for live in sets])) if sets else math.nan
    error, median_ms = _standard_error(expected, len(right)), statistics.median(times) if times else math.nan
    return Survival(worker, was, len(attempts), Counter(sets), share, expected, error, median_ms, bad)


def together(rows: Sequence[Survival], images: int) -> Survival:
    """All rows as one, in the mean over the answers; of the standard error an image that was asked for again says
    nothing new."""
    sets: Counter[tuple[int, ...]] = Counter()
    for row in rows:
        sets.update(row.sets)
    answered = [row for row in rows if row.sets]
    counts = [row.answered for row in answered]
    right, table, median_ms = (
        float(np.average([getattr(row, name) for row in answered], weights=counts)) if answered else math.nan
        for name in ("right", "table", "median_ms")
    )
    asked, bad = sum(row.asked for row in rows), [sentence for row in rows for sentence in row.bad]
    error = _standard_error(table, images) if answered else math.nan
    return Survival(None, "", asked, sets, right, table, error, median_ms, bad)


def _standard_error(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count) if count else math.nan
