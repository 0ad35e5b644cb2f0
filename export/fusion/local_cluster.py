"""A whole cluster as processes of this machine: one worker per slice of a switch, and a
coordinator."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from .bundle import Bundle
from .program import UserError

_STOP_S = 10.0
_LAST_LINES = 5


class LocalCluster:
    """A running cluster; a context manager, whose processes end with the block.

    Args:
      bundle: from `manifest.load`.
      switch: one of the bundle's switches, e.g. `4x0.25`.
      precision: one of the bundle's precisions.
      runtime: `auto`, `ai_edge_litert` or `tflite_runtime`.
      threads: threads of each worker's invocations, 1 or more.
      startup_timeout_s: how long all processes together may take to be ready, in seconds.

    Attributes:
      url: the coordinator's address, once entered.
      switch: the `SwitchEntry` that runs.
      pids: the process ids, the workers' in slice order and the coordinator's last.

    The processes end when the block does, also by an exception or Ctrl-C; and, since they watch a
    pipe from this process, when this process is killed. Raises `UserError` when the bundle lacks
    the switch or precision, and with a process's last words when one ends at the start or is not
    ready in time. Source: ours.
    """

    def __init__(
        self,
        bundle: Bundle,
        switch: str,
        precision: str = "int8",
        runtime: str = "auto",
        threads: int = 1,
        startup_timeout_s: float = 60.0,
    ) -> None:
        self._bundle, self.switch = bundle, bundle.find_switch(switch)
        self._precision = bundle.check_precision(precision)
        self._runtime, self._threads = runtime, threads
        self._startup_timeout_s = startup_timeout_s
        self._children: list[_Child] = []
        self._stack = contextlib.ExitStack()
        self.url = ""

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self._children]

    def __enter__(self) -> LocalCluster:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster")))
            stack.callback(self._stop)
            deadline = time.monotonic() + self._startup_timeout_s
            common = [f"--bundle={self._bundle.folder}", f"--precision={self._precision}"]
            common += [f"--switch={self.switch.switch}", "--port=0", "--stop_at_stdin_end"]
            for slice_ in self.switch.slices:
                name = f"worker {slice_.device} of switch {self.switch.switch}"
                options = [f"--device={slice_.device}", f"--threads={self._threads}"]
                options += [f"--runtime={self._runtime}"]
                self._children.append(_Child(name, "worker", common + options))
            lines = []
            for i, child in enumerate(self._children):
                url = child.url(deadline)
                lines.append(f'[[device]]\nname = "worker-{i}"\nurl = "{url}"\n')
            cluster = folder / "cluster.toml"
            cluster.write_text("\n".join(lines), encoding="utf-8")
            coordinator = _Child("the coordinator", "coordinator", [*common, f"--cluster={cluster}"])
            self._children.append(coordinator)
            self.url = coordinator.url(deadline)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _stop(self) -> None:
        # The coordinator first, so that it never sees its workers go.
        for child in reversed(self._children):
            child.tell_to_stop()
        deadline = time.monotonic() + _STOP_S
        for child in reversed(self._children):
            child.end(deadline)


class _Child:
    """One server process of this package. It stops when its standard input ends."""

    def __init__(self, name: str, program: str, options: list[str]) -> None:
        package = __package__ or ""
        root = str(Path(__file__).resolve().parents[len(package.split("."))])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        self._name, self._kind = name, program
        self._errors: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        # In its own session it gets no Ctrl-C from the terminal: the parent ends all in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{package}.{program}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def url(self, deadline: float) -> str:
        """The address in the process's readiness line. Raises `UserError` without one until the
        deadline."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise UserError(f"{self._name} was not ready in time: {self._last_words()}") from None
        prefix = f"{self._kind} ready: "
        if not line.startswith(prefix):
            status = self.process.wait()
            raise UserError(f"{self._name} ended with status {status}: {self._last_words()}")
        return line[len(prefix) :].strip()

    def tell_to_stop(self) -> None:
        """Ends its standard input and sends SIGTERM; does not wait."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.terminate()

    def end(self, deadline: float) -> None:
        """Waits for its end, and forces it at the deadline."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._errors.close()

    def _read(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as stream:
                for line in stream:
                    self._lines.put(line.decode(errors="replace"))
        self._lines.put("")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        kept = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
        return " | ".join(kept) or "it said nothing"
