"""Carries on unfinished runs, several at once, each on cores of its own.

One run per core is the default, because a small network cannot feed several threads: several trainings of one thread
each make more steps than one training with all of them.

What is done is read from the run folders alone, so this program may be killed at any moment and started again. Its
processes die with it, by the kernel's hand. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs import state
from benchmarks.runs.run_list import Run
from fusion.base.program import UserError
from paradis_tf.records.workdir import Workdir

_POLL_S = 0.2
_STOP_S = 10.0
# A training that was killed with an earlier process of this program may take a moment to let go of its folder.
_LET_GO_S = 5.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Programs:
    """The beginnings of the commands that train and evaluate a run."""

    train: tuple[str, ...] = (sys.executable, "-m", "paradis_tf.train")
    evaluate: tuple[str, ...] = (sys.executable, "-m", "paradis_tf.evaluate")

    def command(self, run: Run, runs_dir: Path, data_dir: str | None, finished: bool) -> list[str]:
        """What brings a run on: its training or, if that is finished, its evaluation."""
        flags = [f"--workdir={runs_dir / run.name}", *([f"--data_dir={data_dir}"] if data_dir else [])]
        return [*self.evaluate, *flags] if finished else [*self.train, *run.train_flags(), *flags]


def shares(cores: Sequence[int], parallel: int) -> list[tuple[int, ...]]:
    """The cores of each of so many runs at once: all cores, dealt out evenly.

    Raises:
      UserError: fewer than one run or more than there are cores.
    """
    if not 1 <= parallel <= len(cores):
        raise UserError(f"--parallel={parallel}; it lies between 1 and the {len(cores)} usable cores.")
    return [tuple(cores[place::parallel]) for place in range(parallel)]


def log_file(run: Run, runs_dir: Path) -> Path:
    """Where the output of a run's programs goes. Not in its folder, which the training wants empty at first."""
    return runs_dir / "logs" / f"{run.name}.log"


class _Task:
    """A run that is being carried on: a process at a time on its cores."""

    def __init__(self, run: Run, cores: tuple[int, ...]) -> None:
        self.run, self.cores = run, cores
        self.process: subprocess.Popen[bytes] | None = None
        self.training = True

    def start(self, command: list[str], log: Path) -> None:
        threads = str(len(self.cores))
        environment = os.environ | {
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"$ {shlex.join(command)}\n".encode())
            output.flush()
            # In its own session it gets no Ctrl-C from the terminal: this program ends all in order.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_prepare(self.cores),
            )

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


def _prepare(cores: tuple[int, ...]) -> Callable[[], None]:
    """What a new process does before it becomes its program: takes its cores, and asks to die with its parent."""
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        # The parent may have died before the request; then nobody would send the signal.
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent:
            os._exit(1)

    return prepare


