"""One chaos run: the cluster, the proxies, the requests, the events, and the verdicts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.chaos import schedule, verdicts
from benchmarks.chaos.injector import Done, Injector
from benchmarks.chaos.oracle import Oracle
from benchmarks.chaos.proxies import Proxies
from benchmarks.chaos.verdicts import Resources, Verdict
from benchmarks.chaos.watch import Sample, Watch
from fusion.bench.load import Reply, Server, open_loop
from fusion.bundle.contents import Bundle
from fusion.local.cluster import LocalCluster
from fusion.runtime.choosing import Runtime
from fusion.security.credentials import Credentials

_IMAGES = 8
_TIMEOUT_S, _STARTUP_S = 60.0, 180.0
# How long nothing happens at the start, and nothing is asked at the end.
WARM_S, _CALM_S, _QUIET_S = 10.0, 3.0, 5.0


@dataclass(frozen=True)
class Settings:
    """Of a run: its seed and seconds, requests per second and connections, milliseconds of the coordinator's deadline,
    workers, and about how many seconds lie between events."""

    seed: int
    seconds: float
    rate: float
    connections: int
    deadline_ms: float
    workers: int
    every_s: float


@dataclass(frozen=True)
class Result:
    """What happened: events as they were carried out, a verdict per request, samples of the coordinator and what they
    say, and faults of its own status at the end, when nothing runs any more."""

    done: Sequence[Done]
    verdicts: Sequence[Verdict]
    samples: Sequence[Sample]
    resources: Resources
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        bad = any(one.what not in verdicts.GOOD for one in self.verdicts)
        return bool(self.verdicts) and not (bad or self.resources.faults or self.left)


def run(
    bundle: Bundle,
    precision: str,
    runtime: Runtime,
    settings: Settings,
    progress: Callable[[str], None],
    coordinator_options: Sequence[str] = (),
) -> Result:
    """Runs a cluster of this machine for so long, and judges it.

    Args:
      bundle, precision, runtime: what the workers serve.
      settings: as they say.
      progress: is told how far it is.
      coordinator_options: more of the coordinator's command line.

    Raises `UserError` where the cluster does not come up, or a worker does not come back.
    """
    images = np.random.default_rng(settings.seed).integers(0, 256, (_IMAGES, *bundle.shape), dtype=np.uint8)
    progress("computing what the slices give in this process")
    oracle = Oracle(bundle, precision, runtime, images)
    progress("starting workers, proxies and the coordinator")
    fronts: list[Proxies] = []

    def front(urls: Sequence[str]) -> Sequence[str]:
        fronts.append(Proxies(urls))
        return fronts[0].urls

    cluster = LocalCluster(
        bundle,
        None,
        precision,
        runtime.name,
        startup_timeout_s=_STARTUP_S,
        workers=settings.workers,
        coordinator_options=[f"--deadline_ms={settings.deadline_ms:g}", *coordinator_options],
        front=front,
    )
    try:
        with cluster:
            return _run(cluster, fronts[0], oracle, images, settings, progress)
    finally:
        for proxies in fronts:
            proxies.close()


def _run(
    cluster: LocalCluster,
    proxies: Proxies,
    oracle: Oracle,
    images: np.ndarray,
    settings: Settings,
    progress: Callable[[str], None],
) -> Result:
    server = Server(cluster.url, Credentials(), _TIMEOUT_S)
    found: list[tuple[Reply, str | None]] = []
    lock = threading.Lock()
    began = time.perf_counter()

    def take(reply: Reply) -> None:
        fault = verdicts.fault_of(oracle, reply)
        with lock:
            found.append((reply, fault))
            if len(found) % max(1, round(10 * settings.rate)) == 0:
                progress(f"{time.perf_counter() - began:.0f} s, {len(found)} requests")

    events = schedule.make(settings.seed, WARM_S, settings.seconds - _CALM_S, settings.workers, settings.every_s)
    injector = Injector(cluster, proxies, settings.workers, 2 * settings.deadline_ms / 1e3, began)
    done: list[Done] = []
    with Watch(cluster.pids[-1], began) as watch:
        failed: list[BaseException] = []

        def attack() -> None:
            try:
                done.extend(injector.carry_out(events))
            except BaseException as error:
                failed.append(error)

        attacker = threading.Thread(target=attack, daemon=True)
        attacker.start()
        open_loop(server, images, settings.rate, settings.connections, settings.seconds, take)
        attacker.join()
        if failed:
            raise failed[0]
        quiet = time.perf_counter() - began
        time.sleep(_QUIET_S)
        left = _left(server.status())
    judged = [
        verdicts.judge(reply, fault, began, settings.deadline_ms, done, settings.workers) for reply, fault in found
    ]
    resources = verdicts.resources(watch.samples, WARM_S / 2, quiet + 1)
    return Result(done, sorted(judged, key=lambda one: one.at), watch.samples, resources, left)


def _left(status: Mapping[str, Any]) -> tuple[str, ...]:
    """What a coordinator of which nothing is asked still has in hand."""
    faults = []
    running = (status.get("requests") or {}).get("running", 0)
    if running:
        faults.append(f"the coordinator says that {running} requests run when nothing is asked")
    for device in status.get("devices") or []:
        if device.get("inflight"):
            faults.append(f"the coordinator says that {device.get('inflight')} requests of {device.get('name')} run")
    return tuple(faults)
