"""Runs a switch of three slices on a cluster of emulated boards, kills one of them, and judges every answer.

    python -m export.emulated_cluster --bundle=build/digits

Two boards are 64-bit and one is 32-bit ARM; they are set up where they are not there yet. Their workers are the
bundle's own, and the coordinator runs on this machine. First each sample is asked for until all three have had a part
in its answer, then one board is killed while requests run. Exits 1 if an answer is not, to the bit, the sum of what the
slices that it claims give on the boards that it claims, outside of the cluster; if an int8 answer to a sample is not
the one that the bundle expects of ARM; or if a request gets no answer but for its deadline.
"""

from __future__ import annotations

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
    expected = trials.expected_answers(bundle, entry, precision)
    boards = {board.name: board for board in set_up(sorted(set(trials.BOARDS)), _CACHE.value, _MIRROR.value, say)}
    say(f"computing on {' and '.join(boards)} what the slices give")
    offline = engines.run_all(
        bundle, [Engine(engines.REFERENCE.runtime, board=board) for board in boards.values()], images, say
    )
    trial = run_trial(bundle, entry.switch, precision, [boards[name] for name in trials.BOARDS], images, say)
    claims = trials.make_claims(bundle, precision, images, trial.boards, dict(zip(boards, offline, strict=True)))
    found = trials.faults(trial, claims, expected if precision == "int8" else None)
    with results() as write:
        if _JSON.value:
            content = {
                "model_id": bundle.model_id,
                "switch": entry.switch,
                "precision": precision,
                "boards": trial.boards,
                "killed": KILLED,
                "requests": [_row(attempt, trial) for attempt in trial.attempts],
                "faults": found,
            }
            write(write_json, _JSON.value, content)
        _show(trial, entry, expected)
        for fault in found[:_SHOWN]:
            print(f"fault: {fault}")
    print(columns.counted(len(found), "fault") if found else f"passed: {len(trial.attempts)} requests")
    return 1 if found else 0


def _show(trial: Trial, entry: SwitchEntry, expected: np.ndarray) -> None:
    equal = sum(trials.equals(attempt, expected[attempt.image]) for attempt in trial.shared)
    answered = [attempt for attempt in trial.attempts if attempt.status == 200]
    degraded = sum(attempt.parameters.get("degraded") is True for attempt in answered)
    late = sum(attempt.status == 504 for attempt in trial.attempts)
    print(f"\nswitch    {entry.switch} on {', '.join(f'{device} ({name})' for device, name in trial.boards.items())}")
    print(f"samples   {len(trial.shared)} answers by all boards, {equal} to the bit what the bundle expects")
    print(f"kill      of {KILLED}, {len(trial.under_way)} requests under way, {len(trial.after)} sent later")
    print(
        f"requests  {len(trial.attempts)}: {len(answered)} answered, {degraded} of them with slices missing; "
        f"{late} refused at the deadline, {len(trial.attempts) - len(answered) - late} lost"
    )


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
