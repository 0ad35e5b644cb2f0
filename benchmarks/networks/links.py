"""Kinds of network, and when a packet of one arrives."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Link:
    """A network that joins the coordinator and all workers.

    Attributes:
      name: what it is called.
      mbit: megabits per second of each machine's port, each way; 0 for no limit.
      shared: whether all packets share one medium, as on the air, in place of ports.
      delay_ms, jitter_ms: of each packet: the mean, and the most it differs; evenly distributed.
      loss: the part of packets that get lost, 0 to 1.
    """

    name: str
    mbit: float = 0.0
    shared: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0

    def __str__(self) -> str:
        words = [f"{self.mbit:g} Mbit/s{' shared' if self.shared else ''}"] if self.mbit else []
        words += [f"{self.delay_ms:g} ms" + (f" +- {self.jitter_ms:g} ms" if self.jitter_ms else "")]
        words += [f"{self.loss:.0%} loss"] if self.loss else []
        return f"{self.name}: {', '.join(words)}"


ETHERNET = Link("Ethernet 100", mbit=100.0, delay_ms=0.1)
WIFI = Link("Wi-Fi-like", mbit=20.0, shared=True, delay_ms=3.0, jitter_ms=2.0, loss=0.01)

# Packets on their way at once; what comes beyond is dropped, as by a full switch.
MOST_PACKETS = 1000


@dataclass
class Traffic:
    """The packets on a link: when each arrives. Not thread-safe.

    Args:
      link: which network.
      rng: draws losses and jitter.

    A packet leaves by its sender's port and arrives by its receiver's, one after the other, or takes its time of the
    shared medium. Packets of one sender to one receiver stay in order.
    """

    link: Link
    rng: random.Random
    _free: dict[tuple[str, int], float] = field(default_factory=dict)
    _last: dict[tuple[int, int], float] = field(default_factory=dict)

    def arrival(self, now: float, source: int, target: int, size: int) -> float | None:
        """When `size` bytes that `source` sends to `target` at `now` arrive, in seconds; None if they get lost."""
        link = self.link
        if link.loss and self.rng.random() < link.loss:
            return None
        at = now
        if link.mbit:
            takes = 8e-6 * size / link.mbit
            for port in [("air", 0)] if link.shared else [("out", source), ("in", target)]:
                at = max(at, self._free.get(port, 0.0)) + takes
                self._free[port] = at
        at += (link.delay_ms + link.jitter_ms * self.rng.uniform(-1, 1)) / 1e3
        at = max(at, self._last.get((source, target), 0.0))
        self._last[source, target] = at
        return at
