"""Times what a cluster's bytes take on this machine's loopback by bare sockets: the least overhead there can be.

    python -m benchmarks.sockets --csv=benchmarks/results/sockets_4cores.csv

A client sends an image to a coordinator, and that sends it to every worker; a worker is busy for as long as a slice
takes, then answers with as many bytes as one does; then the coordinator answers. No HTTP, no JSON, no event loop, and
nobody looks at what came. On the cores that `fusion.bench` uses. See METHODOLOGY.md.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.conditions import write_csv
from fusion.base import columns
from fusion.bench.cores import place
from fusion.local.pinning import pinned
from fusion.runtime import timing
from paradis_tf.base import program

_WORKERS = flags.DEFINE_multi_integer("workers", [1, 2, 4], "How many workers.", 1, 64)
_INVOKE_MS = flags.DEFINE_multi_float("invoke_ms", [3.0, 12.0, 30.0], "Milliseconds that a worker is busy.", 0.0, 1e4)
_IMAGE_BYTES = flags.DEFINE_integer("image_bytes", 224 * 224 * 3, "Bytes of an image.", 1, 1 << 30)
_RUNS = flags.DEFINE_integer("runs", 300, "Timed images of each.", 2, 1_000_000)
_CSV = flags.DEFINE_string("csv", "", "File to write the medians to.")

_COLUMNS = ("workers", "invoke_ms", "p50_ms", "overhead_ms", "placement")
# Those of `fusion.bench` with a network of 1,000 classes.
_PARTIAL_BYTES, _ANSWER_BYTES = 1_300, 4_700
_UNTIMED = 20


def main(argv: list[str]) -> None:
    rows = []
    for workers in _WORKERS.value:
        placement = place(sorted(os.sched_getaffinity(0)), workers)
        for invoke_ms in _INVOKE_MS.value:
            with contextlib.ExitStack() as stack:
                ports = []
                for core in (placement.workers * workers)[:workers]:
                    worker = _started([core], _work, _IMAGE_BYTES.value, invoke_ms / 1e3)
                    ports.append(stack.enter_context(worker))
                coordinator = _started(placement.coordinator, _coordinate, _IMAGE_BYTES.value, ports)
                port = stack.enter_context(coordinator)
                with pinned(placement.client):
                    p50 = _asked(port, _IMAGE_BYTES.value, _RUNS.value).p50 / 1e3
            rows.append((workers, invoke_ms, round(p50, 3), round(p50 - invoke_ms, 3), placement.said))
    print(columns.render(_COLUMNS, rows))
    if _CSV.value:
        write_csv(Path(_CSV.value), _COLUMNS, rows, {"image_bytes": _IMAGE_BYTES.value, "runs": _RUNS.value})


@contextlib.contextmanager
def _started(cores: Sequence[int], serve: Callable[..., None], *arguments: Any) -> Iterator[int]:
    """The port of a process on these cores, which serves one connection; it is ended after the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        # It inherits the listener.
        process = multiprocessing.get_context("fork").Process(target=serve, args=(listener, *arguments), daemon=True)
        with pinned(cores):
            process.start()
    try:
        yield port
    finally:
        process.kill()
        process.join()


def _work(listener: socket.socket, image_bytes: int, invoke_s: float) -> None:
    with _accepted(listener) as connection:
        image = bytearray(image_bytes)
        while _received(connection, image):
            until = time.perf_counter() + invoke_s
            while time.perf_counter() < until:
                pass
            connection.sendall(bytes(_PARTIAL_BYTES))


def _coordinate(listener: socket.socket, image_bytes: int, ports: Sequence[int]) -> None:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_connected(port)) for port in ports]
        connection = stack.enter_context(_accepted(listener))
        image, partial = bytearray(image_bytes), bytearray(_PARTIAL_BYTES)
        while _received(connection, image):
            for worker in workers:
                worker.sendall(image)
            for worker in workers:
                _received(worker, partial)
            connection.sendall(bytes(_ANSWER_BYTES))


def _asked(port: int, image_bytes: int, runs: int) -> timing.Timing:
    """How long the coordinator's answers take."""
    image, answer = bytes(image_bytes), bytearray(_ANSWER_BYTES)
    with _connected(port) as connection:

        def ask() -> None:
            connection.sendall(image)
            _received(connection, answer)

        timing.measure(ask, _UNTIMED)
        return timing.measure(ask, runs)


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _accepted(listener: socket.socket) -> socket.socket:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _received(connection: socket.socket, data: bytearray) -> bool:
    """Fills `data`; False where the connection ends before."""
    rest = memoryview(data)
    while rest:
        count = connection.recv_into(rest)
        if not count:
            return False
        rest = rest[count:]
    return True


if __name__ == "__main__":
    program.run(main)
