"""A minute of a cluster's life: a device dies, a switch that does without it takes over, the device comes back.

One device has memory for half of the network, the others for a quarter each, as boards of uneven strength have. While
all are there, the large one and two of the others run a switch of one half and two quarters. Without it nobody has room
for a half, and the others run four quarters of the same weights.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fusion.asking.client import FusionClient
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from fusion.local.cluster import LocalCluster
from fusion.runtime import memory
from fusion.security.credentials import Credentials

LARGE = "worker-0"
"""The device that dies."""
KILLED, STARTED = f"{LARGE} is killed", f"{LARGE} is started again"
_REPORT_S = 5.0
# Long enough for every switch, however busy the machine.
_DEADLINE_MS = 5000.0


@dataclass(frozen=True)
class Script:
    """What happens when, in seconds.

    Attributes:
      kill_s: the large device is killed.
      down_s: so long after that it is started again.
      after_s: all ends so long after what ran before it died runs again.
      longest_s: it ends then at the latest.
      rate: requests a second, which are sent one after the other.
    """

    kill_s: float = 12.0
    down_s: float = 6.0
    after_s: float = 15.0
    longest_s: float = 60.0
    rate: float = 5.0


@dataclass(frozen=True)
class LifeRequest:
    """One request: when it was sent, in seconds, and how long it took, in ms; of its answer the switch, the devices and
    whether slices are missing. Without an answer `switch` is empty."""

    at_s: float
    ms: float
    switch: str = ""
    devices: tuple[str, ...] = ()
    degraded: bool = False


@dataclass(frozen=True)
class LifeEvent:
    """What happened, and when."""

    at_s: float
    text: str


@dataclass
class Life:
    """What was seen.

    Attributes:
      memory_bytes: by device, what its loaded slices may take.
      requests: in the order they were sent.
      events: in the order they happened.
      seconds: how long it was.
    """

    memory_bytes: Mapping[str, int]
    requests: list[LifeRequest] = field(default_factory=list)
    events: list[LifeEvent] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def answers(self) -> list[LifeRequest]:
        return [request for request in self.requests if request.switch]

    def summary(self) -> str:
        """What became of the requests, in a sentence."""
        answers, lost = self.answers, len(self.requests) - len(self.answers)
        if not answers:
            return f"{lost} requests, none answered"
        degraded = sum(answer.degraded for answer in answers)
        median, longest = statistics.median(a.ms for a in answers), max(a.ms for a in answers)
        return (
            f"{len(self.requests)} requests: {lost} lost, {degraded} with slices missing, "
            f"median {median:.0f} ms, longest {longest:.0f} ms"
        )


def watch(
    bundle: Bundle,
    switch: str,
    precision: str,
    runtime: str,
    script: Script,
    say: Callable[[str], None],
) -> Life:
    """Runs a cluster and sends it requests while its large device dies and comes back.

    It serves the bundle's switches of at most as many multiply-adds as `switch`: what runs is then a matter of who is
    there, and not of how busy this machine is.

    Args:
      bundle: has `switch`, a switch of narrower slices, and one of a wider slice than any of `switch`.
      switch: what is to run while all devices are there: the large one has no memory for a wider slice than its widest.
      precision, runtime: what the workers serve, and on what.
      script: what happens.
      say: is told each change as it happens.

    Raises:
      UserError: the cluster does not come up.
    """
    limits = _memory_limits(bundle, switch, precision)
    options = [[f"--memory_limit_mb={limit / 1e6:.6f}"] for limit in limits.values()]
    with contextlib.ExitStack() as stack:
        cluster = LocalCluster(
            stack.enter_context(_up_to(bundle, switch)),
            None,
            precision,
            runtime,
            workers=len(limits),
            own_worker_options=options,
            # The more devices, the less accurate the switch: each moment shows the best that those which are there can.
            coordinator_options=["--accuracy_loss=0", f"--deadline_ms={_DEADLINE_MS:g}"],
        )
        client = FusionClient(stack.enter_context(cluster).url, Credentials())
        life = Life(limits)
        say("memory for slices: " + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in limits.items()))
        _Observer(cluster, stack.enter_context(client), switch, bundle.read_samples()[0][0], script, life, say).run()
    return life


class _Observer:
    """Sends the requests, does in another thread what the script says, and writes both down in `life`."""

    def __init__(
        self,
        cluster: LocalCluster,
        client: FusionClient,
        switch: str,
        image: np.ndarray,
        script: Script,
        life: Life,
        say: Callable[[str], None],
    ) -> None:
        self._cluster, self._client, self._switch, self._image = cluster, client, switch, image
        self._script, self._life, self._say = script, life, say
        self._over, self._restarted = threading.Event(), threading.Event()
        self._started = time.monotonic()

    def run(self) -> None:
        with ThreadPoolExecutor(1) as thread:
            disturbance = thread.submit(self._disturb)
            try:
                self._send_all()
            finally:
                self._over.set()
            disturbance.result()
        self._life.seconds = self._now()

    def _now(self) -> float:
        return time.monotonic() - self._started

    def _note(self, text: str) -> None:
        self._life.events.append(LifeEvent(self._now(), text))
        self._say(f"{self._now():5.1f} s  {text}")

    def _disturb(self) -> None:
        if self._over.wait(self._script.kill_s):
            return
        self._note(KILLED)
        self._cluster.signal(0, signal.SIGKILL)
        if self._over.wait(self._script.down_s):
            return
        self._note(STARTED)
        self._restarted.set()
        try:
            self._cluster.restart(0)
        except UserError:
            self._over.set()
            raise

    def _send_all(self) -> None:
        pause, due, reported, running, end = 1 / self._script.rate, 0.0, 0.0, "", self._script.longest_s
        while self._now() < end and not self._over.is_set():
            time.sleep(max(0.0, due - self._now()))
            # After a long answer it goes on at its rate, and does not make up for what was not sent.
            due = max(due, self._now() - pause) + pause
            request = self._send()
            self._life.requests.append(request)
            if request.switch not in ("", running):
                running = request.switch
                self._note(f"now {running} on {', '.join(sorted(set(request.devices)))}")
            if self._restarted.is_set() and request.switch == self._switch:
                self._restarted.clear()
                end = min(end, self._now() + self._script.after_s)
            if self._now() >= reported + _REPORT_S:
                self._report(reported)
                reported = self._now()

    def _send(self) -> LifeRequest:
        sent = self._now()
        try:
            answer = self._client.infer(self._image)
        except UserError as error:
            self._note(f"a request is not answered: {error}")
            return LifeRequest(sent, 1e3 * (self._now() - sent))
        devices = tuple(filter(None, str(answer.parameters["devices"]).split(",")))
        ms = 1e3 * (self._now() - sent)
        return LifeRequest(sent, ms, str(answer.parameters["switch"]), devices, answer.degraded)

    def _report(self, since: float) -> None:
        recent = [answer.ms for answer in self._life.answers if answer.at_s >= since]
        if recent:
            rate, now = len(recent) / (self._now() - since), self._now()
            self._say(f"{now:5.1f} s  {rate:.1f} answers/s, median {statistics.median(recent):.0f} ms")


def _memory_limits(bundle: Bundle, switch: str, precision: str) -> dict[str, int]:
    """What the devices' loaded slices may take: the first has no room for a slice wider than those of `switch`, and the
    others, as many as the switch has slices, none for its widest."""
    widest = max(slice_.madds for slice_ in bundle.find_switch(switch).slices)
    needed = [
        (slice_.madds, memory.needed(slice_.files[precision].bytes, slice_.files[precision].arena_bytes))
        for entry in bundle.switches
        for slice_ in entry.slices
    ]
    large = min((size for madds, size in needed if madds > widest), default=0) - 1
    if large < 0:
        raise UserError(f"bundle {bundle.folder} has no slice wider than those of switch {switch}.")
    small = min(size for madds, size in needed if madds >= widest) - 1
    return {LARGE: large} | {f"worker-{place + 1}": small for place in range(len(bundle.find_switch(switch).slices))}


@contextlib.contextmanager
def _up_to(bundle: Bundle, switch: str) -> Iterator[Bundle]:
    """The bundle without the switches of more multiply-adds than `switch`, for the time of a block."""
    most = bundle.find_switch(switch).madds
    content = json.loads((bundle.folder / "manifest.json").read_text("utf-8"))
    content["switches"] = [entry for entry in content["switches"] if entry["madds"] <= most]
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(bundle.folder, name, dirs_exist_ok=True)
        (Path(name) / "manifest.json").write_text(json.dumps(content), "utf-8")
        yield manifest.load(name)
