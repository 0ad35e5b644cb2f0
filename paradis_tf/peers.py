"""Watches the other machines of a training, so that none waits for ever for one that has gone."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import NoReturn

from paradis_tf.strategy import Cluster

_PROBE_EVERY_S = 1.0
# How long a peer that has answered before may fail to answer until it counts as gone.
_GONE_AFTER_S = 8.0


class PeerWatch:
    """Asks each peer's port once a second whether it is open, in a thread of its own.

    TensorFlow waits in native code for peers that never come, and in a collective operation for one that was lost on
    the network, where no exception reaches. A peer that is not there within `timeout_s`, or that no longer answers,
    therefore ends the process, with a sentence that names its address and exit status 2. Source: ours.

    Args:
      cluster: the machines.
      timeout_s: how long to wait for peers at the start, in seconds.
    """

    def __init__(self, cluster: Cluster, timeout_s: float) -> None:
        self.cluster = cluster
        self.timeout_s = timeout_s
        self._began = time.monotonic()
        self._answered: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; from now on peers may leave."""
        self._stop.set()
        self._thread.join()

    def end(self, reason: BaseException) -> NoReturn:
        """Ends the process after an operation has failed that all workers take part in, naming the peer that has gone
        or, if all are still there, the reason."""
        deadline = time.monotonic() + _GONE_AFTER_S
        while time.monotonic() < deadline:
            for address in self.cluster.peers:
                if not _answers(address):
                    _end(self._gone(address) if address in self._answered else self._absent(address))
            time.sleep(_PROBE_EVERY_S)
        lines = str(reason).strip().splitlines()
        _end(f"the workers have lost each other: {lines[0] if lines else type(reason).__name__}")

    def _run(self) -> None:
        while not self._stop.wait(_PROBE_EVERY_S):
            for address in self.cluster.peers:
                if self._stop.is_set():
                    return
                if _answers(address):
                    self._answered[address] = time.monotonic()
                elif address in self._answered:
                    if time.monotonic() - self._answered[address] > _GONE_AFTER_S:
                        _end(self._gone(address))
                elif time.monotonic() - self._began > self.timeout_s:
                    _end(self._absent(address))

    def _absent(self, address: str) -> str:
        return (
            f"worker {self._place(address)} at {address} was not there within {time.monotonic() - self._began:.0f} s; "
            "start the program on every machine of TF_CONFIG at about the same time, or raise --peer_timeout."
        )

    def _gone(self, address: str) -> str:
        return (
            f"worker {self._place(address)} at {address} has gone, its own output says why; start all workers again to "
            "resume after the last finished epoch."
        )

    def _place(self, address: str) -> int:
        return self.cluster.addresses.index(address)


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return True
    except OSError:
        return False


def _end(sentence: str) -> NoReturn:
    # Not by an exception: the main thread may be in native code that never comes back, and so may its destructors.
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)
