"""The HTTP side that worker and coordinator share: an Open Inference Protocol v2 server of some models."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from aiohttp import web
from prometheus_client import generate_latest

from ..protocol.oip import OipError
from .bodies import BodyReader
from .connections import Connection, Handler
from .inference import VERSION, Inference, ServedModel, refusal
from .metrics import Metrics

_LIVE = "/v2/health/live"
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/ready|/infer)?")


class Server:
    """Answers the requests of one server.

    Args:
      kind: `worker` or `coordinator`, for the server metadata.
      models: what it serves.
      metrics: where requests are counted.
      token: the bearer token to ask for, or None.
      max_body_mb: the largest request body, decompressed, in MB.
      request_timeout_s: how long a request may take, its body's arrival and its answer each.
      pages: more paths to answer with GET, and what answers each; the token may also come as the password of HTTP's
        basic authentication, as browsers send it.

    Source: the paths and objects are the OIP's and its model repository extension's.
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
        self._kind, self._metrics, self._models = kind, metrics, models
        self._inference = Inference(metrics, BodyReader(max_body_mb, request_timeout_s), request_timeout_s)
        self._pages = dict(pages or {})
        # What answers each path, by method. All paths are known, so none is searched for while an image waits.
        self._routes: dict[str, dict[str, Handler]] = {
            "/v2": {"GET": self._server_metadata},
            _LIVE: {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/v2/repository/index": {"GET": self._index, "POST": self._index},
            "/metrics": {"GET": self._expose},
        }
        for model in models:
            for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{VERSION}"):
                self._routes[path] = {"GET": partial(self._model_metadata, model)}
                self._routes[f"{path}/ready"] = {"GET": partial(self._model_ready, model)}
                self._routes[f"{path}/infer"] = {"POST": partial(self._inference.answer, model)}
        self._routes |= {path: {"GET": page} for path, page in self._pages.items()}
        # Another one for each process, so that whoever knows a server by two addresses can notice.
        self._instance = secrets.token_hex(8)
        self.change_token(token)

    @property
    def paths(self) -> Collection[str]:
        """The paths that it answers."""
        return self._routes.keys()

    def change_token(self, token: str | None) -> None:
        """Asks for this token from now on."""
        self._bearer = None if token is None else f"Bearer {token}".encode()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request; every refusal is the OIP error object."""
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.begin(request)
        try:
            self._authorize(request)
            return await self._handler(request)(request)
        except OipError as error:
            return refusal(error.status, error.message, error.headers)
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception:
            logging.exception("%s %s failed", request.method, request.path)
            return refusal(500, "the server failed on this request; its log has the traceback.")
        finally:
            if isinstance(connection, Connection):
                connection.end()

    def _authorize(self, request: web.BaseRequest) -> None:
        if self._bearer is None or request.path == _LIVE:
            return
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        is_page = request.path in self._pages
        # Browsers ask their user for a name and a password, and for no bearer token.
        if is_page and shown.startswith(b"Basic "):
            shown = b"Bearer " + _password(shown.removeprefix(b"Basic "))
        if not hmac.compare_digest(shown, self._bearer):
            message = "the bearer token is missing or wrong; legal: 'Authorization: Bearer <token>'."
            scheme = 'Basic realm="any name, and the token as password"' if is_page else "Bearer"
            raise OipError(401, message, {"WWW-Authenticate": scheme})

    def _handler(self, request: web.BaseRequest) -> Handler:
        path, method = request.path, request.method
        by_method = self._routes.get(path)
        if by_method is None:
            raise OipError(404, self._unknown(path))
        # A GET comes with its HEAD.
        handler = by_method.get("GET" if method == "HEAD" else method)
        if handler is None:
            legal = ", ".join(sorted({*by_method, "HEAD"} if "GET" in by_method else by_method))
            message = f"method {method} is not allowed at {path!r}; legal: {legal}."
            raise OipError(405, message, {"Allow": legal})
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            raise OipError(417, "the Expect header asks for something unknown; legal: 100-continue.")
        return handler

    def _unknown(self, path: str) -> str:
        """Why a path that is not answered is not, as a sentence."""
        names = [model.name for model in self._models]
        match = _MODEL.fullmatch(path)
        if match is None:
            known = ", ".join(["/v2 and what lies below it", "/metrics", *self._pages])
            return f"path {path!r} is unknown; legal: {known}."
        name, version = match.groups()
        if name not in names:
            return f"model {name!r} is not served here; served: {', '.join(names)}."
        return f"version {version!r} of model {name!r} is unknown; legal: {VERSION}."

    async def _server_metadata(self, request: web.BaseRequest) -> web.Response:
        return web.json_response(
            {"name": f"paradis-tf-fusion-{self._kind}", "version": VERSION, "extensions": _EXTENSIONS}
            | {"instance": self._instance}
        )

    async def _live(self, request: web.BaseRequest) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.BaseRequest) -> web.Response:
        # A server that has some of its models answers for those.
        reasons = [await model.not_ready() for model in self._models]
        if reasons and reasons[0] is not None and None not in reasons:
            raise OipError(503, reasons[0])
        return web.json_response({"ready": True})

    async def _model_ready(self, model: ServedModel, request: web.BaseRequest) -> web.Response:
        reason = await model.not_ready()
        if reason is not None:
            raise OipError(503, reason)
        return web.json_response({"name": model.name, "ready": True})

    async def _model_metadata(self, model: ServedModel, request: web.BaseRequest) -> web.Response:
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

    async def _index(self, request: web.BaseRequest) -> web.Response:
        entries = []
        for model in self._models:
            reason = await model.not_ready()
            state = {"state": "READY" if reason is None else "UNAVAILABLE", "reason": reason or ""}
            entries.append({"name": model.name, "version": VERSION} | state)
        return web.json_response(entries)

    async def _expose(self, request: web.BaseRequest) -> web.Response:
        text = generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _password(encoded: bytes) -> bytes:
    """The password of basic credentials, empty where they are none. Source: RFC 7617."""
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError:
        return b""
