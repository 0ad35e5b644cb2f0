"""Runs a switch of three slices on a cluster of emulated boards, kills one of them, and judges every answer.

    python -m export.emulated_cluster --bundle=build/digits

Two boards are 64-bit and one is 32-bit ARM; they are set up where they are not there yet. Their workers are the
bundle's own, and the coordinator runs on this machine. There are two trials: in one each board serves its own slice
alone, so that the others answer without it when it is gone, in the other any serves any, so that they do its work. Each
asks for the bundle's samples, and kills one board while requests run. Exits 1 if an answer is not, to the bit, the sum
of what the slices that it claims give on the boards that it claims, outside of the cluster; if an int8 answer to a
sample is not the one that the bundle expects of ARM; if a request gets no answer but for its deadline, or all do after
the kill; or if an answer lacks what the boards that are left can give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from export.emulation.cluster import KILLED, Trial, run_trial
from export.emulation.installation import DEFAULT_CACHE, set_up
from export.proof import engines, trials
from export.proof.engines import Engine
from fusion.base import columns, program
from fusion.base.files import check_json_target, results, write_json
from fusion.base.paths import define_path
from fusion.base.streams import say
from fusion.bench.load import Attempt
from fusion.bundle import manifest
from fusion.bundle.contents import SwitchEntry

_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_PRECISION = flags.DEFINE_string("precision", None, "One of the bundle's; by default its first.")
_CACHE = define_path("cache", DEFAULT_CACHE, "The folder that boards are set up in.")
_MIRROR = flags.DEFINE_string("mirror", "", "URI of a Debian mirror; by default that of the host's apt sources.")
_JSON = define_path("json", None, "Also writes every request and its answer to this file.")

# How many faults of answers are printed.
_SHOWN = 10


def main(arguments: list[str]) -> int:
    check_json_target(_JSON.value)
    bundle = manifest.load(_BUNDLE.value)
    precision = bundle.check_precision(_PRECISION.value)
    entry = trials.find_switch(bundle)
    images, _ = bundle.read_samples()
    # Floats are rounded elsewhere on each processor.
    expected = trials.expected_answers(bundle, entry) if precision == "int8" else None
    boards = {board.name: board for board in set_up(sorted(set(trials.BOARDS)), _CACHE.value, _MIRROR.value, say)}
    say(f"computing on {' and '.join(boards)} what the slices give")
    offline = engines.run_all(
        bundle, [Engine(engines.REFERENCE.runtime, board=board) for board in boards.values()], images, say
    )
    by_board = dict(zip(boards, offline, strict=True))
    made, found = [], []
    for own_slices in (True, False):
        cluster = [boards[name] for name in trials.BOARDS]
        trial = run_trial(bundle, entry.switch, precision, cluster, own_slices, images, say)
        claims = trials.make_claims(bundle, precision, images, trial.boards, by_board)
        made.append(trial)
        found.append(trials.faults(trial, claims, expected))
    with results() as write:
        if _JSON.value:
            content = {
                "model_id": bundle.model_id,
                "switch": entry.switch,
                "precision": precision,
                "trials": [_content(trial, faults) for trial, faults in zip(made, found, strict=True)],
            }
            write(write_json, _JSON.value, content)
        for trial, faults in zip(made, found, strict=True):
            _show(trial, entry, expected)
            for fault in faults[:_SHOWN]:
                print(f"fault: {fault}")
    count = sum(map(len, found))
    requests = sum(len(trial.attempts) for trial in made)
    print(f"\n{columns.counted(count, 'fault') if count else f'passed: {requests} requests'}")
    return 1 if count else 0


def _show(trial: Trial, entry: SwitchEntry, expected: np.ndarray | None) -> None:
    answered = [attempt for attempt in trial.attempts if attempt.status == 200]
    degraded = sum(attempt.parameters.get("degraded") is True for attempt in answered)
    late = sum(attempt.status == 504 for attempt in trial.attempts)
    as_expected = ""
    if expected is not None:
        equal = sum(trials.equals(attempt, expected[attempt.image]) for attempt in trial.calm if attempt.status == 200)
        as_expected = f", to the bit as the bundle expects: {equal}"
    served = "its own slice" if trial.own_slices else "any slice"
    print(
        f"\nswitch    {entry.switch} on {', '.join(f'{device} ({name})' for device, name in trial.boards.items())}, "
        f"each serves {served}\n"
        f"samples   {len(trial.calm)}, answered by all boards together: {len(trial.shared)}{as_expected}\n"
        f"kill      of {KILLED}, requests under way: {len(trial.under_way)}, sent later: {len(trial.after)}\n"
        f"requests  {len(trial.attempts)}, answered: {len(answered)}, with slices missing: {degraded}, "
        f"refused at the deadline: {late}, lost: {len(trial.attempts) - len(answered) - late}"
    )


def _content(trial: Trial, faults: Sequence[str]) -> dict[str, Any]:
    """A trial for JSON."""
    return {
        "own_slices": trial.own_slices,
        "boards": trial.boards,
        "killed": KILLED,
        "requests": [_row(attempt, trial) for attempt in trial.attempts],
        "faults": faults,
    }


def _row(attempt: Attempt, trial: Trial) -> dict[str, Any]:
    """A request for JSON; an image as an answer is left out."""
    kept = {key: attempt.parameters.get(key) for key in ("switch", "devices", "missing", "degraded")}
    (output,) = attempt.outputs.values() or (None,)
    logits = output.tolist() if output is not None and output.ndim == 1 else None
    sent = attempt.started - trial.killed_at
    return {
        "image": attempt.image,
        "sent_s": sent,
        "ms": attempt.ms,
        "status": attempt.status,
        **kept,
        "logits": logits,
    }


if __name__ == "__main__":
    program.run(main)
