"""The HTTP side that worker and coordinator share: an Open Inference Protocol v2 server of some
models."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from . import oip
from .oip import OipError, TensorSpec

VERSION = "1"
_LIVE = "/v2/health/live"
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
_ENCODINGS = ("", "identity", "gzip", "deflate")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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

        `arrived` and `decoded` are `time.perf_counter()` when the request's head arrived and when
        its tensors were decoded. Raises `OipError` with the status to answer.
        """


class Metrics:
    """The Prometheus metrics of one server: `fusion_requests_total` by model and status, and
    `fusion_request_seconds` by model. More can be added to `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("fusion_requests", "Inference requests.", ["model", "status"], registry=self.registry)
        self.seconds = Histogram(
            "fusion_request_seconds",
            "From the arrival of an inference request to its answer.",
            ["model"],
            registry=self.registry,
            buckets=LATENCY_BUCKETS,
        )


LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds in seconds for every latency histogram."""


class Server:
    """The routes of one server.

    Args:
      kind: `worker` or `coordinator`, for the server metadata.
      models: what it serves.
      metrics: where requests are counted.
      token: the bearer token to ask for, or None.
      max_body_mb: the largest request body, decompressed, in MB.
      request_timeout_s: how long a request may take, its body's arrival and its answer each.

    Source: the paths and objects are the OIP's and its model repository extension's; `/metrics` is
    ours.
    """

    def __init__(
        self,
        kind: str,
        models: Sequence[ServedModel],
        metrics: Metrics,
        token: str | None,
        max_body_mb: float,
        request_timeout_s: float,
    ) -> None:
        self._kind, self._metrics, self._token = kind, metrics, token
        self._models = {model.name: model for model in models}
        self._max_body_mb, self._timeout_s = max_body_mb, request_timeout_s

    def application(self) -> web.Application:
        """The aiohttp application."""
        limit = int(self._max_body_mb * 1e6)
        app = web.Application(middlewares=[self._errors, self._authorize], client_max_size=limit)
        app.router.add_get("/v2", self._server_metadata)
        app.router.add_get(_LIVE, self._live)
        app.router.add_get("/v2/health/ready", self._ready)
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            app.router.add_get(path, self._model_metadata)
            app.router.add_get(path + "/ready", self._model_ready)
            app.router.add_post(path + "/infer", self._infer)
        app.router.add_route("GET", "/v2/repository/index", self._index)
        app.router.add_route("POST", "/v2/repository/index", self._index)
        app.router.add_get("/metrics", self._expose)
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every refusal leaves as the OIP error object."""
        try:
            return await handler(request)
        except OipError as error:
            return _error(error.status, error.message)
        except web.HTTPNotFound:
            return _error(
                404,
                f"path {request.path!r} is unknown; legal: /v2 and what lies below it, /metrics.",
            )
        except web.HTTPMethodNotAllowed as error:
            legal = ", ".join(sorted(error.allowed_methods))
            message = f"method {request.method} is not allowed at {request.path!r}; legal: {legal}."
            return _error(405, message, {"Allow": legal})
        except web.HTTPException as error:
            return _error(error.status, f"{error.reason}.")
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception:
            logging.exception("%s %s failed", request.method, request.path)
            return _error(500, "the server failed on this request; its log has the traceback.")

    @web.middleware
    async def _authorize(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._token is not None and request.path != _LIVE:
            shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(shown, f"Bearer {self._token}".encode()):
                message = "the bearer token is missing or wrong; legal: 'Authorization: Bearer <token>'."
                return _error(401, message, {"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _server_metadata(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "name": f"paradis-tf-fusion-{self._kind}",
                "version": VERSION,
                "extensions": _EXTENSIONS,
            }
        )

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        for model in self._models.values():
            reason = await model.not_ready()
            if reason is not None:
                return _error(503, reason)
        return web.json_response({"ready": True})

    async def _model_ready(self, request: web.Request) -> web.Response:
        model = self._model(request)
        reason = await model.not_ready()
        if reason is not None:
            return _error(503, reason)
        return web.json_response({"name": model.name, "ready": True})

    async def _model_metadata(self, request: web.Request) -> web.Response:
        model = self._model(request)
        return web.json_response(
            {
                "name": model.name,
                "versions": [VERSION],
                "platform": model.platform,
                "inputs": [spec.metadata() for spec in model.inputs],
                "outputs": [spec.metadata() for spec in model.outputs],
                "parameters": dict(model.parameters()),
            }
        )

    async def _index(self, request: web.Request) -> web.Response:
        entries = []
        for model in self._models.values():
            reason = await model.not_ready()
            state = {"state": "READY" if reason is None else "UNAVAILABLE", "reason": reason or ""}
            entries.append({"name": model.name, "version": VERSION} | state)
        return web.json_response(entries)

    async def _expose(self, request: web.Request) -> web.Response:
        text = generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _infer(self, request: web.Request) -> web.Response:
        arrived = time.perf_counter()
        model = self._model(request)
        try:
            response = await self._answer(request, model, arrived)
        except OipError as error:
            response = _error(error.status, error.message)
        except Exception:
            self._metrics.requests.labels(model.name, "500").inc()
            raise
        self._metrics.requests.labels(model.name, str(response.status)).inc()
        self._metrics.seconds.labels(model.name).observe(time.perf_counter() - arrived)
        return response

    async def _answer(self, request: web.Request, model: ServedModel, arrived: float) -> web.Response:
        body = await self._body(request)
        message = oip.decode_request(
            body, request.headers.get(oip.HEADER), model.inputs, model.outputs, model.max_batch
        )
        try:
            outputs, parameters = await asyncio.wait_for(
                model.infer(message, arrived, time.perf_counter()), self._timeout_s
            )
        except asyncio.exceptions.TimeoutError as error:
            late = f"model {model.name!r} did not answer within {self._timeout_s:g} s."
            raise OipError(504, late) from error
        body, length = oip.encode_response(model.name, VERSION, message, outputs, parameters)
        if length is None:
            return web.Response(body=body, content_type="application/json")
        return web.Response(body=body, content_type="application/octet-stream", headers={oip.HEADER: length})

    async def _body(self, request: web.Request) -> bytes:
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise OipError(415, f"content encoding {encoding!r} is not supported; legal: gzip, deflate.")
        limit = f"legal: at most {self._max_body_mb:g} MB, decompressed"
        if (request.content_length or 0) > self._max_body_mb * 1e6:
            raise OipError(413, f"the request body has {request.content_length} bytes; {limit}.")
        try:
            body = await asyncio.wait_for(request.read(), self._timeout_s)
            packed = encoding in ("gzip", "deflate")
            return _decompress(body, int(self._max_body_mb * 1e6)) if packed else body
        except web.HTTPRequestEntityTooLarge as error:
            raise OipError(413, f"the request body is too large; {limit}.") from error
        except asyncio.exceptions.TimeoutError as error:
            late = f"the request body did not arrive within {self._timeout_s:g} s."
            raise OipError(408, late) from error
        except web.RequestPayloadError as error:
            raise OipError(400, f"the request body cannot be read: {error}.") from error
        except ConnectionResetError as error:
            raise OipError(400, "the client closed the connection before its request was there.") from error

    def _model(self, request: web.Request) -> ServedModel:
        name, version = request.match_info["name"], request.match_info.get("version", VERSION)
        model = self._models.get(name)
        if model is None:
            raise OipError(404, f"model {name!r} is not served here; served: {', '.join(self._models)}.")
        if version != VERSION:
            raise OipError(404, f"version {version!r} of model {name!r} is unknown; legal: {VERSION}.")
        return model


def _decompress(body: bytes, limit: int) -> bytes:
    """What the gzip or zlib stream `body` holds; unpacks no more than `limit` bytes of it."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise OipError(400, "the request body is not as its content encoding says.") from error
    if len(plain) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, len(plain))
    if not stream.eof or stream.unused_data:
        raise OipError(400, "the request body is not as its content encoding says.")
    return plain


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body: dict[str, Any] = {"error": message}
    return web.json_response(body, status=status, headers=headers)
