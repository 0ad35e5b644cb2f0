"""Serves the fused model: plans each image for the devices that are there, sends it to them and adds what they answer.

  python -m fusion.coordinator --bundle=build/digits --cluster=cluster.toml --port=8000
  python -m fusion.coordinator --cluster=cluster.toml --port=8000              (inside the bundle)

The cluster file names the devices; any of them may run any slice that its worker serves.

    [[device]]
    name = "pi-1"
    url = "http://192.168.1.11:8001"

Optional per device: token_file, tls_ca, tls_cert, tls_key (files, relative to the cluster file). The file is read anew
when it changes, and on SIGHUP, then with the files that it names and those of --token_file and --tls_*. With a table
[discovery], devices that announce themselves join (see cluster/file.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Sequence
from socket import socket

from absl import flags
from aiohttp import web

from ..base.columns import accuracy_text
from ..base.paths import define_path
from ..base.program import LONGEST_S, UserError, define_float, run
from ..bundle import manifest
from ..bundle.contents import Bundle
from ..cluster.members import Members
from ..rules import answers, early
from ..runtime import choosing as runtime
from ..security.credentials import Credentials
from ..serving import listening as serving
from ..serving.journal import Journal
from ..serving.metrics import Metrics
from ..serving.server import Server
from . import planning, status_page
from .devices import FleetDevice
from .fleet import Fleet, connect_by_http
from .fleet_metrics import FleetMetrics
from .fused import FusedModel, Limits
from .planner import Decision, Goal

_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_CLUSTER = define_path("cluster", None, "The cluster file (TOML) that names the devices.")
_MAX_QUEUE = flags.DEFINE_integer("max_queue", 64, "Requests that may run at once; more are answered 503.", 1)
_EARLY_ANSWER = flags.DEFINE_enum(
    "early_answer",
    "off",
    early.MODES,
    "Answers before every slice is there: `bound`, where the rest cannot change the class; `confidence`, also where it "
    "is unlikely to, by the thresholds that export.calibrate has put in the bundle.",
)
_LOG = define_path("log", None, "File that events are appended to, a JSON object each; - is standard output.")
_RUNTIME = flags.DEFINE_enum(
    "runtime", "auto", runtime.RUNTIMES, "What runs the tail of a super-resolution bundle, here."
)
_STARTUP_TIMEOUT_S = define_float(
    "startup_timeout_s", 30, "Seconds to wait at the start for devices that can run a whole switch.", 0, LONGEST_S
)
flags.adopt_module_key_flags(planning)
flags.adopt_module_key_flags(serving)

_LOOK_S = 0.05
# A device that hangs or is slow does not keep the others from answering; it is planned with once it is measured.
_MEET_S = 5.0
# Between two looks at the cluster file.
_RELOAD_S = 2.0
# The deadline must strike first, since only it can fuse what has arrived.
_MARGIN_S = 5.0


class _Log:
    """Reports on standard error and in the journal what becomes of devices and plan."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._running: tuple[str, tuple[int, ...]] | None = None

    def report_device(self, device: FleetDevice) -> None:
        """Takes in a device that came or went."""
        health = device.health
        _say(f"{device.name} at {device.url} is {health.state}{health.reason.removeprefix(device.worker.device.named)}")
        self._journal.write("device", device=device.name, url=device.url, state=health.state, reason=health.reason)

    def report_plan(self, decision: Decision) -> None:
        """Takes in what would be run now."""
        plan = decision.chosen
        # Not the devices: those that are equally fast change places all the time.
        running = None if plan is None else (plan.entry.switch, plan.missing)
        if running == self._running:
            return
        self._running = running
        if plan is None:
            _say("plan: no switch can be run")
            self._journal.write("plan", switch=None)
            return
        accuracy = None if plan.accuracy is None else f"accuracy {accuracy_text(plan.accuracy)}"
        switch = plan.entry.switch
        phrases = [
            f"{switch} on {', '.join(filter(None, plan.devices))}",
            f"expected in {plan.latency_ms:.1f} ms",
            accuracy,
        ]
        _say(f"plan: switch {', '.join(filter(None, [*phrases, decision.rule, decision.lacks]))}")
        fields = {"expected_ms": plan.latency_ms, "expected_accuracy": plan.accuracy, "rule": decision.rule}
        self._journal.write("plan", switch=switch, devices=plan.devices, **fields)

    def report_cluster(self, came: Sequence[str], went: Sequence[str]) -> None:
        """Takes in which devices are new in the cluster, and which have left it."""
        if not came and not went:
            return
        _say(f"the cluster was looked at anew; new: {', '.join(came) or 'none'}; gone: {', '.join(went) or 'none'}")
        self._journal.write("cluster", came=came, went=went)


