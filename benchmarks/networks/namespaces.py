"""Network namespaces for workers, joined to this machine by a `Relay`; none is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.networks.links import Link
from benchmarks.networks.relay import Relay
from fusion.base.program import UserError

# RFC 2544 keeps these addresses for measurements.
_NETWORK = "198.18"
_NAME = re.compile(r"paradis-(\d+)-\d+")


@dataclass(frozen=True)
class Network:
    """Namespaces `names` with the workers' `addresses`, and the process that carries packets to them."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    relay: Relay

    @property
    def prefixes(self) -> list[list[str]]:
        """What runs a command inside each namespace."""
        return [["ip", "netns", "exec", name] for name in self.names]


@contextlib.contextmanager
def network(workers: int, link: Link, seed: int) -> Iterator[Network]:
    """Makes a namespace for each worker and joins them by a network; removes all at the end, also after Ctrl-C. What an
    earlier, killed process has left is removed first.

    Args:
      workers: how many, 1 to 200.
      link: the network at first.
      seed: draws losses and jitter.

    Raises `UserError` without root, without the program `ip`, or where the kernel does not do it.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise UserError("network namespaces need root and the program 'ip' (iproute2); run as root, or leave this out.")
    if not os.path.exists("/dev/net/tun"):
        raise UserError("network namespaces are joined by TUN interfaces, and this kernel has no /dev/net/tun.")
    remove_stale()
    own = os.getpid()
    names = tuple(f"paradis-{own}-{i}" for i in range(workers))
    subnet = f"{_NETWORK}.{own % 256}"
    addresses = tuple(f"{subnet}.{10 + i}" for i in range(workers))
    interfaces = [f"pd{own}", *(f"pd{own}x{i}" for i in range(workers))]
    packed = [socket.inet_aton(address) for address in (f"{subnet}.1", *addresses)]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.callback(_remove, name)
            _ip("netns", "add", name)
        relay = stack.enter_context(Relay(interfaces, packed, link, seed))
        _up([], interfaces[0], f"{subnet}.1/24")
        for name, interface, address in zip(names, interfaces[1:], addresses, strict=True):
            _ip("link", "set", interface, "netns", name)
            _up(["-n", name], interface, f"{address}/24")
            _ip("-n", name, "link", "set", "lo", "up")
        yield Network(names, addresses, relay)


def remove_stale() -> list[str]:
    """Removes the namespaces of processes that are no more; returns their names."""
    removed = []
    for line in _ip("netns", "list").splitlines():
        match = _NAME.fullmatch(line.split(" ")[0])
        if match and not os.path.exists(f"/proc/{match[1]}"):
            _remove(match[0])
            removed.append(match[0])
    return removed


def _up(where: Sequence[str], interface: str, address: str) -> None:
    _ip(*where, "addr", "add", address, "dev", interface)
    _ip(*where, "link", "set", interface, "up")


def _remove(name: str) -> None:
    with contextlib.suppress(UserError):
        _ip("netns", "del", name)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"'ip {' '.join(arguments)}' failed: {' '.join(done.stderr.split())}.")
    return done.stdout
