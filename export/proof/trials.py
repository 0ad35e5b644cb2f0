"""Whether a cluster of emulated boards has answered rightly while one of them was killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from export.emulation.cluster import KILLED, Trial, devices_of
from export.proof import engines
from export.proof.claims import Claims
from export.proof.engines import EngineOutputs
from fusion.base.program import UserError
from fusion.bench.load import Attempt
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.rules import answers
from fusion.rules.sum import Sum

BOARDS = ("aarch64", "aarch64", "armhf")
"""The boards of the cluster, in the order of its devices."""


def find_switch(bundle: Bundle) -> SwitchEntry:
    """The first switch with a slice for each board.

    Raises:
      UserError: there is none.
    """
    for entry in bundle.switches:
        if len(entry.slices) == len(BOARDS):
            return entry
    have = ", ".join(entry.switch for entry in bundle.switches)
    raise UserError(f"bundle {str(bundle.folder)!r} has the switches {have}; legal: one of {len(BOARDS)} slices.")


def make_claims(
    bundle: Bundle, precision: str, images: np.ndarray, boards: Mapping[str, str], offline: Mapping[str, EngineOutputs]
) -> Claims:
    """The judge of a cluster of boards.

    Args:
      bundle, precision, images: what is asked for.
      boards: by device, the name of its board.
      offline: by that name, what the slices give there.
    """
    outputs = {slice_.model: slice_.files[precision].output for entry in bundle.switches for slice_ in entry.slices}

    def contributions(device: str, model: str) -> np.ndarray | None:
        if device not in boards:
            return None
        return Sum().contribution(outputs[model], offline[boards[device]].stored[f"{model}/{precision}"])

    return Claims(bundle, images, answers.of(bundle, engines.REFERENCE.runtime, 1), contributions)


def expected_answers(bundle: Bundle, entry: SwitchEntry) -> np.ndarray:
    """The answers of a switch's int8 files to the samples that a bundle expects of ARM."""
    images, stored = bundle.read_samples()
    contributions = [
        Sum().contribution(slice_.files["int8"].output, stored[f"{slice_.model}/int8/arm"]) for slice_ in entry.slices
    ]
    return answers.of(bundle, engines.REFERENCE.runtime, 1)(images, contributions)[0]


def faults(trial: Trial, claims: Claims, expected: np.ndarray | None) -> list[str]:
    """What went wrong in a trial; `expected` are the answers that its images have to get while all boards are there."""
    found = []
    for number, attempt in enumerate(trial.attempts):
        where = f"request {number}, image {attempt.image}"
        if attempt.status == 200:
            fault = claims.fault(attempt.image, attempt.outputs, attempt.parameters)
            found += [f"{where}: {fault}"] if fault else []
        # That the time was over is the one answer that is none.
        elif attempt.status != 504:
            found.append(f"{where}: status {attempt.status}: {attempt.error}")
    for attempt in trial.calm:
        if attempt.status != 200:
            continue
        if trial.own_slices and attempt not in trial.shared:
            found.append(f"image {attempt.image}: not all boards have a part in its answer.")
        elif expected is not None and not equals(attempt, expected[attempt.image]):
            found.append(f"image {attempt.image}: its answer is not the one that the bundle expects.")
    found += _faults_after(trial)
    if not trial.under_way:
        found.append(f"no request was under way when {KILLED} was killed.")
    if not any(attempt.status == 200 and attempt.started >= trial.known_at for attempt in trial.after):
        found.append(f"no request was answered that was sent when the coordinator knew that {KILLED} is gone.")
    return found


def _faults_after(trial: Trial) -> Iterator[str]:
    """What is wrong with who has answered the requests that were sent after the kill."""
    left, known_at = ["" if device == KILLED else device for device in trial.boards], trial.known_at
    for attempt in trial.after:
        if attempt.status != 200:
            continue
        devices = devices_of(attempt)
        said = f"image {attempt.image}: its answer is of '{','.join(devices)}'; legal:"
        if KILLED in devices:
            yield f"image {attempt.image}: {KILLED} has a part in an answer to what was sent after its end."
        elif trial.own_slices:
            # Nothing else is possible, whether the coordinator knows yet or finds it out by this request.
            if devices != left:
                yield f"{said} '{','.join(left)}', all boards that are left."
        elif "" in devices and attempt.started >= known_at:
            # Before, the coordinator may be content with what the others have been asked for.
            yield f"{said} no slice missing, since the boards that are left have all."


def equals(attempt: Attempt, expected: np.ndarray) -> bool:
    """Whether an answer is this, to the bit."""
    (output,) = attempt.outputs.values()
    return np.array_equal(output, expected)