async def _start(fleet: Fleet) -> None:
    """Returns once a whole switch can be run and every device was reached or could not be, or takes long to. When the
    time to wait is over, what can be run will do; where that is nothing, the devices that take long are waited for."""
    seconds = _STARTUP_TIMEOUT_S.value
    deadline = time.monotonic() + seconds
    met = asyncio.create_task(fleet.met())
    await asyncio.wait({met}, timeout=_MEET_S)

    def is_whole() -> bool:
        return any(not plan.missing for plan in fleet.decide(fleet.goal).plans)

    if seconds and not is_whole():
        _say(f"waiting up to {seconds:g} s (--startup_timeout_s) for devices that can run a whole switch")
    while not is_whole():
        if time.monotonic() >= deadline:
            if fleet.decide(fleet.goal).chosen is not None:
                break
            if met.done():
                raise UserError(fleet.no_plan())
        await asyncio.sleep(_LOOK_S)
    met.cancel()


async def _look_after(fleet: Fleet, members: Members, log: _Log, reload: asyncio.Event) -> None:
    """Takes in devices that come and go, and reports when the plan has changed. On `reload` the cluster file is read
    whether it has changed or not, and the tokens and certificates for the devices too."""
    while True:
        log.report_plan(fleet.decide(fleet.goal))
        try:
            await asyncio.wait_for(reload.wait(), _RELOAD_S)
        except asyncio.exceptions.TimeoutError:
            if not members.changed():
                continue
        renew = reload.is_set()
        reload.clear()
        try:
            log.report_cluster(*await fleet.update(members.read(), renew))
        except UserError as error:
            _say(f"the cluster stays as it was: {error}")
            continue
        if renew:
            _say("the cluster file, and the tokens and certificates that it names, were read anew")


async def _serve(
    bundle: Bundle,
    members: Members,
    credentials: Credentials,
    context: ssl.SSLContext | None,
    token: str | None,
    sockets: Sequence[socket],
    journal: Journal,
) -> int:
    max_batch, longest_s = serving.MAX_BATCH.value, serving.REQUEST_TIMEOUT_S.value
    precision, entries, goal = bundle.check_precision(planning.PRECISION.value), planning.entries(bundle), _goal(bundle)
    to_answer = answers.of(bundle, _RUNTIME.value, runtime.available_cores())
    is_settled = early.of_bundle(bundle, entries, precision, _EARLY_ANSWER.value)
    metrics, log = Metrics(), _Log(journal)
    async with contextlib.AsyncExitStack() as stack:
        connect = connect_by_http(bundle, entries, precision, planning.CONNECT_TIMEOUT_S.value, max_batch)
        fleet = Fleet(entries, precision, goal, bundle.shape, connect, log.report_device)
        await stack.enter_async_context(fleet)
        if all(fleet.accuracy(entry) is None for entry in entries):
            _say(planning.UNVERIFIED)
        await fleet.update(members.read())
        # From the start on, since SIGHUP would else end a program that still waits for its devices.
        reload = asyncio.Event()
        serving.at_hangup(reload.set)
        watch = asyncio.create_task(_look_after(fleet, members, log, reload))
        stack.callback(watch.cancel)
        await _start(fleet)
        log.report_plan(fleet.decide(fleet.goal))
        limits = Limits(max_batch, _MAX_QUEUE.value, longest_s, _EARLY_ANSWER.value)
        model = FusedModel(bundle, fleet, FleetMetrics(metrics, fleet), limits, to_answer, is_settled, journal)

        async def page(request: web.BaseRequest) -> web.Response:
            return web.Response(body=status_page.PAGE, headers=status_page.HEADERS)

        async def status(request: web.BaseRequest) -> web.Response:
            return web.json_response(model.status(), headers={"Cache-Control": "no-store"})

        body_mb, answer_s = serving.MAX_BODY_MB.value, longest_s + _MARGIN_S
        server = Server("coordinator", [model], metrics, token, body_mb, answer_s, {"/": page, "/status": status})
        return await serving.serve(server, "coordinator", credentials, context, sockets, reload.set)


def _say(text: str) -> None:
    serving.say(f"coordinator: {text}")


def _goal(bundle: Bundle) -> Goal:
    goal, longest_s = planning.goal(bundle), serving.REQUEST_TIMEOUT_S.value
    if goal.deadline_ms > longest_s * 1e3:
        raise UserError(
            f"--deadline_ms={goal.deadline_ms:g} is more than --request_timeout_s={longest_s:g}; raise that too."
        )
    return goal


def main(arguments: list[str]) -> int:
    """Finds the devices, then serves the fused model until a signal; returns the exit status."""
    serving.watch_stdin()
    for name, value in (("bundle", _BUNDLE.value), ("cluster", _CLUSTER.value)):
        if value is None:
            raise UserError(f"--{name} is missing; legal: the {name}'s path.")
    bundle = manifest.load(_BUNDLE.value)
    members = Members(_CLUSTER.value, bundle.model_id)
    credentials = serving.credentials()
    context, token = credentials.server_context(), credentials.token()
    with members, Journal(_LOG.value) as journal:
        return asyncio.run(_serve(bundle, members, credentials, context, token, serving.bind(), journal))


if __name__ == "__main__":
    run(main)
