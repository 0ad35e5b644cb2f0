"""One chaos run: the cluster, the proxies, the requests, the events, and the verdicts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.chaos import resources, schedule, verdicts
from benchmarks.chaos.injector import Incident, Injector
from benchmarks.chaos.oracle import Oracle
from benchmarks.chaos.proxies import Proxies
from benchmarks.chaos.resources import Resources, ResourceSample, ResourceWatch
from benchmarks.chaos.verdicts import Verdict
from fusion.asking.client import FusionClient
from fusion.bench.load import Attempt, Target, ask_all
from fusion.bundle.contents import Bundle
from fusion.local.cluster import LocalCluster
from fusion.runtime.choosing import Runtime
from fusion.security.credentials import Credentials

_IMAGES = 8
# How long nothing happens at the start, and nothing is asked at the end.
WARM_S, _CALM_S, _QUIET_S = 10.0, 3.0, 5.0


@dataclass(frozen=True)
class ChaosSettings:
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
    """What happened: events as they were carried out, a verdict per request, what the coordinator held, and faults
    of its own status at the end, when nothing runs any more."""

    incidents: Sequence[Incident]
    verdicts: Sequence[Verdict]
    samples: Sequence[ResourceSample]
    resources: Resources
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        bad = any(verdict.what not in verdicts.GOOD for verdict in self.verdicts)
        return bool(self.verdicts) and not (bad or self.resources.faults or self.left)


def run(
    bundle: Bundle,
    precision: str,
    runtime: Runtime,
    settings: ChaosSettings,
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
    settings: ChaosSettings,
    progress: Callable[[str], None],
) -> Result:
    target = Target(cluster.url, Credentials())
    judged: list[tuple[Attempt, str | None]] = []
    began = time.perf_counter()

    async def send() -> None:
        async with target.asking(images, {}) as ask:

            async def ask_and_judge(number: int) -> Attempt:
                attempt = await ask(number)
                judged.append((attempt, verdicts.fault_of(oracle, attempt)))
                if len(judged) % max(1, round(10 * settings.rate)) == 0:
                    progress(f"{time.perf_counter() - began:.0f} s, {len(judged)} requests")
                return attempt

            await ask_all(ask_and_judge, settings.connections, settings.seconds, settings.rate)

    events = schedule.make(settings.seed, WARM_S, settings.seconds - _CALM_S, settings.workers, settings.every_s)
    injector = Injector(cluster, proxies, settings.workers, 2 * settings.deadline_ms / 1e3, began)
    with ResourceWatch(cluster.pids[-1], began) as watch, ThreadPoolExecutor(1) as pool:
        attack = pool.submit(injector.carry_out, events)
        asyncio.run(send())
        incidents = attack.result()
        quiet = time.perf_counter() - began
        time.sleep(_QUIET_S)
        with FusionClient(cluster.url, Credentials()) as client:
            left = _left(client.status())
    all_verdicts = [
        verdicts.judge(attempt, fault, began, settings.deadline_ms, incidents, settings.workers)
        for attempt, fault in judged
    ]
    held = resources.compare(watch.samples, WARM_S / 2, quiet + 1)
    return Result(incidents, sorted(all_verdicts, key=lambda verdict: verdict.at), watch.samples, held, left)


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
