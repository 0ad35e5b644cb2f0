"""Trains and evaluates runs, several at once, each by one process after the other.

What is done is read from the run folders alone, so this may be killed at any moment and started again. Its processes
end with it, by the kernel's hand. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs.run_list import ListedRun
from fusion.base import columns
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.configs import defaults
from paradis_tf.records.workdir import Workdir, flat

PROGRAMS: Mapping[str, Sequence[str]] = {
    "train": (sys.executable, "-m", "paradis_tf.train"),
    "evaluate": (sys.executable, "-m", "paradis_tf.evaluate"),
}
_POLL_S = 0.1
_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1
# What the program did before it had a key, where that is not the default.
_BEFORE = {"config.method.live_weight": 0.0, "config.method.final_live_weight": 0.0}


@dataclass(frozen=True)
class RunState:
    """What a run folder holds.

    Attributes:
      epochs: epochs that are done and kept.
      finished: whether the trained model is there.
      evaluated: whether it is evaluated, and has not been written since.
      hours: of all its epochs.
      fault: why the folder cannot be carried on, or nothing.
    """

    epochs: int = 0
    finished: bool = False
    evaluated: bool = False
    hours: float = 0.0
    fault: str = ""

    @property
    def complete(self) -> bool:
        return self.evaluated and not self.fault


def read(run: ListedRun, runs_dir: Path) -> RunState:
    """The state of a run whose folder is `runs_dir/<its name>`."""
    workdir = Workdir(runs_dir / run.name)
    if not os.path.exists(workdir.config_file):
        return RunState()
    try:
        hours = sum(row.get("seconds", 0.0) for row in workdir.metrics.rows()) / 3600
    except UserError:
        hours = 0.0
    finished = workdir.model_file.exists()
    epochs = run.config.epochs if finished else workdir.newest_checkpoint()[0]
    return RunState(epochs, finished, finished and _is_evaluated(workdir), hours, _fault(workdir, run))


def render(runs: Sequence[ListedRun], runs_dir: Path) -> str:
    """A table of how far the runs are."""
    states = [read(run, runs_dir) for run in runs]
    rows = [
        (
            run.name,
            f"{state.epochs}/{run.config.epochs}",
            "yes" if state.finished else "no",
            "yes" if state.evaluated else "no",
            f"{state.hours:.2f}",
        )
        for run, state in zip(runs, states, strict=True)
    ]
    faults = [f"{run.name}: {state.fault}" for run, state in zip(runs, states, strict=True) if state.fault]
    complete = sum(state.complete for state in states)
    table = columns.render(("run", "epochs", "trained", "evaluated", "hours"), rows)
    return "\n".join([table, f"{complete} of {len(runs)} runs trained and evaluated", *faults])


class Scheduler:
    """Trains and evaluates runs, the first listed first, but none before its teacher.

    Args:
      runs: what to carry on.
      runs_dir: holds a folder per run, and `logs/`.
      data_dir: as the programs take it, or None.
      parallel: runs at once, 1 or more; the cores are shared out among them.
      programs: the beginnings of the commands that `train` and `evaluate` a run.
      report: is told a line of what happens.
    """

    def __init__(
        self,
        runs: Sequence[ListedRun],
        runs_dir: Path,
        data_dir: str | None,
        parallel: int,
        programs: Mapping[str, Sequence[str]] = PROGRAMS,
        report: Callable[[str], None] = say,
    ) -> None:
        self._runs_dir, self._data_dir, self._parallel = runs_dir, data_dir, parallel
        self._programs, self._report = programs, report
        self._waiting = list(runs)
        self._running: list[_Task] = []
        self._failed: list[str] = []

    def carry_on(self) -> list[str]:
        """Brings every run as far as it comes; returns the names of those that are not done."""
        try:
            while self._waiting or self._running:
                while len(self._running) < self._parallel and (run := self._next_run()):
                    self._waiting.remove(run)
                    self._advance(run, "")
                if self._running:
                    time.sleep(_POLL_S)
                for task in [task for task in self._running if task.process.poll() is not None]:
                    self._running.remove(task)
                    self._end(task)
        finally:
            self._stop()
        return self._failed

    def _next_run(self) -> ListedRun | None:
        """The first run whose teacher is neither waiting nor running."""
        busy = {run.name for run in (*self._waiting, *(task.run for task in self._running))}
        return next((run for run in self._waiting if run.teacher not in busy), None)

    def _advance(self, run: ListedRun, last: str) -> None:
        """Starts the program that a run needs next, of which `last` is the one that has just ended well."""
        state = read(run, self._runs_dir)
        needed = "evaluate" if state.finished else "train"
        if state.fault:
            self._give_up(run, state.fault)
        elif state.complete:
            self._say(f"{run.name} is done, {state.hours:.2f} hours of training")
        elif run.teacher and not Workdir(self._runs_dir / run.teacher).model_file.exists():
            self._give_up(run, f"its teacher {run.teacher} is not trained")
        elif needed == last:
            self._give_up(run, f"{last} ended with status 0: {_last_line(self._log_file(run))}")
        else:
            self._start(run, needed)
            at = f" from epoch {state.epochs + 1} of {run.config.epochs}" if needed == "train" else ""
            self._say(f"{run.name}: {needed}{at}, output in {self._log_file(run)}")

    def _start(self, run: ListedRun, stage: str) -> None:
        options = [f"--workdir={self._runs_dir / run.name}"]
        options += [f"--data_dir={self._data_dir}"] if self._data_dir else []
        options += run.train_flags() if stage == "train" else []
        command = [*self._programs[stage], *options]
        threads = str(max(1, len(os.sched_getaffinity(0)) // self._parallel))
        environment = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        log = self._log_file(run)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                output.write(f"$ {shlex.join(command)}\n".encode())
                output.flush()
                # In its own session it gets no Ctrl-C from the terminal: this program ends all in order.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | environment,
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
        except OSError as error:
            self._give_up(run, f"{log} or its program cannot be opened: {error.strerror}")
        else:
            self._running.append(_Task(run, stage, process))

    def _end(self, task: _Task) -> None:
        status = task.process.returncode
        if status == 0:
            self._advance(task.run, task.stage)
        else:
            ending = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
            self._give_up(task.run, f"{ending}: {_last_line(self._log_file(task.run))}")

    def _give_up(self, run: ListedRun, reason: str) -> None:
        self._failed.append(run.name)
        self._say(f"{run.name} FAILED: {reason}")

    def _log_file(self, run: ListedRun) -> Path:
        # Not in its folder, which the training wants empty at first.
        return self._runs_dir / "logs" / f"{run.name}.log"

    def _say(self, text: str) -> None:
        self._report(f"{time.strftime('%H:%M')} {text}")

    def _stop(self) -> None:
        """Ends what still runs. A training that is killed loses no more than one that is stopped."""
        try:
            for task in self._running:
                task.signal(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            for task in self._running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    task.process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            # Also on a second Ctrl-C.
            for task in self._running:
                task.signal(signal.SIGKILL)
                task.process.wait()


@dataclass(frozen=True)
class _Task:
    """A run that is being carried on by a process."""

    run: ListedRun
    stage: str
    process: subprocess.Popen[bytes]

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


def _end_with_parent() -> None:
    """Asks the kernel to end this process with its parent."""
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        os._exit(1)


def _fault(workdir: Workdir, run: ListedRun) -> str:
    """Says that the folder's run is another than the list's; nothing if it is the same.

    A key that the program had not yet when it began the run counts as what it did then, which mostly is its default.
    """
    try:
        kept = flat(workdir.config())
    except UserError as error:
        return str(error)
    listed, default = (flat(json.loads(config.to_json())) for config in (run.config, defaults.get_config()))
    for key in sorted(kept.keys() | listed.keys()):
        old, new = kept.get(key, _BEFORE.get(key, default.get(key))), listed.get(key, default.get(key))
        if old != new:
            held = f"{workdir.path} holds a run with {key}={old!r}"
            return f"{held}, and the list says {new!r}; give the entry another name."
    return ""


def _is_evaluated(workdir: Workdir) -> bool:
    try:
        # A model that is written anew, as by a recalibration, is newer than what was measured before.
        newer = workdir.evaluation_file.stat().st_mtime_ns >= workdir.model_file.stat().st_mtime_ns
        return newer and bool(workdir.evaluation())
    except (UserError, OSError):
        return False


def _last_line(log: Path) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"{log} says nothing"
