"""A whole cluster as processes of this machine: workers and their coordinator."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from ..base.program import UserError
from ..bundle.contents import Bundle, SwitchEntry
from .child import Child

_STOP_S = 10.0


class LocalCluster:
    """A running cluster; a context manager, whose processes end with the block.

    Args:
      bundle: from `manifest.load`.
      switch: one of the bundle's switches, e.g. `4x0.25`, that the coordinator is to run; None leaves the choice to it.
      precision: one of the bundle's precisions.
      runtime: `auto`, `ai_edge_litert` or `tflite_runtime`.
      threads: threads of each worker's invocations, 1 or more.
      startup_timeout_s: how long all processes together may take to be ready, in seconds.
      workers: how many workers, each of which serves any slice; None starts one for each slice of `switch`, which
        serves that one alone.
      cores: worker i is pinned to core `cores[i % len(cores)]`; none leaves the workers free.
      coordinator_cores: the cores that the coordinator is pinned to; none leaves it free.
      worker_options, coordinator_options: more of their command lines, e.g. `--max_queue=4`.
      own_worker_options: more of each worker's command line, by worker.
      worker_prefixes: what is put before each worker's command, by worker, e.g. `("ip", "netns", "exec", "NAME")`.
      front: given the workers' addresses, the ones that the coordinator is told in their place.

    Attributes:
      url: the coordinator's address, once entered.
      worker_urls: the workers' own addresses.
      switch: the `SwitchEntry` that runs; None where the coordinator chooses.

    The processes end when the block does, also by an exception or Ctrl-C; and, since they watch a
    pipe from this process, when this process is killed. Raises `UserError` when the bundle lacks
    the switch or precision, and with a process's last words when one ends at the start or is not
    ready in time.
    """

    def __init__(
        self,
        bundle: Bundle,
        switch: str | None,
        precision: str = "int8",
        runtime: str = "auto",
        threads: int = 1,
        startup_timeout_s: float = 60.0,
        workers: int | None = None,
        cores: Sequence[int] = (),
        coordinator_cores: Sequence[int] = (),
        worker_options: Sequence[str] = (),
        own_worker_options: Sequence[Sequence[str]] = (),
        coordinator_options: Sequence[str] = (),
        worker_prefixes: Sequence[Sequence[str]] = (),
        front: Callable[[Sequence[str]], Sequence[str]] | None = None,
    ) -> None:
        self._bundle = bundle
        self.switch: SwitchEntry | None = None if switch is None else bundle.find_switch(switch)
        precision = bundle.check_precision(precision)
        self._common = [f"--bundle={bundle.folder}", f"--precision={precision}"]
        options = [f"--runtime={runtime}", f"--threads={threads}", *worker_options]
        self._workers = [
            _Worker(
                name,
                [*self._common, *slice_options, *options, *(own_worker_options[place] if own_worker_options else ())],
                [cores[place % len(cores)]] if cores else [],
                worker_prefixes[place] if worker_prefixes else (),
            )
            for place, (name, slice_options) in enumerate(self._roles(workers))
        ]
        self._coordinator_cores, self._coordinator_options = coordinator_cores, coordinator_options
        self._startup_timeout_s, self._front = startup_timeout_s, front
        self._coordinator: Child | None = None
        self._stack = contextlib.ExitStack()
        self.url = ""

    @property
    def pids(self) -> list[int]:
        """The process ids: the workers', in their order, then the coordinator's."""
        return [child.process.pid for child in self._children()]

    @property
    def worker_urls(self) -> list[str]:
        return [worker.url for worker in self._workers]

    def __enter__(self) -> LocalCluster:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster")))
            stack.callback(self._stop)
            deadline = time.monotonic() + self._startup_timeout_s
            for worker in self._workers:
                worker.start()
            urls: Sequence[str] = [worker.wait(deadline) for worker in self._workers]
            if self._front is not None:
                urls = self._front(urls)
            file = folder / "cluster.toml"
            lines = [f'[[device]]\nname = "worker-{i}"\nurl = "{url}"\n' for i, url in enumerate(urls)]
            file.write_text("\n".join(lines), encoding="utf-8")
            fixed = [] if self.switch is None else [f"--switch={self.switch.switch}"]
            options = [*self._common, *fixed, f"--cluster={file}", "--port=0", *self._coordinator_options]
            self._coordinator = Child("the coordinator", "coordinator", options, self._coordinator_cores)
            self.url = self._coordinator.url(deadline)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def signal(self, worker: int, number: int) -> None:
        """Sends a worker a signal: SIGKILL ends it, SIGSTOP holds it, SIGCONT lets it go on."""
        self._workers[worker].child().signal(number)

    def restart(self, worker: int) -> None:
        """Ends a worker, running, stopped or ended, and starts it anew on the same address; returns when it is ready.
        Raises `UserError` when it does not become so."""
        self._workers[worker].restart(time.monotonic() + self._startup_timeout_s)

    def _roles(self, workers: int | None) -> list[tuple[str, list[str]]]:
        """Each worker's name and what it serves."""
        if workers is not None:
            return [(f"worker {i}", []) for i in range(workers)]
        if self.switch is None:
            raise UserError("a cluster without a switch needs a number of workers; legal: 1 or more.")
        switch = self.switch.switch
        return [
            (f"worker {slice_.device} of switch {switch}", [f"--switch={switch}", f"--device={slice_.device}"])
            for slice_ in self.switch.slices
        ]

    def _children(self) -> list[Child]:
        children = [worker.process for worker in self._workers]
        return [child for child in (*children, self._coordinator) if child is not None]

    def _stop(self) -> None:
        # The coordinator first, so that it never sees its workers go.
        for child in reversed(self._children()):
            child.tell_to_stop()
        deadline = time.monotonic() + _STOP_S
        for child in reversed(self._children()):
            child.end(deadline)


class _Worker:
    """One worker, which keeps its address when its process is replaced."""

    def __init__(self, name: str, options: list[str], cores: Sequence[int], prefix: Sequence[str]) -> None:
        self._name, self._options, self._cores, self._prefix = name, options, cores, prefix
        self.process: Child | None = None
        self.url = ""

    def start(self, port: int = 0) -> None:
        options = [f"--port={port}", *self._options]
        self.process = Child(self._name, "worker", options, self._cores, self._prefix)

    def child(self) -> Child:
        if self.process is None:
            raise UserError(f"{self._name} is not started; legal: inside the cluster's block.")
        return self.process

    def wait(self, deadline: float) -> str:
        self.url = self.child().url(deadline)
        return self.url

    def restart(self, deadline: float) -> None:
        child = self.child()
        child.tell_to_stop()
        child.end(min(deadline, time.monotonic() + _STOP_S))
        self.start(int(self.url.rsplit(":", 1)[1]))
        self.wait(deadline)
