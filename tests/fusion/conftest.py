"""A tiny real bundle, and the runner's programs as real processes."""

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fusion.forks import ForkServer

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 180
# However busy the machine: a test that is about a deadline gives its own, which counts as it comes later.
PATIENT = {
    "worker": ["--request_timeout_s=50"],
    "coordinator": ["--request_timeout_s=50", "--deadline_ms=50000", "--connect_timeout_s=20"],
}


class Program:
    """A server of the runner as a process; `url` comes from its readiness line."""

    def __init__(self, kind, *options, package="fusion", python=sys.executable, cwd=ROOT):
        self.kind = kind
        self.process: Any = subprocess.Popen(
            [python, "-m", f"{package}.{kind}", *PATIENT[kind], *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        line = self.first_line(self.process.stdout)
        if not line.startswith(f"{kind} ready: "):
            self.process.kill()
            raise RuntimeError(f"{kind} {options}: {line!r} {self.process.communicate()[1]}")
        self.url = line.split()[-1]

    @staticmethod
    def first_line(stream: Any) -> str:
        ready, _, _ = select.select([stream], [], [], WAIT_S)
        return stream.readline() if ready else ""

    def stop(self, number=signal.SIGTERM):
        """Sends the signal; returns (status, the rest of standard output, standard error)."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def runner():
    """runner(kind, *options, cwd=..., python=None) -> CompletedProcess: runs a program of the runner to its end, by
    another Python where that is given."""
    with ForkServer() as forks:

        def run(kind, *options, package="fusion", python=None, cwd=ROOT):
            words = [str(option) for option in options]
            if python is None:
                return forks.run(f"{package}.{kind}", words, cwd, WAIT_S)
            command = [python, "-m", f"{package}.{kind}", *words]
            return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=WAIT_S)

        yield run


@pytest.fixture(scope="session")
def data(bundle):
    """The images, uint8 (16, 8, 6, 3), and their labels."""
    with np.load(bundle / "data.npz") as arrays:
        return arrays["x_test"], arrays["y_test"]


@pytest.fixture(scope="session")
def reference(bundle, data):
    """The logits by NumPy alone: reference(start, stop) is the part of these channels, (16, 4)."""
    with np.load(bundle / "weights.npz") as arrays:
        kernel, dense = arrays["kernel"], arrays["dense"]

    def logits(start, stop):
        padded = np.pad(data[0] / 255.0, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # type: ignore[call-overload]
        features = np.einsum("nhwcij,ijco->nhwo", windows, kernel[..., start:stop])
        return np.maximum(features, 0).mean(axis=(1, 2)) @ dense[start:stop]

    return logits


@pytest.fixture
def altered(bundle, tmp_path):
    """altered(change): a copy of the bundle, its manifest changed by the function in place."""

    def copy(change):
        folder = tmp_path / f"altered{len(list(tmp_path.iterdir()))}"
        shutil.copytree(bundle, folder)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps(change(manifest) or manifest))
        return folder

    return copy


@pytest.fixture
def altered_outputs(altered):
    """altered_outputs(key, place, shift): a copy of the bundle whose expected output of a file for the second sample is
    off by some steps there."""

    def copy(key, place, shift):
        def change(data):
            with np.load(folder / "samples" / "outputs.npz") as file:
                outputs = dict(file)
            for one in {key, f"{key}/arm"} & set(outputs):
                outputs[one][1, place] += shift
            np.savez(folder / "samples" / "outputs.npz", **outputs)
            stored = (folder / "samples" / "outputs.npz").read_bytes()
            data["sample_outputs"] |= {"sha256": hashlib.sha256(stored).hexdigest(), "bytes": len(stored)}

        folder = altered(lambda data: None)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        return folder

    return copy


@contextlib.contextmanager
def _starter():
    with contextlib.ExitStack() as stack:

        def start(kind, *options, **more):
            program = Program(kind, *options, **more)
            stack.callback(program.stop)
            return program

        yield start


@pytest.fixture
def start():
    """start(kind, *options) -> Program, ended with the test."""
    with _starter() as starter:
        yield starter


@pytest.fixture(scope="module")
def start_for_module():
    """As `start`, for programs that a module's tests share."""
    with _starter() as starter:
        yield starter


@pytest.fixture(scope="session")
def start_for_session():
    """As `start`, for programs that all tests share."""
    with _starter() as starter:
        yield starter


@pytest.fixture(scope="session")
def worker(bundle, start_for_session):
    """A worker of the whole bundle, int8, with small limits. Not to be stopped."""
    limits = ("--max_batch=4", "--max_body_mb=0.01", "--threads=1")
    return start_for_session("worker", f"--bundle={bundle}", *limits)


@pytest.fixture(scope="session")
def coordinator(bundle, worker, start_for_session, tmp_path_factory):
    """A coordinator of 0.5+0.5 on two workers, with small limits. Not to be stopped."""
    other = start_for_session("worker", f"--bundle={bundle}", "--switch=0.5+0.5", "--device=1")
    path = tmp_path_factory.mktemp("cluster") / "cluster.toml"
    path.write_text(cluster_text(worker.url, other.url))
    limits = ("--max_batch=4", "--max_body_mb=0.01")
    options = (f"--bundle={bundle}", f"--cluster={path}", "--switch=0.5+0.5", *limits)
    return start_for_session("coordinator", *options)


def cluster_text(*urls, **more):
    """A cluster file of these workers, named pi-0, pi-1 ..."""
    extra = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    return "".join(f'[[device]]\nname = "pi-{i}"\nurl = "{url}"\n{extra}' for i, url in enumerate(urls))


@pytest.fixture
def cluster_file(tmp_path):
    """cluster_file(*urls, **keys) -> the path of a cluster file of these workers."""

    def write(*urls, **more):
        path = tmp_path / "cluster.toml"
        path.write_text(cluster_text(*urls, **more))
        return path

    return write


@pytest.fixture
def free_port():
    """A port of 127.0.0.1 that nothing listens on, and that nobody else is given while the test runs."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def ended():
    """ended(pids): waits until these processes, children or not, have ended."""

    def wait(pids):
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if not select.select([handle], [], [], WAIT_S)[0]:
                    os.kill(pid, signal.SIGKILL)
                    raise AssertionError(f"process {pid} is still there")
            finally:
                os.close(handle)

    return wait


@pytest.fixture(scope="session")
def curl():
    """curl(url, *options, body=None) -> (status, headers in lower case, body), by the curl program."""

    def call(url, *options, body=None):
        command = ["curl", "-s", "-i", "--max-time", str(WAIT_S), *options, url]
        if body is not None:
            command += ["-H", "Expect:", "--data-binary", "@-"]
        done = subprocess.run(command, capture_output=True, input=body)
        assert done.returncode == 0, (done.returncode, done.stderr)
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, rest

    return call
