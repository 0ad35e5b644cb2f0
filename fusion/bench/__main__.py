"""Measures a cluster: the latency of one image by phases, throughput, and what happens when too much is asked.

  python -m fusion.bench --bundle=build/resnet50_224 --precision=int8,float32 --csv=bench.csv
  python -m fusion.bench --switches=4x0.25                                        (inside a bundle)
  python -m fusion.bench --url=http://192.168.1.10:8000 --token_file=token.txt    (a cluster that runs)

Without --url it starts a coordinator and workers for every switch on this machine, each worker on one core, and
compares them with the interpreters alone in its own process, one thread on the same cores, in turns. The images are
noise. All times are at the client: from an image to its decoded answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from ..base.columns import counted
from ..base.files import check_json_target, results, write_json, write_text
from ..base.paths import define_path
from ..base.program import LONGEST_S, UserError, define_float, run
from ..bundle import manifest
from ..bundle.contents import Bundle
from ..local.cluster import LocalCluster
from ..local.cores import place
from ..runtime import choosing as runtime
from ..runtime import machine
from ..runtime.choosing import Runtime
from ..security.credentials import Credentials
from . import measure, report
from .load import Target
from .measure import Alone, Row, Side, progress

_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_URL = flags.DEFINE_string("url", None, "Measures the coordinator at this address, and starts nothing.")
_SWITCHES = flags.DEFINE_list("switches", None, "The switches to measure; default: all of the bundle.")
_PRECISION = flags.DEFINE_list("precision", None, "Precisions to measure; by default the first of the bundle.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_RUNS = flags.DEFINE_integer("runs", 200, "Images of each switch whose latency is measured.", 1)
_CLIENTS = flags.DEFINE_list("clients", ["1", "2", "4", "8"], "Numbers of clients at once; empty leaves them out.")
_SECONDS = define_float("seconds", 6, "Seconds of each figure of throughput.", 0.1, LONGEST_S)
_OVERLOAD = define_float(
    "overload", 4, "Asks for this many times the throughput of the most clients; 0 leaves it out.", 0, 100
)
_JSON = define_path("json", None, "Also writes the figures to this file.")
_CSV = define_path("csv", None, "Also writes the figures to this file, a row per line of the tables.")
_TOKEN_FILE = define_path("token_file", None, "With --url: file with the coordinator's bearer token.")
_TLS_CA = define_path("tls_ca", None, "With --url: PEM certificates that the coordinator's must come from.")
_TLS_CERT = define_path("tls_cert", None, "With --url: PEM certificate to show to the coordinator.")
_TLS_KEY = define_path("tls_key", None, "With --url: unencrypted PEM private key of --tls_cert.")

_IMAGES = 8
_MOST_CLIENTS = 256


def main(arguments: list[str]) -> int:
    """Measures, prints and writes; returns the exit status."""
    check_json_target(_JSON.value)
    check_json_target(_CSV.value)
    clients = [_client_count(text) for text in _CLIENTS.value]
    figures = _measure_bundle(clients) if _URL.value is None else _measure_url(clients)
    with results() as write:
        if _JSON.value:
            write(write_json, _JSON.value, figures)
        if _CSV.value:
            write(write_text, _CSV.value, report.csv_text(figures))
        report.show(figures)
    return 0


def _client_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_CLIENTS):
        raise UserError(f"--clients has {text!r}; legal: numbers from 1 to {_MOST_CLIENTS}.")
    return int(text)


def _measure_url(clients: Sequence[int]) -> dict[str, Any]:
    for name in ("switches", "precision"):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} is of a cluster that this program starts; legal: without --url.")
    credentials = Credentials(_TOKEN_FILE.value, _TLS_CA.value, _TLS_CERT.value, _TLS_KEY.value)
    target = Target(_URL.value, credentials)
    switch = str(target.parameters.get("switch", "")) or "the coordinator's"
    side = Side(switch, str(target.parameters.get("precision", "")), target)
    rows = asyncio.run(_measure([side], None, clients))
    return {"name": target.name, "url": _URL.value, "conditions": _conditions(), "rows": rows}


def _measure_bundle(clients: Sequence[int]) -> dict[str, Any]:
    if _BUNDLE.value is None:
        raise UserError("--bundle is missing; legal: the folder of a bundle, or --url.")
    bundle = manifest.load(_BUNDLE.value)
    named = _SWITCHES.value or [entry.switch for entry in bundle.switches]
    switches = list(dict.fromkeys(bundle.find_switch(text).switch for text in named))
    precisions = [bundle.check_precision(name) for name in _PRECISION.value or [None]]
    chosen = runtime.choose(_RUNTIME.value)
    rows = []
    for precision in dict.fromkeys(precisions):
        progress(f"{precision}: starting workers and coordinators")
        with _sides(bundle, switches, precision, chosen) as (sides, full):
            rows += asyncio.run(_measure(sides, full, clients))
    conditions = f"{_conditions()}, {chosen}, one thread per worker"
    return {"name": bundle.name, "url": "", "conditions": conditions, "rows": rows}


@contextlib.contextmanager
def _sides(
    bundle: Bundle, switches: Sequence[str], precision: str, chosen: Runtime
) -> Iterator[tuple[list[Side], Alone | None]]:
    """A running cluster for each switch, and the full model in this process if the bundle has it."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with contextlib.ExitStack() as stack:
        sides = []
        for switch in switches:
            entry = bundle.find_switch(switch)
            placement = place(cores, len(entry.slices))
            cluster = LocalCluster(bundle, switch, precision, chosen.name, placement=placement)
            target = Target(stack.enter_context(cluster).url, Credentials())
            alone = Alone(bundle, entry, precision, chosen, placement.workers)
            sides.append(Side(switch, precision, target, placement, alone))
        whole = next((entry for entry in bundle.switches if entry.switch == "1.0"), None)
        yield sides, None if whole is None else Alone(bundle, whole, precision, chosen, cores[:1])


async def _measure(sides: Sequence[Side], full: Alone | None, clients: Sequence[int]) -> list[Row]:
    """The rows of every switch, one switch after the other."""
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *sides[0].target.shape), dtype=np.uint8)
    seconds = _SECONDS.value or 1.0
    rows = []
    for side, latency in zip(sides, await measure.latencies(sides, full, images, _RUNS.value), strict=True):
        rows.append(latency)
        for count in clients:
            progress(f"throughput: switch {side.switch}, {counted(count, 'client')}")
            rows.append(await measure.throughput(side, images, count, seconds))
        rate = rows[-1].get("images_per_s", 0) * _OVERLOAD.value
        if rate:
            progress(f"overload: switch {side.switch}")
            rows.append(await measure.overload(side, images, rate, seconds))
    return rows


def _conditions() -> str:
    here = machine.describe()
    load = os.getloadavg()[0]
    return (
        f"{counted(here.cores, 'core')} {here.model} {here.architecture}, Python {here.python}, load {load:.1f} before"
    )


if __name__ == "__main__":
    run(main)
