"""How right a cluster is of which one worker is always dead: the accuracy of its answers beside the bundle's table.

    python -m benchmarks.survivors --workdir=runs/digits --bundle=build/digits --csv=build/survivors.csv

Each worker serves one slice of one switch, so without it no other plan is possible, whatever the deadline. One after
the other is killed, and stopped so that it takes requests and never answers; each time the test images are asked for.
Exits 1 if a request was answered wrongly, late or not at all, if `export.verify` has not measured the slices that an
answer is of, or if the answers are more than three standard errors from what it has. See METHODOLOGY.md.
"""

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
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.chaos.oracle import Oracle
from benchmarks.conditions import write_csv
from fusion.asking.client import FusionClient
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import UserError, define_float
from fusion.base.streams import say
from fusion.bench.load import Attempt, Target
from fusion.bench.measure import LATE_MS
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.local.cluster import LocalCluster
from fusion.runtime import choosing as runtime
from fusion.runtime.choosing import Runtime
from fusion.security.credentials import Credentials
from paradis_tf.base import program
from paradis_tf.evaluation.live_subsets import text_form
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "The run folder that the bundle was cut from, whose test images are asked for.")
_BUNDLE = define_path("bundle", None, "The bundle's folder, verified.", required=True)
_SWITCH = flags.DEFINE_string("switch", "4x0.25", "The one switch that runs.")
_PRECISION = flags.DEFINE_string("precision", None, "One of the bundle's; by default its first.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_DEADLINE_MS = define_float("deadline_ms", 300, "The coordinator's deadline.", 1, 1e6)
_LIMIT = flags.DEFINE_integer("limit", 1000, "At most so many test images.", 1)
_DATA_DIR = define_path("data_dir", None, "Folder of the dataset, as for training.")
_CSV = define_path("csv", "", "File to write the table to.")
flags.mark_flag_as_required("workdir")

KILLED, STOPPED = "killed", "stopped"
_SIGNALS = {KILLED: signal.SIGKILL, STOPPED: signal.SIGSTOP}
_STANDARD_ERRORS = 3
# Until all workers are well again.
_WELL_S, _LOOK_S = 60.0, 0.1

_HEADER = (
    *("worker", "was", "images", "answered", "bad", "answers of"),
    *("right (%)", "table (%)", "apart", "std. error", "p50 (ms)"),
)


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


def main(argv: list[str]) -> int:
    bundle = manifest.load(_BUNDLE.value)
    precision = bundle.check_precision(_PRECISION.value)
    entry = bundle.find_switch(_SWITCH.value)
    if not bundle.task.has_classes or not entry.accuracies(precision) or len(entry.slices) < 2:
        raise UserError(
            f"switch {entry.switch!r} of bundle {str(bundle.folder)!r} has nothing to lose; legal: a classifier's "
            "switch of several slices, measured by export.verify."
        )
    chosen = runtime.choose(_RUNTIME.value)
    images, labels = _test_images()
    rows = measure(bundle, entry, precision, chosen, images, labels, _DEADLINE_MS.value or 0.0)
    rows.append(together(rows, len(images)))
    with results() as write:
        if _CSV.value:
            said = {"served": f"{bundle.name} {precision}, {chosen}", "switch": entry.switch}
            write(write_csv, Path(_CSV.value), _HEADER, [_row(row, entry) for row in rows], said)
        print(columns.render(_HEADER, [_row(row, entry) for row in rows], left=(0, 1, 5)))
        for row in rows[:-1]:
            for sentence in row.bad[:3]:
                print(f"bad: worker {row.worker} {row.was}: {sentence}")
        print("good" if _is_good(rows) else "not good")
    return 0 if _is_good(rows) else 1


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


def _test_images() -> tuple[np.ndarray, np.ndarray]:
    workdir = Workdir.open(_WORKDIR.value)
    with program.loading():
        from paradis_tf.data import datasets
    config = workdir.config()
    test = datasets.load(**config["dataset"], data_dir=_DATA_DIR.value, seed=config["seed"]).test
    return test.images[: _LIMIT.value], test.labels[: _LIMIT.value]


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


def _is_good(rows: Sequence[Survival]) -> bool:
    return all(row.is_as_expected and not row.bad for row in rows)


def _row(row: Survival, entry: SwitchEntry) -> tuple[object, ...]:
    of = "; ".join(f"{text_form(live, len(entry.slices))}: {count}" for live, count in sorted(row.sets.items()))
    percents = (row.right, row.table, row.right - row.table, row.error)
    worker = "each" if row.worker is None else row.worker
    shown = (*(f"{100 * value:.2f}" for value in percents), f"{row.median_ms:.1f}")
    return worker, row.was, row.asked, row.answered, len(row.bad), of, *shown


if __name__ == "__main__":
    program.run(main)
