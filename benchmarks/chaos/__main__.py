"""Kills, stops, restarts, slows and spoils workers of a cluster while requests come in, and judges every answer.

    python -m benchmarks.chaos --bundle=build/resnet50_224 --minutes=10 --rate=20 --deadline_ms=1000 \
        --target=benchmarks/results/chaos_resnet50_224

Exits 1 if a request was answered wrongly, late or not at all, if one was refused that could have been served, or if the
coordinator leaks. See METHODOLOGY.md.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.chaos import verdicts
from benchmarks.chaos.run import ChaosSettings, Result, run
from benchmarks.conditions import write_csv
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import LONGEST_S, UserError, define_float
from fusion.bundle import manifest
from fusion.runtime import choosing as runtime
from paradis_tf.base import program

_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_PRECISION = flags.DEFINE_string("precision", None, "One of the bundle's; by default its first.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_MINUTES = define_float("minutes", 10, "How long requests come in.", 0.3, LONGEST_S / 60)
_RATE = define_float("rate", 20, "Requests per second, whatever becomes of them.", 0.1, 10_000)
_CONNECTIONS = flags.DEFINE_integer("connections", 32, "Connections that requests come in on.", 1, 1024)
_DEADLINE_MS = define_float("deadline_ms", 1000, "The coordinator's deadline.", 1, 1e6)
_WORKERS = flags.DEFINE_integer("workers", 4, "Workers of the cluster.", 2, 64)
_EVERY_S = define_float("every_s", 3, "Seconds between events, about.", 0.1, LONGEST_S)
_SEED = flags.DEFINE_integer("seed", 0, "Draws the events and the images.", 0)
_COORDINATOR = flags.DEFINE_multi_string("coordinator", [], "One more option of the coordinator, e.g. --max_queue=8.")
_TARGET = define_path("target", None, "Writes NAME.csv, NAME_events.csv, NAME.png and NAME.svg.")

# How many bad requests are printed.
_SHOWN = 10


def main(argv: list[str]) -> int:
    if _TARGET.value and not os.path.isdir(os.path.dirname(_TARGET.value) or "."):
        raise UserError(f"--target={_TARGET.value}: its folder is not there; legal: a name in a folder that is.")
    bundle = manifest.load(_BUNDLE.value)
    precision = bundle.check_precision(_PRECISION.value)
    chosen = runtime.choose(_RUNTIME.value)
    settings = ChaosSettings(
        seed=_SEED.value,
        seconds=60 * (_MINUTES.value or 0.0),
        rate=_RATE.value or 0.0,
        connections=_CONNECTIONS.value,
        deadline_ms=_DEADLINE_MS.value or 0.0,
        workers=_WORKERS.value,
        every_s=_EVERY_S.value or 0.0,
    )
    result = run(bundle, precision, chosen, settings, _progress, _COORDINATOR.value)
    with results() as write:
        if _TARGET.value:
            write(_write, Path(_TARGET.value), result, settings, f"{bundle.name} {precision}, {chosen}")
        _show(result)
    return 0 if result.good else 1


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(result: Result) -> None:
    print(columns.render(("event", "times", "skipped", "requests that left meanwhile"), _event_rows(result)))
    print(f"\nall requests: {_counts(verdict.what for verdict in result.verdicts)}")
    print(f"switches:     {_counts(verdict.switch or 'none' for verdict in result.verdicts)}")
    times = sorted(verdict.ms for verdict in result.verdicts if verdict.what in (verdicts.ANSWERED, verdicts.DEGRADED))
    if times:
        ranks = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "most": 1.0}
        shown = ", ".join(f"{name} {times[min(len(times) - 1, int(r * len(times)))]:.0f}" for name, r in ranks.items())
        print(f"answers, ms:  {shown}")
    held = result.resources
    print(
        f"coordinator:  memory {held.memory[0] / 1e6:.1f} to {held.memory[1] / 1e6:.1f} MB, "
        f"descriptors {held.descriptors[0]} to {held.descriptors[1]}, threads {held.threads[0]} to {held.threads[1]}"
    )
    for fault in _faults(result):
        print(f"bad: {fault}")
    print("good" if result.good else "not good")


def _event_rows(result: Result) -> list[tuple[Any, ...]]:
    """A row per kind of event: how often, and the verdicts on the requests that left meanwhile."""
    rows = []
    for kind in sorted({incident.event.kind for incident in result.incidents}):
        alike = [incident for incident in result.incidents if incident.event.kind == kind]
        real = [incident for incident in alike if not incident.skipped]
        during = (
            verdict.what
            for verdict in result.verdicts
            if any(incident.began <= verdict.at <= incident.ended for incident in real)
        )
        rows.append((kind, len(real), len(alike) - len(real), _counts(during)))
    return rows


def _faults(result: Result) -> list[str]:
    """What went wrong, the first of the bad requests one by one."""
    bad = [verdict for verdict in result.verdicts if verdict.what not in verdicts.GOOD]
    faults = [f"at {verdict.at:.2f} s, {verdict.what}: {verdict.why[:200]}" for verdict in bad[:_SHOWN]]
    more = [f"{len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    return [*faults, *more, *result.resources.faults, *result.left]


def _counts(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in sorted(Counter(words).items())) or "none"


def _write(target: Path, result: Result, settings: ChaosSettings, what: str) -> None:
    from benchmarks.chaos import picture

    options = {"served": what, **{key: value for key, value in vars(settings).items()}}
    header = ("second", "requests", *verdicts.ALL, "p50_ms", "most_ms", "coordinator_bytes", "descriptors", "threads")
    write_csv(target.with_name(target.name + ".csv"), header, _seconds(result), options)
    events = [
        (round(i.began, 3), round(i.ended, 3), i.event.worker, i.event.kind, int(i.skipped)) for i in result.incidents
    ]
    write_csv(
        target.with_name(target.name + "_events.csv"), ("began_s", "ended_s", "worker", "kind", "skipped"), events
    )
    picture.draw(result, settings, what, target)


def _seconds(result: Result) -> list[tuple[Any, ...]]:
    """A row per second of the run."""
    samples = {int(sample.at): sample for sample in result.samples}
    rows: list[tuple[Any, ...]] = []
    for second, group in itertools.groupby(result.verdicts, lambda verdict: int(verdict.at)):
        left = list(group)
        times = [round(verdict.ms, 2) for verdict in left]
        counts = Counter(verdict.what for verdict in left)
        held = samples.get(second)
        rows.append(
            (
                second,
                len(left),
                *(counts[name] for name in verdicts.ALL),
                statistics.median_high(times),
                max(times),
                *(("", "", "") if held is None else (held.memory, held.descriptors, held.threads)),
            )
        )
    return rows


if __name__ == "__main__":
    program.run(main)
