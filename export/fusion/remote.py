"""A worker as its coordinator sees it: every way it can fail has a device, an address and a phase."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

from . import oip, refusals
from .bundle import Bundle, SliceFile, SliceModel
from .cluster import Device
from .fuse import dequantize
from .oip import OipError, TensorSpec
from .tensors import DATATYPES

CONNECTING = "connecting"
WAITING = "waiting for the answer"
READING = "reading the answer"
CHECKING = "checking the answer"
_READ_SIZE = 65536
_SPARE_BYTES = 65536
_MOST_INDEX_BYTES = 1 << 20
_LEAST_S = 0.001


class DeviceError(Exception):
    """A worker that did not do its part.

    Attributes:
      status: the HTTP status for it: 502 (wrong answer), 503 (not there) or 504 (too slow).
      device: the device's name.
      phase: `connecting`, `waiting for the answer`, `reading the answer` or `checking the answer`.
      temporary: whether trying again later may help.
      busy: whether the worker is well and has too much to do.
    """

    def __init__(self, status: int, device: str, phase: str, message: str, temporary: bool, busy: bool = False) -> None:
        super().__init__(message)
        self.status, self.device, self.phase = status, device, phase
        self.temporary, self.busy = temporary, busy

    @property
    def reason(self) -> str:
        """The kind of failure in a word, for metrics."""
        return "busy" if self.busy else {502: "wrong", 504: "slow"}.get(self.status, "gone")


class _ClosedError(DeviceError):
    """The worker closed the connection before it answered."""


@dataclass(frozen=True)
class Partial:
    """One worker's answer: its slice's outputs, dequantized, float64 (N, *`Bundle.output_shape`);
    `time.perf_counter()` when the request left and when the answer was there; the worker's own waiting and
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
      session: the connections to all workers; kept open between requests.
      connect_timeout_s: the limit of a connection.

    Raises `UserError` when the device's token or TLS files are unfit. Source: ours.
    """

    def __init__(self, device: Device, session: aiohttp.ClientSession, connect_timeout_s: float) -> None:
        self.device = device
        self._session, self._connect_s = session, connect_timeout_s
        self._ssl: ssl.SSLContext | bool = True
        if device.url.startswith("https"):
            self._ssl = device.credentials.client_context()
        token = device.credentials.token()
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def check_alive(self, timeout_s: float) -> None:
        """Raises `DeviceError` unless the worker answers within `timeout_s`."""
        await self.exchange("GET", "/v2/health/live", None, {}, timeout_s, _SPARE_BYTES, "its health")

    async def served(self, timeout_s: float) -> list[str]:
        """The names of the models that it serves. Raises `DeviceError`."""
        what = "its models"
        body, _ = await self.exchange("POST", "/v2/repository/index", None, {}, timeout_s, _MOST_INDEX_BYTES, what)
        try:
            return [str(entry["name"]) for entry in json.loads(body)]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.wrong("it is no Open Inference Protocol server", what) from error

    async def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
        most_bytes: int,
        what: str,
    ) -> tuple[bytes, str | None]:
        """One HTTP exchange, about `what`, whose answer has at most so many bytes: every failure becomes a
        `DeviceError`. Returns (body, the OIP header's value)."""
        began = time.monotonic()
        try:
            return await self._exchange(method, path, body, headers, timeout_s, most_bytes, what)
        except _ClosedError:
            # It may have closed a kept connection long ago, at a restart; a new one shows whether it is there.
            left_s = max(_LEAST_S, began + timeout_s - time.monotonic())
            return await self._exchange(method, path, body, headers, left_s, most_bytes, what)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
        most_bytes: int,
        what: str,
    ) -> tuple[bytes, str | None]:
        connect_s = min(self._connect_s, timeout_s)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=connect_s)
        phase = WAITING
        try:
            async with self._session.request(
                method,
                self.device.url + path,
                data=body,
                headers=self._headers | headers,
                timeout=timeout,
                ssl=self._ssl,
                allow_redirects=False,
            ) as response:
                phase = READING
                answer = b""
                async for chunk in response.content.iter_chunked(_READ_SIZE):
                    answer += chunk
                    if len(answer) > most_bytes:
                        raise self.wrong(f"its answer is longer than {most_bytes} bytes", what)
                status, header = response.status, response.headers.get(oip.HEADER)
        except aiohttp.ConnectionTimeoutError as error:
            raise self._slow(CONNECTING, connect_s, what) from error
        except asyncio.exceptions.TimeoutError as error:
            raise self._slow(phase, timeout_s, what) from error
        except aiohttp.ClientConnectorError as error:
            # A certificate or a missing TLS will not mend by waiting.
            lasting = isinstance(error, aiohttp.ClientSSLError)
            raise self._error(503, CONNECTING, await self._reason(error, body), not lasting, what) from error
        except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
            kind = _ClosedError if phase == WAITING else DeviceError
            raise self._error(503, phase, await self._reason(error, body), True, what, kind=kind) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._error(503, phase, await self._reason(error, body), True, what) from error
        if status != 200:
            raise self._refused(status, answer, what)
        return answer, header

    async def _reason(self, error: Exception, body: bytes | None) -> str:
        device = self.device
        # Finding out takes time, which a request with images does not have.
        if body is None and device.url.startswith("https"):
            why = await asyncio.to_thread(refusals.why, error, device.url, device.credentials, self._connect_s)
            if why is not None:
                return why
        return _reason(error)

    def wrong(self, found: str, what: str) -> DeviceError:
        """The failure of a worker that answers what it should not, about `what`."""
        return self._error(502, CHECKING, found, False, what)

    def _refused(self, status: int, body: bytes, what: str) -> DeviceError:
        try:
            said = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            said = "no reason given"
        passed_on = status if status in (503, 504) else 502
        text = f"it answered {status}: {_text(said).rstrip('.')}"
        return self._error(passed_on, CHECKING, text, status in (503, 504), what, busy=status == 503)

    def _slow(self, phase: str, limit_s: float, what: str) -> DeviceError:
        return self._error(504, phase, f"nothing within {limit_s:g} s", True, what)

    def _error(
        self,
        status: int,
        phase: str,
        found: str,
        temporary: bool,
        what: str,
        busy: bool = False,
        kind: type[DeviceError] = DeviceError,
    ) -> DeviceError:
        message = f"device {self.device.name} at {self.device.url}: {found} while {phase} ({what})."
        return kind(status, self.device.name, phase, message, temporary, busy)


