"""The connections of a server: how many there may be, how long a client may take, and what is no HTTP at all."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers one HTTP request."""

# A request line, and each field of a head; aiohttp itself counts the fields.
_LINE_BYTES = 8190
# Half of what is kept of a body that nobody reads yet; an image of 224x224 pixels arrives without a stop.
_BUFFER_BYTES = 1 << 18
# A head that is not complete by then, in seconds, is not waited for.
_HEAD_S = 10.0
# Between two requests, in seconds; longer than clients keep their side open. An answer of which nothing was taken in
# that time is given up.
_IDLE_S = 75.0
# The rest of a refused body is read and dropped, so that the client gets to read the refusal.
_LINGER_S = 2.0
_DROPPED_BYTES = 128 << 20


class Connections:
    """Makes a connection's protocol for each client; for `loop.create_server`.

    At most `most` are open at a time. One more takes the place of the connection that has been without a request
    longest, first of those whose client has taken its answers; where a request runs on each, it is answered 503 and
    closed. Requests are answered by `handler`.

    Attributes:
      server: what aiohttp knows of them.
      open: those that are open.
    """

    def __init__(self, handler: Handler, most: int) -> None:
        # Nobody wants the answer of a request whose client is gone.
        self.server = web.Server(handler, handler_cancellation=True)
        self.open: set[Connection] = set()
        self._most = most

    def __call__(self) -> asyncio.Protocol:
        if len(self.open) >= self._most:
            idle = [connection for connection in self.open if connection.idle_since is not None]
            if not idle:
                return _Full(self._most)
            oldest = min(idle, key=lambda connection: (connection.untaken > 0, connection.idle_since or 0.0))
            self.open.discard(oldest)
            oldest.drop()
        return Connection(self)

    async def stop(self, seconds: float) -> None:
        """Closes all connections, those with a running request after their answer, for which it waits so long."""
        # Requests that have just arrived begin.
        await asyncio.sleep(0)
        self.server.pre_shutdown()
        await self.server.shutdown(seconds)


class Connection(web.RequestHandler):
    """One connection of a server, with limits that aiohttp leaves to its users.

    A head has to be complete within 10 s, the rest of a refused body is read for 2 s and 128 MiB at most, and bytes
    that are no HTTP are answered with a 4xx and the OIP error object, without a word in the log.

    Attributes:
      idle_since: `time.monotonic()` when the last request ended or the connection was made; None while one runs.
      stopped: whether the server stopped before the body of the running request was there.
    """

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_IDLE_S,
            access_log=None,  # type: ignore[arg-type]
            # The server unpacks request bodies itself, within its limit.
            auto_decompress=False,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            lingering_time=_LINGER_S,
            read_bufsize=_BUFFER_BYTES,
        )
        self._connections = connections
        self.idle_since: float | None = time.monotonic()
        self.stopped = False
        self._request: web.BaseRequest | None = None
        # aiohttp forgets its transport before all is sent.
        self._wire: asyncio.Transport | None = None
        self._unclaimed_bytes = 0
        # Since when a head is awaited; None while a request runs, and before the next one's first byte.
        self._head_since: float | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stuck_timer: asyncio.TimerHandle | None = None

    @property
    def untaken(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = cast(asyncio.Transport, transport)
        self._connections.open.add(self)
        self._await_head()
        self._watch_answers(0)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.open.discard(self)
        for timer in (self._head_timer, self._stuck_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._request = None

    def close(self) -> None:
        """Takes no other request, and nothing more of a body."""
        super().close()
        if self._request is not None and not self._request.content.is_eof():
            self.stopped = True
            self._request.content.feed_eof()

    def drop(self) -> None:
        """Closes it at once."""
        if self._wire is not None:
            self._wire.abort()
        self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._request is None and data:
            self._unclaimed_bytes += len(data)
            if self._unclaimed_bytes > _DROPPED_BYTES:
                self.force_close()
                return
            if self._head_since is None:
                self._await_head()
        super().data_received(data)

    def begin(self, request: web.BaseRequest) -> None:
        """A request's head is there."""
        self._request, self.idle_since, self._head_since, self._unclaimed_bytes = request, None, None, 0

    def end(self) -> None:
        """Its answer is made."""
        self._request, self.idle_since = None, time.monotonic()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to bytes that are no HTTP, and to what no handler should have let through."""
        if status >= 500:
            logging.error("%s failed", request.method, exc_info=exc)
            text = "the server failed on this request; its log has the traceback."
        else:
            status = 431 if isinstance(exc, LineTooLong) else status
            reason = (message or "it is malformed").strip().split("\n")[0].rstrip(":. ")
            text = f"the request is not HTTP/1.1: {reason}."
        answer = web.json_response({"error": text}, status=status)
        answer.force_close()
        return answer

    def _watch_answers(self, untaken_before: int) -> None:
        """Gives up an answer of which nothing was taken since the last look; looks again later."""
        if 0 < self.untaken == untaken_before:
            self.drop()
        else:
            loop = asyncio.get_running_loop()
            self._stuck_timer = loop.call_later(_IDLE_S, self._watch_answers, self.untaken)

    def _await_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._head_since = loop.time()
        if self._head_timer is None:
            self._head_timer = loop.call_later(_HEAD_S, self._check_head)

    def _check_head(self) -> None:
        """Gives up a head that has been awaited for too long. The timer runs on from one request to the next."""
        self._head_timer = None
        if self._head_since is None:
            return
        loop = asyncio.get_running_loop()
        if (ends := self._head_since + _HEAD_S) > loop.time():
            self._head_timer = loop.call_at(ends, self._check_head)
            return
        if self.transport is not None and self._unclaimed_bytes:
            self.transport.write(_last_answer(408, f"the request's head did not arrive within {_HEAD_S:g} s."))
        self.force_close()


class _Full(asyncio.Protocol):
    """What a client gets that comes when there are connections enough."""

    def __init__(self, most: int) -> None:
        self._most = most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        message = f"the server has {self._most} connections, which is all it takes."
        cast(asyncio.Transport, transport).write(_last_answer(503, message, {"Retry-After": "1"}))
        transport.close()


def _last_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of an answer with the OIP error object, after which the connection closes."""
    body = json.dumps({"error": message}).encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
