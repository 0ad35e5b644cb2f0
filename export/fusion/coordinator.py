"""Serves the fused model: sends each image to the workers of a switch and adds what they answer.

  python -m export.fusion.coordinator --bundle=build/digits --cluster=cluster.toml --port=8000
  python -m fusion.coordinator --cluster=cluster.toml --port=8000              (inside the bundle)

The cluster file names the devices in order: device i runs slice i of the switch.

    [[device]]
    name = "pi-1"
    url = "http://192.168.1.11:8001"

Optional per device: token_file, tls_ca, tls_cert, tls_key (files, relative to the cluster file).
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import numpy as np
from absl import flags
from prometheus_client import Counter, Histogram

from . import answers, cluster, manifest, oip, runtime, serving
from .answers import Answers
from .bundle import Bundle, SwitchEntry
from .cluster import Device
from .fuse import fuse
from .metrics import LATENCY_BUCKETS, Metrics
from .oip import OipError, TensorSpec
from .program import LONGEST_S, UserError, define_float, run
from .remote import DeviceError, Partial, RemoteSlice
from .server import ServedModel, Server

_BUNDLE = flags.DEFINE_string("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_CLUSTER = flags.DEFINE_string("cluster", None, "The cluster file (TOML) that names the devices.")
_SWITCH = flags.DEFINE_string("switch", None, "The switch to run; default: the only one with a slice for each device.")
_PRECISION = flags.DEFINE_string(
    "precision", None, "Which files of the bundle the workers serve; by default the first of the bundle."
)
_RUNTIME = flags.DEFINE_enum(
    "runtime", "auto", runtime.RUNTIMES, "What runs the tail of a super-resolution bundle, here."
)
_STARTUP_TIMEOUT_S = define_float(
    "startup_timeout_s", 30, "Seconds to wait at the start for every worker to be there.", 0, LONGEST_S
)
_CONNECT_TIMEOUT_S = define_float(
    "connect_timeout_s", 2, "Seconds that connecting to a worker may take.", 0.001, LONGEST_S
)
flags.adopt_module_key_flags(serving)

_READY_TIMEOUT_S = 1.0
_RETRY_S = 0.2
# The workers' own limit must strike first, since only it can name the device.
_MARGIN_S = 5.0


class FusedModel(ServedModel):
    """The sum of a switch's slices; see `ServedModel`. Gives what `answers` makes of it for `image` UINT8 (N, height,
    width, channels)."""

    platform = "fusion"

    def __init__(
        self,
        bundle: Bundle,
        entry: SwitchEntry,
        precision: str,
        slices: Sequence[RemoteSlice],
        metrics: Metrics,
        max_batch: int,
        made: Answers,
    ) -> None:
        self.name, self.max_batch = bundle.name, max_batch
        self.inputs = (TensorSpec("image", "UINT8", (-1, *bundle.shape)),)
        self.outputs = made.outputs
        self._made, self._slices, self._switch = made, slices, entry.switch
        # A tail takes its time, and is not thread-safe.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tail") if bundle.tail else None
        self._identity = {
            "model_id": bundle.model_id,
            "switch": entry.switch,
            "devices": ",".join(remote.device.name for remote in slices),
        }
        self._parameters = self._identity | {"precision": precision}
        self._seconds = Histogram(
            "fusion_device_seconds",
            "From sending a device its request to having its answer.",
            ["device"],
            registry=metrics.registry,
            buckets=LATENCY_BUCKETS,
        )
        self._failures = Counter(
            "fusion_device_failures",
            "Requests that a device failed, by the phase it failed in.",
            ["device", "phase"],
            registry=metrics.registry,
        )

    def parameters(self) -> Mapping[str, str | int | float | bool]:
        return self._parameters

    async def not_ready(self) -> str | None:
        reasons = await asyncio.gather(*(r.not_ready(_READY_TIMEOUT_S) for r in self._slices))
        return " ".join(reason for reason in reasons if reason) or None

    async def infer(
        self, request: oip.Request, arrived: float, decoded: float
    ) -> tuple[Sequence[tuple[TensorSpec, np.ndarray]], Mapping[str, str | int | float | bool]]:
        """Answers with the fused outputs; with the request parameter `timeline` true, also with a
        JSON `timeline` whose times are in ms since the request arrived."""
        timeline = request.parameters.get("timeline", False)
        if not isinstance(timeline, bool):
            raise OipError(400, f"parameter 'timeline' is {timeline!r}; legal: true or false.")
        images = request.inputs["image"]
        partials = await self._fan_out(images)
        started = time.perf_counter()
        summed = fuse([partial.outputs for partial in partials])
        if self._thread is None:
            arrays = self._made(images, summed)
        else:
            arrays = await asyncio.get_running_loop().run_in_executor(self._thread, self._made, images, summed)
        parameters = dict(self._identity)
        if timeline:
            fuse_ms = (time.perf_counter() - started) * 1e3
            parameters["timeline"] = self._timeline(partials, arrived, decoded, fuse_ms)
        return list(zip(self.outputs, arrays, strict=True)), parameters

    async def _fan_out(self, images: np.ndarray) -> list[Partial]:
        """All workers at once; the first failure answers the request, without waiting for the
        others."""
        tasks = [asyncio.ensure_future(remote.infer(images)) for remote in self._slices]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        errors = [task.exception() for task in tasks if task in done]
        for error in errors:
            if isinstance(error, DeviceError):
                self._failures.labels(error.device, error.phase).inc()
        for error in errors:
            if isinstance(error, DeviceError):
                raise OipError(error.status, str(error)) from error
            if error is not None:
                raise error
        partials = [task.result() for task in tasks]
        for remote, partial in zip(self._slices, partials, strict=True):
            self._seconds.labels(remote.device.name).observe(partial.received - partial.sent)
        return partials

    def _timeline(self, partials: Sequence[Partial], arrived: float, decoded: float, fuse_ms: float) -> str:
        devices = [
            {
                "device": remote.device.name,
                "url": remote.device.url,
                "slice": remote.model.device,
                "sent_ms": (partial.sent - arrived) * 1e3,
                "received_ms": (partial.received - arrived) * 1e3,
                "queue_ms": partial.queue_ms,
                "invoke_ms": partial.invoke_ms,
            }
            for remote, partial in zip(self._slices, partials, strict=True)
        ]
        decode_ms = (decoded - arrived) * 1e3
        return json.dumps({"switch": self._switch, "decode_ms": decode_ms, "devices": devices, "fuse_ms": fuse_ms})


def _chosen(bundle: Bundle, devices: Sequence[Device]) -> SwitchEntry:
    """The switch to run: the flag's, or the only one with as many slices as there are devices."""
    if _SWITCH.value is not None:
        entry = bundle.find_switch(_SWITCH.value)
    else:
        fitting = [entry for entry in bundle.switches if len(entry.slices) == len(devices)]
        if len(fitting) != 1:
            legal = ", ".join(entry.switch for entry in fitting or bundle.switches)
            raise UserError(
                f"--switch is missing, and {len(fitting)} switches of the bundle have the cluster file's "
                f"{len(devices)} devices; legal: {legal}."
            )
        entry = fitting[0]
    if len(entry.slices) > len(devices):
        raise UserError(
            f"switch {entry.switch!r} has {len(entry.slices)} slices but cluster file {_CLUSTER.value!r} "
            f"names {len(devices)} devices; legal: one device per slice or more."
        )
    if len(entry.slices) < len(devices):
        unused = ", ".join(device.name for device in devices[len(entry.slices) :])
        _say(f"switch {entry.switch} has {len(entry.slices)} slices; not used: {unused}")
    return entry


