"""A process that carries the packets of a network in user space, between interfaces of this machine.

Each machine has a TUN interface, whose other end is a file of this process. So it works with any kernel that has TUN,
with or without its emulation of networks, and it tells how many bytes there were.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import multiprocessing
import os
import random
import select
import signal
import struct
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from benchmarks.networks.links import MOST_PACKETS, Link, Traffic
from fusion.base.program import UserError

_START_S = 60.0
# Of linux/if_tun.h.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_LARGEST = 65535
_TARGET_ADDRESS = slice(16, 20)


class Relay:
    """The process, and the interfaces that it makes; a context manager.

    Args:
      interfaces: their names, of at most 15 characters; interface i is machine i.
      addresses: the IPv4 address of each, as 4 bytes.
      link: the network between them, until `use` changes it.
      seed: draws losses and jitter.

    The interfaces go when the process ends, as it does with the block and when this process is killed. Raises
    `UserError` where they cannot be made.
    """

    def __init__(self, interfaces: Sequence[str], addresses: Sequence[bytes], link: Link, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (list(interfaces), list(addresses), link, seed, theirs)
        self._process = context.Process(target=_main, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        try:
            answer = self._pipe.recv() if self._pipe.poll(_START_S) else f"it was not ready within {_START_S:g} s"
        except EOFError:
            answer = "it ended at the start"
        if answer != "ready":
            self.close()
            raise UserError(f"the process that carries packets: {answer}.")

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()

    def use(self, link: Link) -> None:
        """Packets that come from now on are carried as this network does."""
        self._pipe.send(link)
        self._pipe.recv()

    def carried(self) -> tuple[int, int, int]:
        """So far: bytes from machine 0, bytes to it, and packets lost or dropped; bytes with the headers of IP and TCP,
        of all packets that were sent."""
        self._pipe.send(None)
        counts: tuple[int, int, int] = self._pipe.recv()
        return counts


def _main(interfaces: list[str], addresses: list[bytes], link: Link, seed: int, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        files = [_open(name) for name in interfaces]
    except OSError as error:
        pipe.send(f"interface {interfaces[0]!r} cannot be made: {error.strerror}")
        return
    pipe.send("ready")
    _carry(files, {address: i for i, address in enumerate(addresses)}, Traffic(link, random.Random(seed)), pipe)


def _open(interface: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI))
    return file


def _carry(files: list[int], machines: dict[bytes, int], traffic: Traffic, pipe: Connection) -> None:
    coming: list[tuple[float, int, int, bytes]] = []
    numbers = itertools.count()
    out, back, lost = 0, 0, 0
    while True:
        now = time.perf_counter()
        while coming and coming[0][0] <= now:
            _, _, target, packet = heapq.heappop(coming)
            _write(files[target], packet)
        timeout = max(0.0, coming[0][0] - time.perf_counter()) if coming else None
        for file in select.select([*files, pipe.fileno()], [], [], timeout)[0]:
            if file == pipe.fileno():
                try:
                    link = pipe.recv()
                    traffic = traffic if link is None else Traffic(link, traffic.rng)
                    pipe.send((out, back, lost))
                except (EOFError, OSError):
                    return
                continue
            source = files.index(file)
            packet = _read(file)
            target_ = machines.get(packet[_TARGET_ADDRESS]) if packet and packet[0] >> 4 == 4 else None
            if target_ is None:
                continue
            out, back = out + len(packet) * (source == 0), back + len(packet) * (target_ == 0)
            at = None
            if len(coming) < MOST_PACKETS:
                at = traffic.arrival(time.perf_counter(), source, target_, len(packet))
            if at is None:
                lost += 1
            else:
                heapq.heappush(coming, (at, next(numbers), target_, packet))


def _read(file: int) -> bytes:
    try:
        return os.read(file, _LARGEST)
    except OSError:
        # Of an interface that is not up yet, or is gone.
        return b""


def _write(file: int, packet: bytes) -> None:
    try:
        os.write(file, packet)
    except OSError:
        # As on a cable that nobody listens to.
        return
