"""A whole cluster as processes of this machine: workers and their coordinator."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..base.program import UserError
from ..bundle.contents import Bundle
from .cores import ANYWHERE, Placement, pinned

# All processes together.
_STARTUP_S, _STOP_S = 180.0, 10.0
_LAST_LINES = 5


@dataclass(frozen=True)
class Python:
    """The Python that runs a process.

    Attributes:
      command: what `-m MODULE` and its options are put after, e.g. `("ip", "netns", "exec", "NAME", sys.executable)`.
      environment: its environment variables; None takes those of this process, and this process's runner.
      folder: where it runs, whose runner it then takes; None is the current one.
    """

    command: Sequence[str] = (sys.executable,)
    environment: Mapping[str, str] | None = None
    folder: Path | None = None


_THIS_PYTHON = Python()


class LocalCluster:
    """A running cluster; a context manager, whose processes end with the block. Each worker invokes with one thread.

    Args:
      bundle: from `manifest.load`.
      switch: one of the bundle's switches, e.g. `4x0.25`, that the coordinator is to run; None leaves the choice to it.
      precision: one of the bundle's precisions.
      runtime: `auto`, `ai_edge_litert` or `tflite_runtime`.
      workers: how many workers, each of which serves any slice; None starts one for each slice of `switch`, which
        serves that one alone.
      placement: the cores that worker i, one of `workers[i % len(workers)]`, and the coordinator are pinned to.
      own_worker_options: more of each worker's command line, by worker.
      coordinator_options: more of the coordinator's, e.g. `--max_queue=4`.
      worker_pythons: what runs each worker, by worker; this process's Python unless told otherwise.
      front: given the workers' addresses, the ones that the coordinator is told in their place.

    Attributes:
      url: the coordinator's address, once entered.
      worker_urls: the workers' own addresses.

    The processes end when the block does, also by an exception or Ctrl-C; and, since they watch a pipe from this
    process, when this process is killed. Raises `UserError` when the bundle lacks the switch or precision, and with a
    process's last words when one ends at the start or is not ready in time.
    """

    def __init__(
        self,
        bundle: Bundle,
        switch: str | None,
        precision: str = "int8",
        runtime: str = "auto",
        workers: int | None = None,
        placement: Placement = ANYWHERE,
        own_worker_options: Sequence[Sequence[str]] = (),
        coordinator_options: Sequence[str] = (),
        worker_pythons: Sequence[Python] = (),
        front: Callable[[Sequence[str]], Sequence[str]] = lambda urls: urls,
    ) -> None:
        self.url = ""
        entry = None if switch is None else bundle.find_switch(switch)
        common = [f"--bundle={bundle.folder.absolute()}", f"--precision={bundle.check_precision(precision)}"]
        fixed = [] if entry is None else [f"--switch={entry.switch}"]
        self._coordinator_options = [*common, *fixed, *coordinator_options]
        roles: list[tuple[str, list[str]]] = []
        if workers is not None:
            roles = [(f"worker {i}", []) for i in range(workers)]
        elif entry is not None:
            devices = range(len(entry.slices))
            roles = [(f"worker {i} of switch {entry.switch}", [*fixed, f"--device={i}"]) for i in devices]
        else:
            raise UserError("a cluster without a switch needs a number of workers; legal: 1 or more.")
        self._workers = []
        for i, (name, served) in enumerate(roles):
            own = own_worker_options[i] if own_worker_options else ()
            options = [*common, *served, f"--runtime={runtime}", "--threads=1", *own]
            cores = [placement.workers[i % len(placement.workers)]] if placement.workers else []
            python = worker_pythons[i] if worker_pythons else _THIS_PYTHON
            self._workers.append(_Child(name, "worker", options, cores, python))
        # Those that are started.
        self._children: list[_Child] = []
        self._coordinator_cores, self._front = placement.coordinator, front
        self._stack = contextlib.ExitStack()

    @property
    def pids(self) -> list[int]:
        """The process ids: the workers', in their order, then the coordinator's."""
        return [child.process.pid for child in self._children]

    @property
    def worker_urls(self) -> list[str]:
        return [worker.url for worker in self._workers]

    def __enter__(self) -> LocalCluster:
        with contextlib.ExitStack() as stack:
            named = tempfile.NamedTemporaryFile("w", prefix="cluster", suffix=".toml", encoding="utf-8")
            file = stack.enter_context(named)
            stack.callback(self._stop)
            deadline = time.monotonic() + _STARTUP_S
            for worker in self._workers:
                self._start(worker)
            urls = self._front([worker.wait(deadline) for worker in self._workers])
            file.writelines(f'[[device]]\nname = "worker-{i}"\nurl = "{url}"\n' for i, url in enumerate(urls))
            file.flush()
            options = [*self._coordinator_options, f"--cluster={file.name}"]
            coordinator = _Child("the coordinator", "coordinator", options, self._coordinator_cores)
            self._start(coordinator)
            self.url = coordinator.wait(deadline)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def signal(self, worker: int, number: int) -> None:
        """Sends a worker a signal: SIGKILL ends it, SIGSTOP holds it, SIGCONT lets it go on."""
        self._workers[worker].process.send_signal(number)

    def restart(self, worker: int) -> None:
        """Ends a worker, running, stopped or ended, and starts it anew on the same address; returns when it is ready.
        Raises `UserError` when it does not become so."""
        child = self._workers[worker]
        child.ask_to_stop()
        child.end(time.monotonic() + _STOP_S)
        child.start()
        child.wait(time.monotonic() + _STARTUP_S)

    def _start(self, child: _Child) -> None:
        child.start()
        self._children.append(child)

    def _stop(self) -> None:
        # The coordinator first, so that it never sees its workers go.
        for child in reversed(self._children):
            child.ask_to_stop()
        deadline = time.monotonic() + _STOP_S
        for child in self._children:
            child.end(deadline)


class _Child:
    """A worker or a coordinator as a process, which stops when this one ends, however it does.

    Args:
      name: what messages call it.
      program: `worker` or `coordinator`.
      options: its command line, without the port.
      cores: the cores it is pinned to; none leaves it free.
      python: what runs it.

    Attributes:
      url: its address, once it is ready, which it keeps when it is started again.
    """

    def __init__(
        self,
        name: str,
        program: str,
        options: Sequence[str],
        cores: Sequence[int] = (),
        python: Python = _THIS_PYTHON,
    ) -> None:
        self._name, self._program, self._cores, self._python = name, program, cores, python
        self._command = [*python.command, "-m", f"fusion.{program}", *options, "--stop_at_stdin_end"]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes]
        self.url = ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process. Raises `UserError` before it is started."""
        if self._process is None:
            raise UserError(f"{self._name} is not started; legal: inside the cluster's block.")
        return self._process

    def start(self) -> None:
        """Starts the process, on its earlier port if it had one."""
        port = self.url.rsplit(":", 1)[1] if self.url else "0"
        environment = self._python.environment
        if environment is None:
            root = str(Path(__file__).resolve().parents[2])
            path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
            environment = os.environ | {"PYTHONPATH": path}
        self._errors = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        with pinned(self._cores):
            # In its own session it gets no Ctrl-C from the terminal: the parent ends all in order.
            self._process = subprocess.Popen(
                [*self._command, f"--port={port}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                cwd=self._python.folder,
                start_new_session=True,
            )

    def wait(self, deadline: float) -> str:
        """Its `url`, from its readiness line. Raises `UserError` without one until the deadline, of
        `time.monotonic()`."""
        output = self.process.stdout
        left = max(0.0, deadline - time.monotonic())
        if output is None or not select.select([output], [], [], left)[0]:
            raise UserError(f"{self._name} was not ready in time: {self._last_words()}")
        line = output.readline().decode(errors="replace")
        prefix = f"{self._program} ready: "
        if not line.startswith(prefix):
            raise UserError(f"{self._name} ended with status {self.process.wait()}: {self._last_words()}")
        self.url = line[len(prefix) :].strip()
        return self.url

    def ask_to_stop(self) -> None:
        """Sends SIGTERM; does not wait."""
        self.process.terminate()
        # One that was stopped gets no other signal before it goes on.
        self.process.send_signal(signal.SIGCONT)

    def end(self, deadline: float) -> None:
        """Waits for its end, and forces it at the deadline, of `time.monotonic()`."""
        with self.process as process:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        self._errors.close()

    def _last_words(self) -> str:
        """The last lines of its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        kept = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
        return " | ".join(kept) or "it wrote nothing"