async def _wait_for(remote: RemoteSlice) -> None:
    """Returns once the worker is there and serves the right slice; else raises `UserError`."""
    deadline = time.monotonic() + _STARTUP_TIMEOUT_S.value
    said = False
    while True:
        try:
            return await remote.check()
        except DeviceError as error:
            if not error.temporary or time.monotonic() >= deadline:
                raise UserError(str(error)) from error
            if not said:
                _say(f"waiting up to {_STARTUP_TIMEOUT_S.value:g} s: {error}")
            said = True
        await asyncio.sleep(_RETRY_S)


async def _serve(
    bundle: Bundle,
    entry: SwitchEntry,
    devices: Sequence[Device],
    token: str | None,
    context: ssl.SSLContext | None,
    sockets: Sequence[socket.socket],
) -> int:
    max_batch = serving.MAX_BATCH.value
    precision = bundle.check_precision(_PRECISION.value)
    made = answers.of(bundle, _RUNTIME.value, runtime.available_cores())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        slices = [
            RemoteSlice(
                device,
                bundle,
                entry.switch,
                model,
                precision,
                session,
                _CONNECT_TIMEOUT_S.value,
                serving.REQUEST_TIMEOUT_S.value,
                max_batch,
            )
            for device, model in zip(devices, entry.slices, strict=False)
        ]
        await asyncio.gather(*(_wait_for(remote) for remote in slices))
        names = ", ".join(f"{r.device.name} at {r.device.url}" for r in slices)
        _say(f"{bundle.name}, switch {entry.switch} ({precision}), on {names}")
        metrics = Metrics()
        server = Server(
            "coordinator",
            [FusedModel(bundle, entry, precision, slices, metrics, max_batch, made)],
            metrics,
            token,
            serving.MAX_BODY_MB.value,
            serving.REQUEST_TIMEOUT_S.value + _MARGIN_S,
        )
        return await serving.serve(server.application(), "coordinator", context, sockets)


def _say(text: str) -> None:
    print(f"coordinator: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Checks the workers, then serves the fused model until a signal; returns the exit status."""
    serving.watch_stdin()
    for name, value in (("bundle", _BUNDLE.value), ("cluster", _CLUSTER.value)):
        if value is None:
            raise UserError(f"--{name} is missing; legal: the {name}'s path.")
    bundle = manifest.load(_BUNDLE.value)
    devices = cluster.load(_CLUSTER.value)
    bundle.check_precision(_PRECISION.value)
    entry = _chosen(bundle, devices)
    credentials = serving.credentials()
    context, token = credentials.server_context(), credentials.token()
    return asyncio.run(_serve(bundle, entry, devices, token, context, serving.bind()))


if __name__ == "__main__":
    run(main)
