"""Inference requests: from a body's bytes to those of its answer."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from aiohttp import web

from ..base.waiting import within
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from .bodies import BodyReader
from .metrics import Metrics

VERSION = "1"
"""That of every model."""

# Above that many bytes of JSON, or packed ones, a body is decoded beside the event loop.
_QUICK_BYTES = 65_536
# Python reads JSON without letting anything else run, so there is an end to it; tensors can come in binary.
_MOST_JSON_BYTES = 4_000_000
# To the letter: KServe's client shows the sentence of a refusal of this type alone.
_JSON = {"Content-Type": "application/json"}
_BINARY = {"Content-Type": "application/octet-stream"}


class ServedModel(ABC):
    """One model of the server.

    Attributes:
      name: its URL-safe name.
      platform: what runs it, for the metadata.
      inputs, outputs: its tensors.
      max_batch: the largest batch of a request, 1 or more.
    """

    name: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int

    @abstractmethod
    def parameters(self) -> Mapping[str, str | int | float | bool]:
        """What the metadata says beyond the protocol."""

    @abstractmethod
    async def not_ready(self) -> str | None:
        """Why the model cannot answer now, as a sentence; None when it can."""

    @abstractmethod
    async def infer(
        self, request: oip.Request, arrived: float, decoded: float
    ) -> tuple[Sequence[tuple[TensorSpec, np.ndarray]], Mapping[str, str | int | float | bool]]:
        """Answers a request that has passed the codec: (outputs, response parameters).

        `arrived` and `decoded` are when the request's head arrived and when its tensors were decoded, by the clock of
        the event loop, which is `time.monotonic()`. Raises `OipError` with the status to answer.
        """


class Inference:
    """Answers the inference requests of a server.

    Args:
      metrics: where they are counted.
      bodies: reads and unpacks their bodies.
      timeout_s: how long an answer may take.
    """

    def __init__(self, metrics: Metrics, bodies: BodyReader, timeout_s: float) -> None:
        self._metrics, self._bodies, self._timeout_s = metrics, bodies, timeout_s
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")

    async def answer(self, model: ServedModel, request: web.BaseRequest) -> web.Response:
        """The answer, or the refusal, of a request to this model; counted once it is on its way."""
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        header = request.headers.get(oip.HEADER)
        try:
            body, packed = await self._bodies.read(request)
            self._metrics.received_bytes.inc(len(body))
            message = await self._aside(
                packed or oip.json_bytes(body, header) > _QUICK_BYTES, self._decode, body, packed, header, model
            )
            decoded = loop.time()
            self._metrics.decode_seconds.observe(decoded - arrived)
            response = await self._response(model, message, arrived, decoded)
        except OipError as error:
            response = refusal(error.status, error.message, error.headers)
        except Exception:
            self._metrics.requests.labels(model.name, "500").inc()
            raise
        loop.call_soon(self._count, model, response, arrived)
        return response

    def _count(self, model: ServedModel, response: web.Response, arrived: float) -> None:
        self._metrics.answered(model.name, response.status, asyncio.get_running_loop().time() - arrived)
        if response.status == 200:
            self._metrics.sent_bytes.inc(response.content_length or 0)

    async def _response(self, model: ServedModel, message: oip.Request, arrived: float, decoded: float) -> web.Response:
        try:
            outputs, parameters = await within(self._timeout_s, model.infer(message, arrived, decoded))
        except asyncio.exceptions.TimeoutError as error:
            late = f"model {model.name!r} did not answer within {self._timeout_s:g} s."
            raise OipError(504, late) from error
        as_json = sum(array.size for spec, array in outputs if not message.outputs.get(spec.name, True))
        answer, length = await self._aside(
            as_json * 4 > _QUICK_BYTES, oip.encode_response, model.name, VERSION, message, outputs, parameters
        )
        return web.Response(body=answer, headers=_JSON if length is None else {oip.HEADER: length, **_BINARY})

    def _decode(self, body: bytes | memoryview, packed: bool, header: str | None, model: ServedModel) -> oip.Request:
        plain = self._bodies.unpack(body) if packed else body
        size = oip.json_bytes(plain, header)
        if size > _MOST_JSON_BYTES:
            most = f"{_MOST_JSON_BYTES / 1e6:g} MB; larger tensors can be sent in binary"
            raise OipError(413, f"the JSON of the request has {size} bytes; legal: at most {most}.")
        return oip.decode_request(plain, header, model.name, VERSION, model.inputs, model.outputs, model.max_batch)

    async def _aside(self, is_long: bool, work: Callable[..., Any], *arguments: Any) -> Any:
        """Does some work, beside the event loop where it takes long."""
        if not is_long:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._decoding, work, *arguments)


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """The OIP error object."""
    body = json.dumps({"error": message}).encode()
    return web.Response(body=body, status=status, headers=_JSON | dict(headers or {}))
