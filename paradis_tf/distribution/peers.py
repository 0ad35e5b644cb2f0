"""Meets the other machines of a training and watches them, so that none waits for ever for one that is not there."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import NoReturn

from fusion.base.program import UserError
from paradis_tf.distribution.strategy import TrainingCluster

_PROBE_EVERY_S = 1.0
# How long a peer may fail to answer until it counts as gone.
_GONE_AFTER_S = 8.0


def meet(cluster: TrainingCluster, timeout_s: float) -> None:
    """Returns when the ports of all peers are open, holding this worker's own port open meanwhile.

    TensorFlow waits in native code for peers that never come, and lets no thread of Python's run; so they are met
    before it is asked to connect.

    Args:
      cluster: the machines.
      timeout_s: how long to wait, in seconds.

    Raises:
      UserError: this worker's port is taken, or a peer is not there in time.
    """
    own = cluster.addresses[cluster.index]
    missing = list(cluster.peers)
    deadline = time.monotonic() + timeout_s
    try:
        listener = _listen(int(own.rsplit(":", 1)[1]))
    except OSError as error:
        raise UserError(f"worker {cluster.index} cannot listen on {own}: {error.strerror}.") from None
    with listener:
        listener.settimeout(0.1)
        while True:
            missing = [address for address in missing if not _answers(address)]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise UserError(
                    f"worker {cluster.addresses.index(missing[0])} at {missing[0]} was not there within {timeout_s:g} "
                    "s; start the program on every machine of TF_CONFIG, or raise --peer_timeout."
                )
            try:
                listener.accept()[0].close()
            except TimeoutError:
                time.sleep(_PROBE_EVERY_S / 4)


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


class PeerWatch:
    """Asks each peer's port once a second whether it is open, in a thread of its own.

    A collective operation may wait for ever for a peer that the network has lost, where no exception reaches. A peer
    that no longer answers therefore ends the process, with a sentence that names its address and exit status 2.

    Args:
      cluster: the machines; all peers have answered before.
    """

    def __init__(self, cluster: TrainingCluster) -> None:
        self.cluster = cluster
        self._answered = dict.fromkeys(cluster.peers, time.monotonic())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
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
                    self._end_without(address)
            time.sleep(_PROBE_EVERY_S)
        lines = str(reason).strip().splitlines()
        _end(f"the workers have lost each other: {lines[0] if lines else type(reason).__name__}")

    def _run(self) -> None:
        while not self._stop.wait(_PROBE_EVERY_S):
            for address in self.cluster.peers:
                if _answers(address):
                    self._answered[address] = time.monotonic()
                elif time.monotonic() - self._answered[address] > _GONE_AFTER_S and not self._stop.is_set():
                    self._end_without(address)

    def _end_without(self, address: str) -> NoReturn:
        _end(
            f"worker {self.cluster.addresses.index(address)} at {address} has gone, its own output says why; start all "
            "workers again to resume after the last finished epoch."
        )


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