class Scheduler:
    """Trains and evaluates runs, the first listed first; a core that falls free takes the next.

    Args:
      runs: what to carry on.
      runs_dir: holds a folder per run, and `logs/`.
      data_dir: as the programs take it, or None.
      cores: the cores to use.
      parallel: runs at once, from 1 to the number of cores.
      programs: what is started.
      report: is told a line of what happens.
      status_s: seconds between status lines.

    Raises:
      UserError: `parallel` is out of range.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        runs_dir: Path,
        data_dir: str | None,
        cores: Sequence[int],
        parallel: int,
        programs: Programs | None = None,
        report: Callable[[str], None] = lambda text: print(text, flush=True),
        status_s: float = 60.0,
    ) -> None:
        self._runs_dir, self._data_dir = runs_dir, data_dir
        self._waiting = list(runs)
        self._free = shares(cores, parallel)
        self._programs = programs or Programs()
        self._report, self._status_s = report, status_s
        self._tasks: list[_Task] = []
        self._unfinished: list[str] = []

    def carry_on(self) -> list[str]:
        """Works until every run is trained and evaluated or has failed; returns the names of those that are not done.

        When it is interrupted, its processes end before it does. They lose the epoch they are in.
        """
        said = time.monotonic()
        try:
            while self._waiting or self._tasks:
                while self._free and (run := self._next()):
                    self._take(run)
                for task in list(self._tasks):
                    if task.process is not None and task.process.poll() is not None:
                        self._ended(task)
                if time.monotonic() - said >= self._status_s:
                    said = time.monotonic()
                    self._say(self._status())
                time.sleep(_POLL_S if self._tasks else 0)
        finally:
            self._stop()
        return self._unfinished

    def _next(self) -> Run | None:
        """The first run that waits for no teacher; none if there is none yet."""
        busy = {run.name for run in (*(task.run for task in self._tasks), *self._waiting)}
        for run in self._waiting:
            if run.teacher not in busy:
                self._waiting.remove(run)
                return run
        return None

    def _take(self, run: Run) -> None:
        found = state.read(run, self._runs_dir)
        deadline = time.monotonic() + _LET_GO_S
        while found.in_use and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            found = state.read(run, self._runs_dir)
        if found.complete:
            self._say(f"{run.name} is done")
        elif run.teacher and not Workdir(self._runs_dir / run.teacher).model_file.exists():
            self._give_up(run, f"its teacher {run.teacher} is not trained")
        elif found.fault or found.in_use:
            self._give_up(run, found.fault or f"{self._runs_dir / run.name} is in use by another training")
        else:
            self._start(_Task(run, self._free.pop(0)), found)

    def _start(self, task: _Task, found: state.State) -> None:
        self._tasks += [task] if task not in self._tasks else []
        task.training = not found.finished
        log = log_file(task.run, self._runs_dir)
        try:
            task.start(self._programs.command(task.run, self._runs_dir, self._data_dir, found.finished), log)
        except OSError as error:
            # The others go on; this one is tried again at the next start.
            self._drop(task)
            self._give_up(task.run, f"{log} or its program cannot be opened: {error.strerror}")
            return
        doing = f"training from epoch {found.epochs + 1} of {task.run.config.epochs}" if task.training else "evaluating"
        self._say(f"{task.run.name}: {doing}, core {','.join(map(str, task.cores))}, output in {log}")

    def _ended(self, task: _Task) -> None:
        run, status = task.run, task.process.returncode if task.process else 0
        found = state.read(run, self._runs_dir)
        if not status and task.training and found.finished and not found.evaluated and not found.fault:
            self._say(f"{run.name}: trained, {sum(found.seconds) / 3600:.2f} hours")
            self._start(task, found)
            return
        self._drop(task)
        if not status and found.complete:
            self._say(f"{run.name}: evaluated, done")
        elif found.in_use:
            self._give_up(run, f"{self._runs_dir / run.name} is in use by another training")
        else:
            ending = f"killed by signal {-status}" if status < 0 else f"ended with status {status}"
            self._give_up(run, f"{ending}: {_last_line(log_file(run, self._runs_dir))}")

    def _drop(self, task: _Task) -> None:
        self._tasks.remove(task)
        self._free.append(task.cores)

    def _give_up(self, run: Run, reason: str) -> None:
        self._unfinished.append(run.name)
        self._say(f"{run.name} FAILED: {reason}")

    def _status(self) -> str:
        runs = [task.run for task in self._tasks]
        states = [state.read(run, self._runs_dir) for run in runs]
        parts = []
        for run, found, left in zip(runs, states, state.seconds_left(runs, states), strict=True):
            ending = "evaluating" if found.finished else "" if left is None else f"{_clock(left)} left"
            parts.append(f"{run.name} {found.epochs}/{run.config.epochs} {ending}".rstrip())
        return " | ".join([*parts, f"{len(self._waiting)} waiting"])

    def _say(self, text: str) -> None:
        self._report(f"{time.strftime('%H:%M')} {text}")

    def _stop(self) -> None:
        try:
            for task in self._tasks:
                task.signal(signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            for task in self._tasks:
                if task.process is not None:
                    task.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also on a second Ctrl-C. A training that is killed loses no more than one that is stopped.
            for task in self._tasks:
                task.signal(signal.SIGKILL)
                if task.process is not None:
                    task.process.wait()


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else f"{log} says nothing"
