"""The latencies of slices that a curve of early answers is drawn for: given by flags, or measured on this machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.early.curve import Latencies
from fusion.base.program import LONGEST_S, UserError
from fusion.bundle.contents import Bundle, SwitchEntry

_RUNS = 200


@dataclass(frozen=True)
class Asked:
    """What a user said of latencies: `slice_ms` in slice order, empty where they are to be measured, and of stragglers
    `probability` and `factor`, as of `Latencies`."""

    slice_ms: tuple[float, ...]
    probability: float
    factor: float

    def switches(self, entries: Sequence[SwitchEntry]) -> list[SwitchEntry]:
        """Those switches that it is of: with given latencies the ones of so many slices.

        Raises UserError if there is none.
        """
        if not self.slice_ms:
            return list(entries)
        chosen = [entry for entry in entries if len(entry.slices) == len(self.slice_ms)]
        if not chosen:
            legal = ", ".join(f"{len(entry.slices)} for {entry.switch}" for entry in entries)
            raise UserError(f"--latencies_ms has {len(self.slice_ms)} latencies; legal: one per slice, {legal}.")
        return chosen

    def of(self, slice_ms: Sequence[float]) -> Latencies:
        """The latencies of a switch whose slices take so long, unless others are given."""
        return Latencies(self.slice_ms or tuple(slice_ms), self.probability, self.factor)

    def __str__(self) -> str:
        given = ", ".join(f"{ms:g}" for ms in self.slice_ms)
        text = f"slices take {given} ms" if given else "slices take what each takes alone on one core"
        if self.probability:
            text += f", each one in {100 * self.probability:g} % of the requests {self.factor:g} times that"
        return text


def parse(latencies_ms: Sequence[str], straggler: Sequence[str]) -> Asked:
    """Reads `--latencies_ms=5,9,30,30` and `--straggler=0.1,10`; either may be empty.

    Raises UserError for what is no number or out of range.
    """
    slice_ms = [_number("latencies_ms", text, 0.0, 1e3 * LONGEST_S) for text in latencies_ms]
    if not straggler:
        return Asked(tuple(slice_ms), 0.0, 1.0)
    if len(straggler) != 2:
        raise UserError(f"--straggler={','.join(straggler)}; legal: a probability and a factor, as 0.1,10.")
    probability, factor = _number("straggler", straggler[0], 0.0, 1.0), _number("straggler", straggler[1], 1.0, 1e6)
    return Asked(tuple(slice_ms), probability, factor)


def measure(bundle: Bundle, entries: Sequence[SwitchEntry], precision: str) -> tuple[dict[str, list[float]], str]:
    """By switch, the median ms of one invocation of each slice, in slice order, and the runtime's name and version.

    The self-test of the bundle measures them, in a process that holds no TensorFlow.

    Raises:
      UserError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "fusion.selftest", f"--bundle={bundle.folder.resolve()}"]
        command += [f"--switch={','.join(entry.switch for entry in entries)}", f"--precision={precision}"]
        command += [f"--runs={_RUNS}", f"--json={result}"]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        if done.returncode:
            last = [*done.stdout.splitlines(), *done.stderr.splitlines(), f"exit status {done.returncode}"]
            said = next((line for line in last if line.startswith(("fault: ", "error: "))), last[-1])
            raise UserError(f"the self-test of bundle {str(bundle.folder)!r} failed, so nothing was timed: {said}")
        written = json.loads(result.read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {}
    for one in written["slices"]:
        found.setdefault(one["switch"], []).append(one["timing"]["p50"] / 1e3)
    return found, written["runtime"]


def _number(flag: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"--{flag} holds {text!r}; legal: a number from {low:g} to {high:g}.")
    return value
