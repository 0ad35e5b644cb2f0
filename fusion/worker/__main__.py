"""Serves slice models of a bundle to a coordinator, by the Open Inference Protocol v2 over HTTP.

  python -m fusion.worker --bundle=build/digits --port=8001
  python -m fusion.worker --port=8001 --host=0.0.0.0 --token_file=token.txt

The second is for a board, inside the bundle. Without --switch it serves every slice model of the
bundle, so that one worker fits any place of any switch. On SIGHUP it reads its token and certificate anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from absl import flags
from prometheus_client import Counter, Gauge, Histogram

from ..base.paths import define_path
from ..base.program import UserError, define_float, run
from ..bundle import manifest
from ..bundle.contents import Bundle, SliceFile, SliceModel, SwitchEntry
from ..cluster import discovery
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from ..protocol.tensors import DATATYPES
from ..runtime import choosing
from ..runtime.interpreters import SliceInterpreter
from ..serving import listening as serving
from ..serving.inference import ServedModel
from ..serving.metrics import LATENCY_BUCKETS, Metrics
from ..serving.server import Server
from . import slices
from .invocations import Invocation, Invocations
from .slices import LoadedSlices

_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_PRECISION = flags.DEFINE_string(
    "precision", None, "Which files of the bundle to serve; by default the first of the bundle."
)
_SWITCH = flags.DEFINE_string("switch", None, "Serves only this switch's slices, e.g. 0.5+0.25+0.25.")
_DEVICE = flags.DEFINE_integer(
    "device", None, "With --switch: serves only this device's slice; devices count from 0.", 0
)
_RUNTIME = flags.DEFINE_enum("runtime", "auto", choosing.RUNTIMES, "What runs the slice models.")
_THREADS = flags.DEFINE_integer(
    "threads",
    min(choosing.available_cores(), choosing.MAX_THREADS),
    "Threads of one invocation; the default is every core.",
    1,
    choosing.MAX_THREADS,
)
_MEMORY_LIMIT_MB = define_float(
    "memory_limit_mb",
    None,
    "What the loaded slice models may take together, in MB; the least recently used go first. "
    "The default is four fifths of what is free at the start.",
    1,
    1e9,
)
_MAX_QUEUE = flags.DEFINE_integer(
    "max_queue", 16, "Most requests that wait while one runs; one more is answered 503 with Retry-After at once.", 1
)
_ANNOUNCE = flags.DEFINE_string(
    "announce", None, "Announces this worker on the local network by mDNS, under this device name; wants zeroconf."
)
flags.adopt_module_key_flags(serving)


class WorkerMetrics(Metrics):
    """What a worker counts beside `Metrics`: its queue, its invocations, and what it loads and drops."""

    def __init__(self) -> None:
        super().__init__()
        seconds = partial(Histogram, buckets=LATENCY_BUCKETS, registry=self.registry)
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        self.queue_seconds = seconds(
            "fusion_queue_seconds", "From a request's tensors being there to the invocation thread taking it."
        )
        self.invoke_seconds = seconds("fusion_invoke_seconds", "Invocations of one request's images.", ["model"])
        self.waiting = gauge("fusion_queue_requests", "Requests that wait for the invocation thread.")
        self.loaded_bytes = gauge("fusion_loaded_bytes", "Memory that the loaded models take, as estimated.")
        self.loads = counter("fusion_loads", "Slice models loaded.", ["model"])
        self.evictions = counter("fusion_evictions", "Slice models dropped for others.")
        self.refused = counter("fusion_refused", "Inference requests refused, by the reason's status.", ["status"])


class ServedSlice(ServedModel):
    """One slice model of one switch on this worker; see `ServedModel`.

    `loaded` and `invocations` are shared by the worker's models; `runs_on` says what runs them, for the metadata.
    """

    platform = "tflite"

    def __init__(
        self,
        bundle: Bundle,
        entry: SwitchEntry,
        model: SliceModel,
        file: SliceFile,
        loaded: LoadedSlices,
        invocations: Invocations,
        metrics: WorkerMetrics,
        runs_on: Mapping[str, str | int],
        max_batch: int,
    ) -> None:
        self.name, self.max_batch = model.model, max_batch
        self.inputs = (TensorSpec("image", "UINT8", (-1, *bundle.shape)),)
        self.outputs = (TensorSpec(bundle.task.output, DATATYPES[file.output.dtype], (-1, *bundle.output_shape)),)
        self._file, self._loaded, self._invocations, self._metrics = file, loaded, invocations, metrics
        self._invoke_seconds = metrics.invoke_seconds.labels(model.model)
        self._identity = {"model_id": bundle.model_id, "file_sha256": file.sha256}
        self._parameters: dict[str, str | int | float | bool] = {
            **self._identity,
            "switch": entry.switch,
            "device": model.device,
            "precision": file.precision,
            **runs_on,
        }
        if file.output.scale is not None and file.output.zero_point is not None:
            self._parameters["output_scale"] = file.output.scale
            self._parameters["output_zero_point"] = file.output.zero_point

    def parameters(self) -> Mapping[str, str | int | float | bool]:
        return self._parameters | {"loaded": self._file in self._loaded}

    async def not_ready(self) -> str | None:
        return self._loaded.refusal(self._file)

    async def infer(
        self, request: oip.Request, arrived: float, decoded: float
    ) -> tuple[Sequence[tuple[TensorSpec, np.ndarray]], Mapping[str, str | int | float | bool]]:
        """Answers with the stored output and, as parameters, the model's identity, `queue_ms` (from its tensors being
        there to the thread taking it), `load_ms` (only where it had to be loaded) and `invoke_ms` (of all its batch).

        The request parameter `timeout` is how long the requester waits, in microseconds from the arrival.
        """
        timeout_s = oip.timeout_s(request.parameters)
        deadline = None if timeout_s is None else arrived + timeout_s
        try:
            reason = self._loaded.refusal(self._file)
            if reason is not None:
                raise slices.refused(reason)
            work = partial(self._invoke, request.inputs["image"])
            stored, started, loaded, ended = await self._invocations.run(work, deadline)
        except OipError as error:
            self._metrics.refused.labels(str(error.status)).inc()
            raise
        queue_s, invoke_s = started - decoded, ended - (loaded or started)
        self._metrics.queue_seconds.observe(queue_s)
        self._invoke_seconds.observe(invoke_s)
        times = {"queue_ms": queue_s * 1e3, "invoke_ms": invoke_s * 1e3}
        if loaded is not None:
            times["load_ms"] = (loaded - started) * 1e3
        return [(self.outputs[0], stored)], self._identity | times

    def _invoke(self, images: np.ndarray, invocation: Invocation) -> tuple[np.ndarray, float, float | None, float]:
        """In the invocation thread: (stored outputs, when the thread took it, when it had loaded the model, or None if
        that was there, when it was done)."""
        started, loaded = time.monotonic(), None
        is_new = self._file not in self._loaded
        interpreter = self._loaded.get(self._file)
        if is_new:
            loaded = time.monotonic()
        stored = []
        for image in images:
            if invocation.abandoned:
                raise OipError(504, "the request was given up before its last image.")
            try:
                stored.append(interpreter(image))
            except Exception:
                self._loaded.drop(self._file)
                raise
        return np.stack(stored), started, loaded, time.monotonic()


def _selected(bundle: Bundle) -> list[tuple[SwitchEntry, SliceModel]]:
    """The slices that the flags select."""
    device = _DEVICE.value
    if _SWITCH.value is None and device is not None:
        raise UserError(f"device {device} is of no switch; legal: --device with --switch.")
    entries = bundle.switches if _SWITCH.value is None else (bundle.find_switch(_SWITCH.value),)
    selected = [(entry, model) for entry in entries for model in entry.slices if device in (None, model.device)]
    if not selected:
        raise UserError(
            f"device {device} is not in switch {entries[0].switch!r}; legal: 0 to {len(entries[0].slices) - 1}."
        )
    return selected


def main(arguments: list[str]) -> int:
    """Serves the slices, each loaded when it is first used, until a signal; returns the exit status."""
    serving.watch_stdin()
    bundle = manifest.load(_BUNDLE.value)
    precision = bundle.check_precision(_PRECISION.value)
    credentials = serving.credentials()
    context, token = credentials.server_context(), credentials.token()
    runtime = choosing.choose(_RUNTIME.value)
    selected = _selected(bundle)
    sockets = serving.bind()
    metrics = WorkerMetrics()
    names = {model.files[precision]: model.model for _, model in selected}
    for file in names:
        # Its hash is checked when it is loaded.
        bundle.check_size(file)
    limit = slices.default_limit() if _MEMORY_LIMIT_MB.value is None else int(_MEMORY_LIMIT_MB.value * 1e6)
    loaded = LoadedSlices(
        lambda file: SliceInterpreter(bundle, file, runtime, _THREADS.value),
        limit,
        lambda file: metrics.loads.labels(names[file]).inc(),
        lambda file: metrics.evictions.inc(),
    )
    metrics.loaded_bytes.set_function(loaded.used_bytes)
    runs_on = {"runtime": str(runtime), "threads": _THREADS.value}
    with Invocations(_MAX_QUEUE.value) as invocations:
        metrics.waiting.set_function(invocations.depth)
        shared = (loaded, invocations, metrics, runs_on, serving.MAX_BATCH.value)
        models = [ServedSlice(bundle, entry, model, model.files[precision], *shared) for entry, model in selected]
        serving.say(
            f"worker: {len(models)} slice models of {bundle.name} ({precision}), {runtime}, threads: {_THREADS.value}"
        )
        limits = serving.MAX_BODY_MB.value, serving.REQUEST_TIMEOUT_S.value
        server = Server("worker", models, metrics, token, *limits)
        with _announced(bundle, sockets[0].getsockname()[1], context is not None):
            return asyncio.run(serving.serve(server, "worker", credentials, context, sockets))


def _announced(bundle: Bundle, port: int, tls: bool) -> contextlib.AbstractContextManager[None]:
    if _ANNOUNCE.value is None:
        return contextlib.nullcontext()
    # An address of all of this machine says nothing to others; one of loopback is for trials.
    addresses = None if serving.HOST.value in ("0.0.0.0", "::", "") else [serving.HOST.value]
    return discovery.announce(_ANNOUNCE.value, port, bundle.model_id, tls, addresses)


if __name__ == "__main__":
    run(main)
