"""How far a run has come, read from its folder and from nothing else."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.runs.run_list import Run
from fusion.base import columns
from fusion.base.program import UserError
from paradis_tf.configs import defaults
from paradis_tf.base.metrics import METRICS
from paradis_tf.records.workdir import Workdir, flat

_LAST_EPOCHS = 5


@dataclass(frozen=True)
class State:
    """What a run folder holds.

    Attributes:
      epochs: epochs that are done and kept.
      finished: whether the trained model is there.
      evaluated: whether it is evaluated, and has not been written since.
      in_use: whether a process is training in the folder.
      seconds: of each epoch on record.
      validation: the newest epoch's values of the task's metric on the validation part by switch, as they are shown.
      fault: why the folder cannot be carried on, or nothing.
    """

    epochs: int = 0
    finished: bool = False
    evaluated: bool = False
    in_use: bool = False
    seconds: tuple[float, ...] = ()
    validation: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def complete(self) -> bool:
        return self.finished and self.evaluated and not self.fault


def read(run: Run, runs_dir: Path) -> State:
    """The state of a run whose folder is `runs_dir/<its name>`; of none if the folder is not there."""
    workdir = Workdir(runs_dir / run.name)
    if not os.path.exists(workdir.config_file):
        return State()
    finished = workdir.model_file.exists()
    try:
        _check_same(workdir, run)
        fault = ""
    except UserError as error:
        fault = str(error)
    rows = _metrics(workdir.metrics_file)
    newest = rows[-1] if rows else {}
    return State(
        epochs=run.config.epochs if finished else workdir.newest_checkpoint()[0],
        finished=finished,
        evaluated=finished and _evaluated(workdir),
        in_use=not finished and _in_use(workdir),
        seconds=tuple(row["seconds"] for row in rows if "seconds" in row),
        validation={
            name.removeprefix(f"val_{metric.key}/"): f"{metric.scale * value:.{1 if metric.unit == '%' else 2}f}"
            for metric in METRICS.values()
            for name, value in newest.items()
            if name.startswith(f"val_{metric.key}/")
        },
        fault=fault,
    )


def epoch_seconds(state: State) -> float | None:
    """What an epoch takes, the median of the newest ones; None before the first."""
    return statistics.median(state.seconds[-_LAST_EPOCHS:]) if state.seconds else None


def seconds_left(runs: Sequence[Run], states: Sequence[State]) -> list[float | None]:
    """What is left of each training, in seconds.

    A run that has no epoch on record is taken to be as fast as the others of its entry, or as all; with none at all
    its time is unknown, which is None.
    """
    known = [(run.entry, epoch_seconds(state)) for run, state in zip(runs, states, strict=True)]
    found: list[float | None] = []
    for run, state in zip(runs, states, strict=True):
        everyone = [seconds for _, seconds in known if seconds is not None]
        alike = [seconds for entry, seconds in known if seconds is not None and entry == run.entry]
        each = epoch_seconds(state) or (statistics.mean(alike or everyone) if everyone else None)
        left = 0 if state.finished else max(0, run.config.epochs - state.epochs)
        found.append(0.0 if not left else None if each is None else left * each)
    return found


def render(runs: Sequence[Run], states: Sequence[State], cores_each: int) -> str:
    """A table of runs, and what is left in core-hours if each run has so many cores."""
    lines = []
    left = seconds_left(runs, states)
    for run, state, seconds in zip(runs, states, left, strict=True):
        scores = "  ".join(f"{switch} {value}" for switch, value in state.validation.items())
        lines.append(
            (
                run.name,
                f"{state.epochs}/{run.config.epochs}",
                _word(state),
                "yes" if state.evaluated else "no",
                f"{sum(state.seconds) / 3600:.2f}",
                "?" if seconds is None else f"{seconds * cores_each / 3600:.2f}",
                scores,
            )
        )
    header = ("run", "epochs", "training", "evaluated", "hours used", "core-hours left", "validation (% or dB)")
    known = sum(seconds for seconds in left if seconds is not None) * cores_each / 3600
    unknown = sum(seconds is None for seconds in left)
    told = [f"about {known:.1f} core-hours left at {cores_each} core(s) per run"] if unknown < len(runs) else []
    total = ", and ".join(told + ([f"{unknown} run(s) of whose time nothing is known yet"] if unknown else []))
    complete = sum(state.complete for state in states)
    faults = [f"{run.name}: {state.fault}" for run, state in zip(runs, states, strict=True) if state.fault]
    ending = f"{complete} of {len(runs)} runs trained and evaluated; {total}"
    return "\n".join([columns.render(header, lines), ending, *faults])


def _word(state: State) -> str:
    if state.fault:
        return "refused"
    if state.finished:
        return "finished"
    if state.in_use:
        return "running"
    return "stopped" if state.epochs else "not begun"


def _evaluated(workdir: Workdir) -> bool:
    try:
        rows = workdir.evaluation()
        # A model that is written anew, as by a recalibration, is newer than what was measured before.
        return bool(rows) and workdir.evaluation_file.stat().st_mtime_ns >= workdir.model_file.stat().st_mtime_ns
    except (UserError, OSError):
        return False


def _in_use(workdir: Workdir) -> bool:
    """Whether a training holds the folder's lock. Looks at it without touching the file."""
    try:
        with (workdir.path / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
    except OSError:
        pass
    return False


def _check_same(workdir: Workdir, run: Run) -> None:
    """Raises UserError if the folder's run is another than the list's.

    A key that the program had not yet when it began the run counts as its default.
    """
    kept, asked = flat(workdir.config()), flat(json.loads(run.config.to_json()))
    default = flat(json.loads(defaults.get_config().to_json()))
    for key in sorted(kept.keys() | asked.keys()):
        old, new = kept.get(key, default.get(key)), asked.get(key, default.get(key))
        if old != new:
            raise UserError(
                f"{workdir.path} holds a run with {key}={old!r}, and the list says {new!r}; give the entry "
                "another name or another runs_dir."
            )


def _metrics(file: Path) -> list[dict[str, float]]:
    """The rows that are whole; a process that was killed may have left a broken end."""
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            header, *lines = list(csv.reader(stream)) or [[]]
    except (OSError, csv.Error):
        return []
    rows = []
    for line in lines:
        try:
            rows.append({name: float(value) for name, value in zip(header, line, strict=True)})
        except ValueError:
            continue
    return rows
