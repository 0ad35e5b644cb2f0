"""One server process of this package, started by another program of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..base.program import UserError
from .cores import pinned

_LAST_LINES = 5


class Child:
    """A worker or a coordinator as a process, which stops when this one ends, however it does.

    Args:
      name: what messages call it.
      program: `worker` or `coordinator`.
      options: its command line, without the port.
      cores: the cores it is pinned to; none leaves it free.
      prefix: what is put before its command, e.g. `ip netns exec NAME`.

    Attributes:
      url: its address, once it is ready, which it keeps when it is started again.
    """

    def __init__(
        self, name: str, program: str, options: Sequence[str], cores: Sequence[int] = (), prefix: Sequence[str] = ()
    ) -> None:
        self._name, self._program, self._cores = name, program, cores
        self._command = [*prefix, sys.executable, "-m", f"fusion.{program}", *options, "--stop_at_stdin_end"]
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
        """Starts the process, on its earlier port if it had one. Raises `UserError` as `pinned` does."""
        port = self.url.rsplit(":", 1)[1] if self.url else "0"
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        self._errors = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        with pinned(self._cores):
            # In its own session it gets no Ctrl-C from the terminal: the parent ends all in order.
            self._process = subprocess.Popen(
                [*self._command, f"--port={port}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | {"PYTHONPATH": path},
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
