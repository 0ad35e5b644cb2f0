"""Says which switch a cluster runs, on which devices, and with --explain why the others lost.

  python -m fusion.plan --explain                                               a running coordinator's plan
  python -m fusion.plan --bundle=build/digits --cluster=cluster.toml --explain  measured now, without one

Where no switch can be run, the devices are printed with what is wrong with them, and the exit status is 1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from absl import flags

from .asking.client import FusionClient
from .base import columns
from .base.columns import accuracy_text
from .base.files import check_json_target, results, write_json
from .base.paths import define_path
from .base.program import LONGEST_S, UserError, define_float, run
from .bundle import manifest
from .bundle.contents import Bundle
from .cluster import file as cluster
from .cluster.file import Device
from .coordinator import planning
from .coordinator.fleet import Fleet, connect_by_http
from .coordinator.planner import Goal
from .security.credentials import Credentials

_URL = flags.DEFINE_string(
    "url", "http://127.0.0.1:8000", "A running coordinator's address; with --bundle and --cluster none is asked."
)
_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_CLUSTER = define_path("cluster", None, "The cluster file (TOML) that names the devices.")
_EXPLAIN = flags.DEFINE_bool("explain", False, "Also prints the other switches and why they lost, and the devices.")
_JSON = define_path("json", None, "Also writes what is known to this file.")
_TOKEN_FILE = define_path("token_file", None, "With --url: file with the coordinator's bearer token.")
_TLS_CA = define_path("tls_ca", None, "With --url: PEM certificates that the coordinator's must come from.")
_TLS_CERT = define_path("tls_cert", None, "With --url: PEM certificate to show to the coordinator.")
_TLS_KEY = define_path("tls_key", None, "With --url: unencrypted PEM private key of --tls_cert.")
_TIMEOUT_S = define_float("timeout_s", 30, "Seconds to wait for the coordinator.", 0.001, LONGEST_S)
flags.adopt_module_key_flags(planning)


def main(arguments: list[str]) -> int:
    """Prints the plan; returns the exit status."""
    check_json_target(_JSON.value)
    if _asks_coordinator():
        credentials = Credentials(_TOKEN_FILE.value, _TLS_CA.value, _TLS_CERT.value, _TLS_KEY.value)
        with FusionClient(_URL.value, credentials, _TIMEOUT_S.value) as client:
            status = client.status()
    else:
        for name, value in (("bundle", _BUNDLE.value), ("cluster", _CLUSTER.value)):
            if value is None:
                raise UserError(f"--{name} is missing; legal: the {name}'s path, or --url.")
        bundle = manifest.load(_BUNDLE.value)
        status = asyncio.run(_measured(bundle, cluster.load(_CLUSTER.value).devices, planning.goal(bundle)))
    with results() as write:
        if _JSON.value:
            write(write_json, _JSON.value, status)
        _print(status)
    return 0 if status["plan"] else 1


def _asks_coordinator() -> bool:
    own = [name for name in ("bundle", "cluster") if flags.FLAGS[name].present]
    if own and flags.FLAGS["url"].present:
        raise UserError(f"--url is of a running coordinator, --{own[0]} of a plan without one; legal: one of the two.")
    return not own


async def _measured(bundle: Bundle, devices: Sequence[Device], goal: Goal) -> dict[str, Any]:
    precision, entries = bundle.check_precision(planning.PRECISION.value), planning.entries(bundle)
    connect = connect_by_http(bundle, entries, precision, planning.CONNECT_TIMEOUT_S.value, max_batch=1)
    async with Fleet(entries, precision, goal, bundle.shape, connect, lambda device: None) as fleet:
        await fleet.update(devices)
        await fleet.met()
        return planning.describe(fleet)


def _print(status: dict[str, Any]) -> None:
    plan, others = status["plan"], status["rejected"] if _EXPLAIN.value else []
    # An older coordinator tells neither rule nor what runs meanwhile.
    meanwhile = status.get("meanwhile", ()) if _EXPLAIN.value else ()
    rows = [_row(plan, _why_chosen(plan))] if plan else []
    rows += [_row(other, "for requests that come meanwhile") for other in meanwhile]
    rows += [_row(other, other["reason"]) for other in others]
    if not plan:
        print("no switch can be run")
    if rows:
        print(columns.render(("switch", "devices", "expected ms", "accuracy", "why"), rows, left=(0, 1, 4)))
    # A verified bundle may lack that of a switch without some slices.
    unknown = (either["accuracy"] is None and "" not in either["assignment"] for either in (plan, *others))
    if _EXPLAIN.value and plan and all(unknown):
        print(planning.UNVERIFIED)
    if _EXPLAIN.value or not plan:
        print()
        rows = [
            (device["name"], device["url"], device["state"], _span(device["latency_ms"]), device["reason"])
            for device in status["devices"]
        ]
        print(columns.render(("device", "address", "state", "ms per slice", "reason"), rows, left=(0, 1, 2, 4)))


def _why_chosen(plan: dict[str, Any]) -> str:
    why = ", ".join(filter(None, (plan.get("rule"), plan["lacks"])))
    return f"chosen: {why}" if why else "chosen"


def _row(plan: dict[str, Any], why: str) -> tuple[str, ...]:
    latency, accuracy = plan["latency_ms"], plan["accuracy"]
    return (
        plan["switch"],
        ", ".join(name or "-" for name in plan["assignment"]) or "-",
        "-" if latency is None else f"{latency:.1f}",
        "?" if accuracy is None else accuracy_text(accuracy),
        why,
    )


def _span(latencies: dict[str, float]) -> str:
    if not latencies:
        return "-"
    least, most = min(latencies.values()), max(latencies.values())
    return f"{least:.1f} to {most:.1f}"


if __name__ == "__main__":
    run(main)
