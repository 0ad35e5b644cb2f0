"""Serves slice models of a bundle to a coordinator, by the Open Inference Protocol v2 over HTTP.

  python -m export.fusion.worker --bundle=build/digits --port=8001
  python -m fusion.worker --port=8001 --host=0.0.0.0 --token_file=token.txt

The second is for a board, inside the bundle. Without --switch it serves every slice model of the
bundle, so that one worker fits any place of any switch.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import flags
from prometheus_client import Histogram

from . import manifest, oip, runtime, serving
from .bundle import Bundle, SliceFile, SliceModel, SwitchEntry
from .interpreters import SliceInterpreter
from .oip import OipError, TensorSpec
from .program import UserError, run
from .server import LATENCY_BUCKETS, Metrics, ServedModel, Server
from .tensors import DATATYPES

_BUNDLE = flags.DEFINE_string("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_PRECISION = flags.DEFINE_string(
    "precision", None, "Which files of the bundle to serve; by default the first of the bundle."
)
_SWITCH = flags.DEFINE_string("switch", None, "Serves only this switch's slices, e.g. 0.5+0.25+0.25.")
_DEVICE = flags.DEFINE_integer(
    "device", None, "With --switch: serves only this device's slice; devices count from 0.", 0
)
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_THREADS = flags.DEFINE_integer(
    "threads",
    min(runtime.available_cores(), runtime.MAX_THREADS),
    "Threads of one invocation; the default is every core.",
    1,
    runtime.MAX_THREADS,
)
flags.adopt_module_key_flags(serving)


class ServedSlice(ServedModel):
    """One slice model of one switch on this worker; see `ServedModel`.

    `thread` is the worker's single invocation thread, shared by its models, so that the event loop
    stays free and two invocations never fight for the same cores.
    """

    platform = "tflite"

    def __init__(
        self,
        bundle: Bundle,
        entry: SwitchEntry,
        model: SliceModel,
        file: SliceFile,
        interpreter: SliceInterpreter,
        thread: ThreadPoolExecutor,
        seconds: Histogram,
        max_batch: int,
    ) -> None:
        self.name, self.max_batch = model.model, max_batch
        self.inputs = (TensorSpec("image", "UINT8", (-1, *bundle.shape)),)
        self._output = TensorSpec(bundle.output_name, DATATYPES[file.output.dtype], (-1, *bundle.output_shape))
        self.outputs = (self._output,)
        self._interpreter, self._thread = interpreter, thread
        self._seconds = seconds.labels(model.model)
        self._identity = {"model_id": bundle.model_id, "file_sha256": file.sha256}
        self._parameters: dict[str, str | int | float | bool] = {
            **self._identity,
            "switch": entry.switch,
            "device": model.device,
            "precision": file.precision,
            "runtime": str(interpreter.runtime),
            "threads": interpreter.threads,
        }
        if file.output.scale is not None and file.output.zero_point is not None:
            self._parameters["output_scale"] = file.output.scale
            self._parameters["output_zero_point"] = file.output.zero_point

    def parameters(self) -> Mapping[str, str | int | float | bool]:
        return self._parameters

    async def not_ready(self) -> str | None:
        return None

    async def infer(
        self, request: oip.Request, arrived: float, decoded: float
    ) -> tuple[Sequence[tuple[TensorSpec, np.ndarray]], Mapping[str, str | int | float | bool]]:
        """Answers with the stored output and, as parameters, the model's identity, `queue_ms` (from
        the arrival of the request to its first invocation) and `invoke_ms` (all invocations of its
        batch)."""
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            stored, started, ended = await loop.run_in_executor(
                self._thread, self._invoke, request.inputs["image"], abandoned
            )
        finally:
            abandoned.set()
        self._seconds.observe(ended - started)
        times = {"queue_ms": (started - arrived) * 1e3, "invoke_ms": (ended - started) * 1e3}
        return [(self._output, stored)], self._identity | times

    def _invoke(self, images: np.ndarray, abandoned: threading.Event) -> tuple[np.ndarray, float, float]:
        started = time.perf_counter()
        stored = []
        for image in images:
            if abandoned.is_set():
                raise OipError(504, "the request was given up before its last image.")
            stored.append(self._interpreter(image))
        return np.stack(stored), started, time.perf_counter()


def _chosen(bundle: Bundle) -> list[tuple[SwitchEntry, SliceModel]]:
    """The slices that the flags select."""
    if _SWITCH.value is None:
        if _DEVICE.value is not None:
            raise UserError(f"device {_DEVICE.value} is of no switch; legal: --device with --switch.")
        return [(entry, model) for entry in bundle.switches for model in entry.slices]
    entry = bundle.find_switch(_SWITCH.value)
    if _DEVICE.value is None:
        return [(entry, model) for model in entry.slices]
    if _DEVICE.value >= len(entry.slices):
        raise UserError(
            f"device {_DEVICE.value} is not in switch {entry.switch!r}; legal: 0 to {len(entry.slices) - 1}."
        )
    return [(entry, entry.slices[_DEVICE.value])]


def main(arguments: list[str]) -> int:
    """Loads the slices and serves them until a signal; returns the exit status."""
    serving.watch_stdin()
    if _BUNDLE.value is None:
        raise UserError("--bundle is missing; legal: the folder of a bundle.")
    bundle = manifest.load(_BUNDLE.value)
    precision = bundle.check_precision(_PRECISION.value)
    credentials = serving.credentials()
    context, token = credentials.server_context(), credentials.token()
    chosen = runtime.choose(_RUNTIME.value)
    selected = _chosen(bundle)
    sockets = serving.bind()
    metrics = Metrics()
    seconds = Histogram(
        "fusion_invoke_seconds",
        "Invocations of one request's images.",
        ["model"],
        registry=metrics.registry,
        buckets=LATENCY_BUCKETS,
    )
    with ThreadPoolExecutor(1, thread_name_prefix="invoke") as thread:
        models = []
        for entry, model in selected:
            file = model.files[precision]
            interpreter = SliceInterpreter(bundle, file, chosen, _THREADS.value)
            models.append(
                ServedSlice(
                    bundle,
                    entry,
                    model,
                    file,
                    interpreter,
                    thread,
                    seconds,
                    serving.MAX_BATCH.value,
                )
            )
        print(
            f"worker: {len(models)} slice models of {bundle.name} ({precision}), {chosen}, threads: {_THREADS.value}",
            file=sys.stderr,
            flush=True,
        )
        server = Server(
            "worker",
            models,
            metrics,
            token,
            serving.MAX_BODY_MB.value,
            serving.REQUEST_TIMEOUT_S.value,
        )
        return asyncio.run(serving.serve(server.application(), "worker", context, sockets))


if __name__ == "__main__":
    run(main)
