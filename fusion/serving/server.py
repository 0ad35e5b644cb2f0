"""The HTTP side that worker and coordinator share: an Open Inference Protocol v2 server of some
models."""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web
from prometheus_client import generate_latest

from ..protocol import oip
from ..protocol.oip import OipError
from .bodies import BodyReader, expect
from .connections import Connection
from .express import Answering, Head
from .inference import FAILED, VERSION, Inference, ServedModel, refusal
from .metrics import Metrics

_LIVE = "/v2/health/live"
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""Answers one HTTP request."""


class Server:
    """The routes of one server.

    Args:
      kind: `worker` or `coordinator`, for the server metadata.
      models: what it serves.
      metrics: where requests are counted.
      token: the bearer token to ask for, or None.
      max_body_mb: the largest request body, decompressed, in MB.
      request_timeout_s: how long a request may take, its body's arrival and its answer each.
      pages: more paths to answer with GET, and what answers each; the token may also come as the password of HTTP's
        basic authentication, as browsers send it.

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
        pages: Mapping[str, Handler] | None = None,
    ) -> None:
        self._kind, self._metrics = kind, metrics
        self._models = {model.name: model for model in models}
        self._bodies = BodyReader(max_body_mb, request_timeout_s)
        self._inference = Inference(metrics, self._bodies, request_timeout_s)
        self._express: dict[tuple[str, str], ServedModel] = {}
        for model in models:
            for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{VERSION}"):
                self._express["POST", f"{path}/infer"] = model
        self._pages = dict(pages or {})
        # Another one for each process, so that whoever knows a server by two addresses can notice.
        self._instance = secrets.token_hex(8)
        self.change_token(token)

    def change_token(self, token: str | None) -> None:
        """Asks for this token from now on."""
        self._bearer = None if token is None else f"Bearer {token}".encode()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._errors, self._authorize])
        model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        # In the order in which they are tried.
        routes: list[tuple[str, str, Handler]] = [
            ("POST", model + "/infer", self._infer),
            ("POST", version + "/infer", self._infer),
            ("GET", "/v2", self._server_metadata),
            ("GET", _LIVE, self._live),
            ("GET", "/v2/health/ready", self._ready),
            ("GET", "/v2/repository/index", self._index),
            ("POST", "/v2/repository/index", self._index),
            ("GET", "/metrics", self._expose),
        ]
        for path in (model, version):
            routes += [("GET", path, self._model_metadata), ("GET", path + "/ready", self._model_ready)]
        routes += [("GET", path, page) for path, page in self._pages.items()]
        for method, path, handler in routes:
            # A GET comes with its HEAD.
            add = app.router.add_get if method == "GET" else app.router.add_post
            add(path, handler, expect_handler=expect)
        return app

    def express(self, head: Head) -> Answering | None:
        """What answers an inference request, by its head, without aiohttp; None leaves a request to `application`:
        those that are refused for their path, size or token, and all of another kind."""
        model = self._express.get((head.method, head.path))
        if model is None or head.length > self._bodies.limit:
            return None
        shown = head.fields.get("authorization", "").encode()
        if self._bearer is not None and not hmac.compare_digest(shown, self._bearer):
            return None
        return functools.partial(self._inference.reply_always, model, head.fields.get(oip.HEADER.lower()))

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal leaves as the OIP error object."""
        connection = request.protocol
        if not isinstance(connection, Connection):
            return await self._refusals(request, handler)
        connection.begin(request)
        try:
            return await self._refusals(request, handler)
        finally:
            connection.end()

    async def _refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except OipError as error:
            return _error(error.status, error.message, error.headers)
        except web.HTTPNotFound:
            known = ", ".join(["/v2 and what lies below it", "/metrics", *self._pages])
            return _error(404, f"path {request.path!r} is unknown; legal: {known}.")
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
            return _error(500, FAILED)

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._bearer is not None and request.path != _LIVE:
            shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            is_page = request.path in self._pages
            # Browsers ask their user for a name and a password, and for no bearer token.
            if is_page and shown.startswith(b"Basic "):
                shown = b"Bearer " + _password(shown.removeprefix(b"Basic "))
            if not hmac.compare_digest(shown, self._bearer):
                message = "the bearer token is missing or wrong; legal: 'Authorization: Bearer <token>'."
                asked = 'Basic realm="any name, and the token as password"' if is_page else "Bearer"
                return _error(401, message, {"WWW-Authenticate": asked})
        return await handler(request)

    async def _server_metadata(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "name": f"paradis-tf-fusion-{self._kind}",
                "version": VERSION,
                "extensions": _EXTENSIONS,
                "instance": self._instance,
            }
        )

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        # A server that has some of its models answers for those.
        reasons = [await model.not_ready() for model in self._models.values()]
        if reasons and reasons[0] is not None and None not in reasons:
            return _error(503, reasons[0])
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
            body, packed = await self._bodies.read(request)
        except OipError as error:
            self._metrics.answered(model.name, error.status, time.perf_counter() - arrived)
            raise
        reply = await self._inference.reply(model, body, packed, request.headers.get(oip.HEADER), arrived)
        return web.Response(body=reply.body, status=reply.status, headers=reply.fields)

    def _model(self, request: web.Request) -> ServedModel:
        name, version = request.match_info["name"], request.match_info.get("version", VERSION)
        model = self._models.get(name)
        if model is None:
            raise OipError(404, f"model {name!r} is not served here; served: {', '.join(self._models)}.")
        if version != VERSION:
            raise OipError(404, f"version {version!r} of model {name!r} is unknown; legal: {VERSION}.")
        return model


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    reply = refusal(status, message, headers)
    return web.Response(body=reply.body, status=reply.status, headers=reply.fields)


def _password(encoded: bytes) -> bytes:
    """The password of basic credentials, empty where they are none. Source: RFC 7617."""
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError:
        return b""
