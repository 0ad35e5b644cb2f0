"""A worker as its coordinator sees it: every way it can fail has a device, an address and a
phase."""

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


class DeviceError(Exception):
    """A worker that did not do its part.

    Attributes:
      status: the HTTP status for it: 502 (wrong answer), 503 (not there) or 504 (too slow).
      device: the device's name.
      phase: `connecting`, `waiting for the answer`, `reading the answer` or `checking the answer`.
      temporary: whether trying again later may help.
    """

    def __init__(self, status: int, device: str, phase: str, message: str, temporary: bool) -> None:
        super().__init__(message)
        self.status, self.device, self.phase, self.temporary = status, device, phase, temporary


@dataclass(frozen=True)
class Partial:
    """One worker's answer: its slice's outputs, dequantized, float64 (N, *`Bundle.output_shape`);
    `time.perf_counter()` when the request left and when the answer was there; the worker's own waiting and
    invocation times."""

    outputs: np.ndarray
    sent: float
    received: float
    queue_ms: float
    invoke_ms: float


class RemoteSlice:
    """One slice of a switch on the worker of one device.

    Args:
      session: the connections to all workers; kept open between requests.
      connect_timeout_s, request_timeout_s: limits of the connection alone and of the whole
        exchange.
      max_batch: the largest batch ever sent.

    Raises `UserError` when the device's token or TLS files are unfit. Source: ours.
    """

    def __init__(
        self,
        device: Device,
        bundle: Bundle,
        switch: str,
        model: SliceModel,
        precision: str,
        session: aiohttp.ClientSession,
        connect_timeout_s: float,
        request_timeout_s: float,
        max_batch: int,
    ) -> None:
        self.device = device
        self.model = model
        self._switch, self._session = switch, session
        self._file: SliceFile = model.files[precision]
        self._identity = {"model_id": bundle.model_id, "file_sha256": self._file.sha256}
        self._input = TensorSpec("image", "UINT8", (-1, *bundle.shape))
        self._output = TensorSpec(bundle.output_name, DATATYPES[self._file.output.dtype], (-1, *bundle.output_shape))
        self._connect_s, self._request_s, self._max_batch = (
            connect_timeout_s,
            request_timeout_s,
            max_batch,
        )
        # What the outputs take as JSON, and room for everything around them.
        self._most_bytes = max_batch * math.prod(bundle.output_shape) * 32 + _SPARE_BYTES
        self._ssl: ssl.SSLContext | bool = True
        if device.url.startswith("https"):
            self._ssl = device.credentials.client_context()
        token = device.credentials.token()
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._path = f"/v2/models/{model.model}"

    async def check(self) -> None:
        """Asks the worker what it serves; raises `DeviceError` unless it is exactly this bundle's
        slice."""
        body, _ = await self._exchange("GET", self._path, None, {}, self._request_s)
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
                raise self._wrong(f"it serves {key} {json.dumps(found)}; legal: {json.dumps(said)}")

    async def not_ready(self, timeout_s: float) -> str | None:
        """Why the worker cannot serve the slice now, or None; asks for at most `timeout_s`."""
        try:
            await self._exchange("GET", self._path + "/ready", None, {}, timeout_s)
        except DeviceError as error:
            return str(error)
        return None

    async def infer(self, images: np.ndarray) -> Partial:
        """The partial outputs of uint8 images (N, height, width, channels). Raises `DeviceError`."""
        body, length = oip.encode_request([(self._input, images)], [self._output.name], {})
        sent = time.perf_counter()
        answer, header = await self._exchange(
            "POST", self._path + "/infer", body, {oip.HEADER: length}, self._request_s
        )
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
        times = [response.parameters.get(key) for key in ("queue_ms", "invoke_ms")]
        queue_ms, invoke_ms = (float(t) if isinstance(t, (int, float)) else 0.0 for t in times)
        return Partial(real, sent, received, queue_ms, invoke_ms)

    async def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[bytes, str | None]:
        """One HTTP exchange; every failure becomes a `DeviceError`. Returns (body, the OIP header's
        value)."""
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
                    if len(answer) > self._most_bytes:
                        raise self._wrong(f"its answer is longer than {self._most_bytes} bytes")
                status, header = response.status, response.headers.get(oip.HEADER)
        except aiohttp.ConnectionTimeoutError as error:
            raise self._slow(CONNECTING, connect_s) from error
        except asyncio.exceptions.TimeoutError as error:
            raise self._slow(phase, timeout_s) from error
        except aiohttp.ClientConnectorError as error:
            # A certificate or a missing TLS will not mend by waiting.
            lasting = isinstance(error, aiohttp.ClientSSLError)
            raise self._error(503, CONNECTING, await self._reason(error, body), temporary=not lasting) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._error(503, phase, await self._reason(error, body), temporary=True) from error
        if status != 200:
            raise self._refused(status, answer)
        return answer, header

    async def _reason(self, error: Exception, body: bytes | None) -> str:
        device = self.device
        # Finding out takes time, which a request with images does not have.
        if body is None and device.url.startswith("https"):
            why = await asyncio.to_thread(refusals.why, error, device.url, device.credentials, self._connect_s)
            if why is not None:
                return why
        return _reason(error)

    def _check_identity(self, parameters: Any) -> None:
        for key, legal in self._identity.items():
            found = parameters.get(key) if isinstance(parameters, Mapping) else None
            if found != legal:
                raise self._wrong(f"its {key} is {_text(found)}; legal: {legal}, the bundle's")

    def _refused(self, status: int, body: bytes) -> DeviceError:
        try:
            said = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            said = "no reason given"
        passed_on = status if status in (503, 504) else 502
        text = f"it answered {status}: {_text(said).rstrip('.')}"
        return self._error(passed_on, CHECKING, text, temporary=status in (503, 504))

    def _wrong(self, what: str) -> DeviceError:
        return self._error(502, CHECKING, what, temporary=False)

    def _slow(self, phase: str, limit_s: float) -> DeviceError:
        return self._error(504, phase, f"nothing within {limit_s:g} s", temporary=True)

    def _error(self, status: int, phase: str, what: str, temporary: bool) -> DeviceError:
        where = f"slice {self.model.device} of switch {self._switch}"
        message = f"device {self.device.name} at {self.device.url}: {what} while {phase} ({where})."
        return DeviceError(status, self.device.name, phase, message, temporary)


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
