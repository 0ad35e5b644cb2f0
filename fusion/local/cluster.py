"""A whole cluster as processes of this machine: workers and their coordinator."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence

from ..base.program import UserError
from ..bundle.contents import Bundle
from .child import Child
from .cores import ANYWHERE, Placement

# All processes together.
_STARTUP_S, _STOP_S = 180.0, 10.0


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
      worker_prefixes: what is put before each worker's command, by worker, e.g. `("ip", "netns", "exec", "NAME")`.
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
        worker_prefixes: Sequence[Sequence[str]] = (),
        front: Callable[[Sequence[str]], Sequence[str]] = lambda urls: urls,
    ) -> None:
        self.url = ""
        entry = None if switch is None else bundle.find_switch(switch)
        common = [f"--bundle={bundle.folder}", f"--precision={bundle.check_precision(precision)}"]
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
            self._workers.append(Child(name, "worker", options, cores, worker_prefixes[i] if worker_prefixes else ()))
        # Those that are started.
        self._children: list[Child] = []
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
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="cluster", suffix=".toml"))
            stack.callback(self._stop)
            deadline = time.monotonic() + _STARTUP_S
            for worker in self._workers:
                self._start(worker)
            urls = self._front([worker.wait(deadline) for worker in self._workers])
            file.writelines(f'[[device]]\nname = "worker-{i}"\nurl = "{url}"\n' for i, url in enumerate(urls))
            file.flush()
            options = [*self._coordinator_options, f"--cluster={file.name}"]
            coordinator = Child("the coordinator", "coordinator", options, self._coordinator_cores)
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

    def _start(self, child: Child) -> None:
        child.start()
        self._children.append(child)

    def _stop(self) -> None:
        # The coordinator first, so that it never sees its workers go.
        for child in reversed(self._children):
            child.ask_to_stop()
        deadline = time.monotonic() + _STOP_S
        for child in self._children:
            child.end(deadline)
