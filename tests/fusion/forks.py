"""Runs programs in forks of one process that has imported what takes a board's packages long to import.

Each run is a process of its own, as `python -m` would start it; only its imports are there already. Run as a program,
this file is the process that forks: a line of JSON on standard input for each run, its exit status on standard output.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any


class ForkServer:
    """The process that forks; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> "ForkServer":
        self._process: Any = subprocess.Popen(
            [sys.executable, __file__], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, module: str, options: list[str], cwd: Path, seconds: int) -> "subprocess.CompletedProcess[str]":
        """What `subprocess.run` gives of `python -m module *options`; it is killed after so many seconds."""
        with tempfile.TemporaryDirectory() as folder, self._lock:
            texts = [Path(folder) / name for name in ("out", "err")]
            job = {"module": module, "options": options, "cwd": str(cwd), "env": dict(os.environ), "seconds": seconds}
            self._process.stdin.write(json.dumps(job | {"files": [str(path) for path in texts]}) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess([module, *options], status, *(path.read_text() for path in texts))


def serve() -> dict[str, Any] | None:
    """Forks for each line; returns its job in the fork, and None at the end."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return job
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)
    return None


def become(job: dict[str, Any]) -> None:
    """Makes this process the one that `python -m` would be, and runs the program."""
    signal.alarm(job["seconds"])
    for number, path in enumerate([os.devnull, *job["files"]]):
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv[1:] = job["options"]
    sys.path[0:1] = [job["cwd"], *filter(None, job["env"].get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_module(job["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in ("absl.app", "ai_edge_litert.interpreter", "aiohttp", "numpy", "PIL.Image", "prometheus_client"):
        importlib.import_module(name)
    job = serve()
    if job is not None:
        become(job)
