"""A worker as its coordinator sees it: every way it can fail has a device, an address and a phase."""

from __future__ import annotations

import functools
import json
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..asking.exchange import MALFORMED, ExchangeError, HttpAnswer, HttpClient, SlowError, WrongAnswerError
from ..bundle.contents import Bundle, SliceFile, SliceModel
from ..cluster.file import Device
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from ..protocol.tensors import DATATYPES, data_to_bytes
from ..rules.sum import Sum
from ..security.credentials import unauthorized

CHECKING = "checking the answer"
ASKING_LIFE = "asking whether it is there"
ASKING_MODELS = "asking which models it serves"
_SPARE_BYTES = 65536
_MOST_INDEX_BYTES = 1 << 20
_TIMEOUT_STEP_S = 0.01


class DeviceError(Exception):
    """A worker that did not do its part.

    Attributes:
      status: the HTTP status for it: 502 (wrong answer), 503 (not there) or 504 (too slow).
      device: the device's name.
      phase: `connecting`, `waiting for the answer`, `reading the answer` or `checking the answer`.
      busy: whether the worker is well and has too much to do.
      unable: whether it is well and cannot have this slice for now, as for want of memory.
    """

    def __init__(
        self, status: int, device: str, phase: str, message: str, busy: bool = False, unable: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.device, self.phase, self.busy, self.unable = status, device, phase, busy, unable

    @property
    def reason(self) -> str:
        """The kind of failure in a word, for metrics."""
        if self.unable:
            return "unable"
        return "busy" if self.busy else {502: "wrong", 504: "slow"}.get(self.status, "gone")


@dataclass(frozen=True)
class Partial:
    """One worker's answer: its slice's outputs, dequantized, float64 (N, *`Bundle.output_shape`);
    `time.monotonic()` when the request left and when the answer was there; the worker's own waiting and
    invocation times, neither more than what lies between these."""

    outputs: np.ndarray
    sent: float
    received: float
    queue_ms: float
    invoke_ms: float


class RemoteWorker:
    """The worker of one device.

    Args:
      device: where it is and how to call it.
      connect_timeout_s: the limit of a connection.

    Raises `UserError` when the device's token or TLS files are unfit.
    """

    def __init__(self, device: Device, connect_timeout_s: float) -> None:
        self.device = device
        self._client = HttpClient(device.url, *device.credentials.to_call(device.url), connect_timeout_s)

    async def alive(self, timeout_s: float) -> str | None:
        """What tells the worker's process from all others; None where its server does not say.

        Raises `DeviceError` unless it answers within `timeout_s`."""
        answer = await self.exchange(ASKING_LIFE, "GET", "/v2", (), timeout_s, _SPARE_BYTES)
        try:
            instance = answer.json()["instance"]
        except MALFORMED:
            return None
        return instance if isinstance(instance, str) else None

    async def served(self, timeout_s: float) -> list[str]:
        """The names of the models that it serves. Raises `DeviceError`."""
        answer = await self.exchange(ASKING_MODELS, "POST", "/v2/repository/index", (), timeout_s, _MOST_INDEX_BYTES)
        try:
            return [str(entry["name"]) for entry in answer.json()]
        except MALFORMED as error:
            raise self.wrong("it is no Open Inference Protocol server", ASKING_MODELS) from error

    async def exchange(self, what: str, *request: Any) -> HttpAnswer:
        """As `HttpClient.exchange`, about `what`: every failure, and every answer but 200, becomes a `DeviceError`."""
        try:
            answer = await self._client.exchange(*request)
        except WrongAnswerError as error:
            raise self.wrong(str(error), what) from error
        except ExchangeError as error:
            status = 504 if isinstance(error, SlowError) else 503
            raise self._error(status, error.phase, str(error), what) from error
        if answer.status != 200:
            raise self._refused(answer, what)
        return answer

    async def close(self) -> None:
        """Closes its connections, at once or after their requests."""
        await self._client.close()

    def wrong(self, mistake: str, what: str) -> DeviceError:
        """The failure of a worker that answers what it should not, about `what`."""
        return self._error(502, CHECKING, mistake, what)

    def _refused(self, answer: HttpAnswer, what: str) -> DeviceError:
        status = answer.status
        text = f"it answered {status}: {_text(answer.reason)}"
        if status == 401:
            text = unauthorized(self.device.credentials, "token_file of this device in the cluster file")
        unable = status == 503 and oip.UNABLE in answer.fields
        passed_on = status if status in (503, 504) else 502
        return self._error(passed_on, CHECKING, text, what, busy=status == 503 and not unable, unable=unable)

    def _error(self, status: int, phase: str, reason: str, what: str, **kind: bool) -> DeviceError:
        message = f"{self.device.named}, while {phase} ({what}): {reason}."
        return DeviceError(status, self.device.name, phase, message, **kind)


class RemoteSlice:
    """One slice of a switch on a worker.

    Args:
      worker: the worker.
      bundle, switch, model, precision: what it is to serve.
      max_batch: the largest batch ever sent.
    """

    def __init__(
        self, worker: RemoteWorker, bundle: Bundle, switch: str, model: SliceModel, precision: str, max_batch: int
    ) -> None:
        self.model = model
        self._worker, self._where = worker, f"asking for slice {model.device} of switch {switch}"
        self._file: SliceFile = model.files[precision]
        self._identity = {"model_id": bundle.model_id, "file_sha256": self._file.sha256}
        self._input = TensorSpec("image", "UINT8", (-1, *bundle.shape))
        self._output = TensorSpec(bundle.task.output, DATATYPES[self._file.output.dtype], (-1, *bundle.output_shape))
        self._max_batch = max_batch
        # What the outputs take as JSON, and room for everything around them.
        self._most_bytes = max_batch * math.prod(bundle.output_shape) * 32 + _SPARE_BYTES
        self._path = f"/v2/models/{model.model}"

    async def check(self, timeout_s: float) -> None:
        """Asks the worker what it serves; raises `DeviceError` unless it is exactly this bundle's slice."""
        answer = await self._worker.exchange(self._where, "GET", self._path, (), timeout_s, self._most_bytes)
        try:
            metadata = answer.json()
            parameters, tensors = metadata["parameters"], {key: metadata[key] for key in ("inputs", "outputs")}
        except MALFORMED as error:
            raise self._wrong("its model metadata is not what a worker sends") from error
        self._check_identity(parameters)
        for (key, served), spec in zip(tensors.items(), (self._input, self._output), strict=True):
            if served != [spec.metadata()]:
                raise self._wrong(f"it serves {key} {_text(served)}; legal: {json.dumps([spec.metadata()])}")

    async def infer(self, images: np.ndarray, timeout_s: float) -> Partial:
        """The partial outputs of uint8 images (N, height, width, channels). Raises `DeviceError`."""
        # The worker need not begin what nobody waits for any more; rounded, so that it is the same for many requests.
        timeout_us = math.ceil(timeout_s / _TIMEOUT_STEP_S) * round(_TIMEOUT_STEP_S * 1e6)
        text = _request_json(self._input, images.shape, self._output.name, timeout_us)
        fields = {"Content-Type": "application/octet-stream", oip.HEADER: str(len(text))}
        body, path = (text, data_to_bytes("UINT8", images)), f"{self._path}/infer"
        sent = time.monotonic()
        answer = await self._worker.exchange(self._where, "POST", path, body, timeout_s, self._most_bytes, fields)
        header = answer.fields.get(oip.HEADER)
        try:
            response = oip.decode_response(answer.body, header, [self._output], self._max_batch)
        except OipError as error:
            raise self._wrong(error.message.rstrip(".")) from error
        self._check_identity(response.parameters)
        name = self._output.name
        stored = response.outputs.get(name)
        if stored is None or len(stored) != len(images):
            count = "none" if stored is None else f"those of {len(stored)} images"
            raise self._wrong(f"it sent {count} of the {name}; legal: those of {len(images)} images")
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            raise self._wrong(f"its {name} holds NaN or infinity; legal: finite numbers")
        real = Sum().contribution(self._file.output, stored)
        whole_ms = (answer.received - sent) * 1e3
        times = [_part(response.parameters.get(key), whole_ms) for key in ("queue_ms", "invoke_ms")]
        return Partial(real, sent, answer.received, *times)

    def _check_identity(self, parameters: Any) -> None:
        for key, legal in self._identity.items():
            value = parameters.get(key) if isinstance(parameters, dict) else None
            if value != legal:
                raise self._wrong(f"its {key} is {_text(value)}; legal: {legal}, the bundle's")

    def _wrong(self, mistake: str) -> DeviceError:
        return self._worker.wrong(mistake, self._where)


def _part(value: Any, whole_ms: float) -> float:
    """The milliseconds that a worker says a part took, within those that the whole was seen to take."""
    return float(min(max(value, 0.0), whole_ms)) if isinstance(value, (int, float)) else 0.0


@functools.lru_cache(maxsize=16)
def _request_json(image: TensorSpec, shape: tuple[int, ...], output: str, timeout_us: int) -> bytes:
    """The JSON of a request; that of all slices which are asked at once is the same."""
    return oip.request_json(image, shape, [output], {"timeout": timeout_us})


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."