class RemoteSlice:
    """One slice of a switch on a worker.

    Args:
      worker: the worker.
      bundle, switch, model, precision: what it is to serve.
      max_batch: the largest batch ever sent.

    Source: ours.
    """

    def __init__(
        self, worker: RemoteWorker, bundle: Bundle, switch: str, model: SliceModel, precision: str, max_batch: int
    ) -> None:
        self.model = model
        self._worker, self._where = worker, f"slice {model.device} of switch {switch}"
        self._file: SliceFile = model.files[precision]
        self._identity = {"model_id": bundle.model_id, "file_sha256": self._file.sha256}
        self._input = TensorSpec("image", "UINT8", (-1, *bundle.shape))
        self._output = TensorSpec(bundle.output_name, DATATYPES[self._file.output.dtype], (-1, *bundle.output_shape))
        self._max_batch = max_batch
        # What the outputs take as JSON, and room for everything around them.
        self._most_bytes = max_batch * math.prod(bundle.output_shape) * 32 + _SPARE_BYTES
        self._path = f"/v2/models/{model.model}"

    async def check(self, timeout_s: float) -> None:
        """Asks the worker what it serves; raises `DeviceError` unless it is exactly this bundle's slice."""
        body, _ = await self._exchange("GET", self._path, None, {}, timeout_s)
        try:
            metadata = json.loads(body)
            parameters = metadata["parameters"]
            tensors = {
                "inputs": (metadata["inputs"], [self._input.metadata()]),
                "outputs": (metadata["outputs"], [self._output.metadata()]),
            }
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._wrong("its model metadata is not what a worker sends") from error
        self._check_identity(parameters)
        for key, (found, said) in tensors.items():
            if found != said:
                raise self._wrong(f"it serves {key} {_text(found)}; legal: {json.dumps(said)}")

    async def infer(self, images: np.ndarray, timeout_s: float) -> Partial:
        """The partial outputs of uint8 images (N, height, width, channels). Raises `DeviceError`."""
        # The worker need not begin what nobody waits for any more.
        parameters = {"timeout": max(1, int(timeout_s * 1e6))}
        body, length = oip.encode_request([(self._input, images)], [self._output.name], parameters)
        sent = time.perf_counter()
        answer, header = await self._exchange("POST", self._path + "/infer", body, {oip.HEADER: length}, timeout_s)
        received = time.perf_counter()
        try:
            response = oip.decode_response(answer, header, [self._output], self._max_batch)
        except OipError as error:
            raise self._wrong(error.message.rstrip(".")) from error
        self._check_identity(response.parameters)
        name = self._output.name
        stored = response.outputs.get(name)
        if stored is None or len(stored) != len(images):
            count = "none" if stored is None else f"those of {len(stored)} images"
            raise self._wrong(f"it sent {count} of the {name}; legal: those of {len(images)} images")
        output = self._file.output
        real = dequantize(stored, output.scale, output.zero_point)
        if not np.isfinite(real).all():
            raise self._wrong(f"its {name} holds NaN or infinity; legal: finite numbers")
        whole_ms = (received - sent) * 1e3
        times = [_part(response.parameters.get(key), whole_ms) for key in ("queue_ms", "invoke_ms")]
        return Partial(real, sent, received, *times)

    async def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[bytes, str | None]:
        return await self._worker.exchange(method, path, body, headers, timeout_s, self._most_bytes, self._where)

    def _check_identity(self, parameters: Any) -> None:
        for key, legal in self._identity.items():
            found = parameters.get(key) if isinstance(parameters, Mapping) else None
            if found != legal:
                raise self._wrong(f"its {key} is {_text(found)}; legal: {legal}, the bundle's")

    def _wrong(self, found: str) -> DeviceError:
        return self._worker.wrong(found, self._where)


def _part(value: Any, whole_ms: float) -> float:
    """The milliseconds that a worker says a part took, within those that the whole was seen to take."""
    return float(min(max(value, 0.0), whole_ms)) if isinstance(value, (int, float)) else 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, ConnectionRefusedError):
            return "connection refused"
        return error.os_error.strerror or str(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."
