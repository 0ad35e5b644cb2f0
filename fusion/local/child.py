"""One server process of this package, started by another program of it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..base.program import UserError
from .pinning import pinned

_LAST_LINES = 5


class Child:
    """A worker or a coordinator as a process, which stops when this one ends, however it does.

    Args:
      name: what messages call it.
      program: `worker` or `coordinator`.
      options: its command line.
      cores: the cores it is pinned to; none leaves it free.
      prefix: what is put before its command, e.g. `ip netns exec NAME`.

    Raises `UserError` as `pinned` does.
    """

    def __init__(
        self,
        name: str,
        program: str,
        options: Sequence[str],
        cores: Sequence[int] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        self._name, self._kind = name, program
        self._errors: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        with pinned(cores):
            # In its own session it gets no Ctrl-C from the terminal: the parent ends all in order.
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", f"fusion.{program}", *options, "--stop_at_stdin_end"],
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
        deadline, of `time.monotonic()`."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise UserError(f"{self._name} was not ready in time: {self.last_words()}") from None
        prefix = f"{self._kind} ready: "
        if not line.startswith(prefix):
            status = self.process.wait()
            raise UserError(f"{self._name} ended with status {status}: {self.last_words()}")
        return line[len(prefix) :].strip()

    def signal(self, number: int) -> None:
        """Sends a signal, e.g. SIGKILL or SIGSTOP, unless the process has ended."""
        self.process.send_signal(number)

    def tell_to_stop(self) -> None:
        """Ends its standard input and sends SIGTERM; does not wait."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.terminate()
        # One that was stopped gets no other signal before it goes on.
        self.process.send_signal(signal.SIGCONT)

    def end(self, deadline: float) -> None:
        """Waits for its end, and forces it at the deadline, of `time.monotonic()`."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._errors.close()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def last_words(self) -> str:
        """The last lines of its standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        kept = [line.strip() for line in lines if line.strip()][-_LAST_LINES:]
        return " | ".join(kept) or "it wrote nothing"

    def _read(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as stream:
                for line in stream:
                    self._lines.put(line.decode(errors="replace"))
        self._lines.put("")
