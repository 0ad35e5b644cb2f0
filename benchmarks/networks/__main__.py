"""Measures clusters whose workers sit behind slow, late and lossy networks: latency and bytes by switch and precision.

    python -m benchmarks.networks --bundle=build/resnet50_224 --precision=int8,float32 \
        --target=benchmarks/results/networks_resnet50_224

Needs root: each worker runs in a network namespace of its own. The client is at the coordinator. See METHODOLOGY.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.conditions import write_csv
from benchmarks.networks.links import ETHERNET, WIFI, Link
from benchmarks.networks.namespaces import Network, network
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.bench.load import Attempt, Target
from fusion.bench.phases import slowest_invoke_ms
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.local.cluster import LocalCluster, Python
from fusion.local.cores import place
from fusion.runtime import choosing as runtime
from fusion.runtime import timing
from fusion.security.credentials import Credentials
from paradis_tf.base import program

_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_PRECISION = flags.DEFINE_list("precision", None, "Precisions to measure; by default the first of the bundle.")
_SWITCHES = flags.DEFINE_list("switches", None, "The switches to measure; default: all of the bundle.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_RUNS = flags.DEFINE_integer("runs", 50, "Images of each switch, precision and network.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Draws losses, jitter and the images.", 0)
_TARGET = define_path("target", None, "Writes NAME.csv, NAME.png and NAME.svg.")

LOOPBACK = Link("loopback")
_BLOCK = 5
_IMAGES = 8
# So late that no answer is degraded: it is the network's time that is asked for.
_DEADLINE_MS = 30_000

_HEADER = (
    "precision",
    "switch",
    "network",
    "images",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "invoke_p50_ms",
    "bytes_to_workers",
    "bytes_from_workers",
    "packets_lost",
)


@dataclass
class NetworkTimes:
    """What a switch took on a network: its requests, and of all of them bytes to and from all workers and packets lost;
    None on loopback, where nobody counts."""

    link: Link
    attempts: list[Attempt]
    carried: np.ndarray | None


def main(argv: list[str]) -> None:
    if _TARGET.value and not os.path.isdir(os.path.dirname(_TARGET.value) or "."):
        raise UserError(f"--target={_TARGET.value}: its folder is not there; legal: a name in a folder that is.")
    bundle = manifest.load(_BUNDLE.value)
    precisions = [bundle.check_precision(name) for name in _PRECISION.value or [None]]
    switches = [bundle.find_switch(text) for text in _SWITCHES.value or [entry.switch for entry in bundle.switches]]
    chosen = runtime.choose(_RUNTIME.value)
    rows = _rows(bundle, switches, list(dict.fromkeys(precisions)))
    with results() as write:
        if _TARGET.value:
            write(_write, Path(_TARGET.value), rows, bundle.name, str(chosen))
        print(f"{bundle.name}, {chosen}; latency of one image, ms; bytes of an image on all links together")
        print("\n".join(str(link) for link in (ETHERNET, WIFI)))
        print(columns.render([name.replace("_", " ") for name in _HEADER], rows))


def _write(target: Path, rows: Sequence[tuple[Any, ...]], bundle: str, runtime_name: str) -> None:
    from benchmarks.networks import picture

    links = "; ".join(str(link) for link in (ETHERNET, WIFI))
    options = {"bundle": bundle, "runtime": runtime_name, "threads": 1, "networks": links}
    write_csv(target.with_name(target.name + ".csv"), _HEADER, rows, options)
    picture.draw([dict(zip(_HEADER, row, strict=True)) for row in rows], f"{bundle}, {runtime_name}", target)


def _rows(bundle: Bundle, switches: Sequence[SwitchEntry], precisions: Sequence[str]) -> list[tuple[Any, ...]]:
    """Measures every precision and switch, in namespaces for as many workers as the largest has."""
    images = np.random.default_rng(_SEED.value).integers(0, 256, (_IMAGES, *bundle.shape), dtype=np.uint8)
    rows = []
    with network(max(len(entry.slices) for entry in switches), ETHERNET, _SEED.value) as joined:
        for precision in precisions:
            for entry in switches:
                print(f"{precision}, switch {entry.switch}", file=sys.stderr, flush=True)
                with _clusters(bundle, entry.switch, precision, joined) as (near, far):
                    times = asyncio.run(_measure(near, far, joined, images))
                rows += [_row(precision, entry.switch, on_link) for on_link in times]
    return rows


@contextlib.contextmanager
def _clusters(bundle: Bundle, switch: str, precision: str, joined: Network) -> Iterator[tuple[Target, Target]]:
    """The same cluster twice: on loopback, and with its workers in the namespaces."""
    count = len(bundle.find_switch(switch).slices)
    placement = place(sorted(os.sched_getaffinity(0)), count)
    patient = [f"--deadline_ms={_DEADLINE_MS}", f"--request_timeout_s={2 * _DEADLINE_MS / 1e3:g}"]

    def cluster(**more: Any) -> LocalCluster:
        return LocalCluster(
            bundle, switch, precision, _RUNTIME.value, placement=placement, coordinator_options=patient, **more
        )

    def front(urls: Sequence[str]) -> list[str]:
        ports = [url.rsplit(":", 1)[1] for url in urls]
        return [f"http://{address}:{port}" for address, port in zip(joined.addresses, ports, strict=False)]

    options = [["--host=0.0.0.0", "--insecure"]] * count
    pythons = [Python((*prefix, sys.executable)) for prefix in joined.prefixes]
    distant = cluster(worker_pythons=pythons, own_worker_options=options, front=front)
    # They start on the faster network.
    joined.relay.use(ETHERNET)
    with cluster() as near, distant as far:
        yield Target(near.url, Credentials()), Target(far.url, Credentials())


async def _measure(near: Target, far: Target, joined: Network, images: np.ndarray) -> list[NetworkTimes]:
    """Each network in turn, some images at a time."""
    times = [NetworkTimes(LOOPBACK, [], None), *(NetworkTimes(link, [], np.zeros(3)) for link in (ETHERNET, WIFI))]
    timeline = {"timeline": True}
    async with near.asking(images, timeline) as ask_near, far.asking(images, timeline) as ask_far:
        for first in range(0, _RUNS.value, _BLOCK):
            for on_link in times:
                ask = ask_near if on_link.carried is None else ask_far
                if on_link.carried is not None:
                    joined.relay.use(on_link.link)
                await ask(0)
                before = np.array(joined.relay.carried())
                for i in range(first, min(_RUNS.value, first + _BLOCK)):
                    attempt = await ask(i)
                    if attempt.status != 200:
                        raise UserError(f"{on_link.link}: a request was answered {attempt.status}: {attempt.error}")
                    on_link.attempts.append(attempt)
                if on_link.carried is not None:
                    on_link.carried += np.array(joined.relay.carried()) - before
    return times


def _row(precision: str, switch: str, on_link: NetworkTimes) -> tuple[Any, ...]:
    count = len(on_link.attempts)
    total = timing.of([attempt.ended - attempt.started for attempt in on_link.attempts])
    invoke = timing.of([slowest_invoke_ms(attempt) / 1e3 for attempt in on_link.attempts])
    counts: list[Any] = ["", "", ""]
    if on_link.carried is not None:
        to, back, lost = on_link.carried
        counts = [round(to / count), round(back / count), int(lost)]
    times = [round(value / 1e3, 2) for value in (total.p50, total.p95, total.p99, invoke.p50)]
    return (precision, switch, on_link.link.name, count, *times, *counts)


if __name__ == "__main__":
    program.run(main)
