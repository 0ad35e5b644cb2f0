"""The connections of a server: how many there may be, how long a client may take, and what is no HTTP at all."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from . import express
from .express import Express, Reply, Taken

# A request line, and each field of a head; aiohttp itself counts the fields.
_LINE_BYTES = 8190
# Half of what is kept of a body that nobody reads yet; an image of 224x224 pixels arrives without a stop.
_BUFFER_BYTES = 1 << 18
# A head that is not there by then, in seconds, is not waited for.
_HEAD_S = 10.0
# Between two requests, in seconds; longer than clients keep their side open. An answer of which nothing was taken in
# that time is given up.
_IDLE_S = 75.0
# aiohttp's own limit of that, which knows of its own requests alone: never.
_NEVER_S = 1e9
# Between two looks whether a request has ended, when the server stops, in seconds.
_LOOK_S = 0.01
# What is still to come of a refused body is read and dropped, so that the client gets to read the refusal.
_LINGER_S = 2.0
_DROPPED_BYTES = 128 << 20


class Connections:
    """Makes a connection's protocol for each client of `server`; for `loop.create_server`.

    At most `most` are open at a time. One more takes the place of the connection that has been without a request
    longest, first of those whose client has taken its answers; where a request runs on each, it is answered 503 and
    closed. What `answering` takes is answered by it, all else by `server`.
    """

    def __init__(self, server: web.Server, most: int, answering: Express | None = None) -> None:
        self.server, self._most, self.answering = server, most, answering
        self._open: set[Connection] = set()

    def __call__(self) -> asyncio.Protocol:
        if len(self._open) >= self._most:
            idle = [connection for connection in self._open if connection.idle_since is not None]
            if not idle:
                return _Full(self._most)
            oldest = min(idle, key=lambda connection: (connection.untaken > 0, connection.idle_since or 0.0))
            self._open.discard(oldest)
            oldest.drop()
        return Connection(self)

    def add(self, connection: Connection) -> None:
        """Counts a connection as open."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """Counts it no more."""
        self._open.discard(connection)


class Connection(web.RequestHandler):
    """One connection of a server, with limits that aiohttp leaves to its users.

    A head has to be complete within 10 s, what follows a refused body is read for 2 s and 128 MiB at most, and bytes
    that are no HTTP are answered with a 4xx and the OIP error object, without a word in the log.

    Attributes:
      idle_since: `time.monotonic()` when the last request ended or the connection was made; None while one runs.
      broken: what is wrong with the body of the running request, as a sentence; None while nothing is.
    """

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections.server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_NEVER_S,
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
        self.broken: str | None = None
        self._request: web.BaseRequest | None = None
        self._unclaimed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._untaken_before = 0
        # Whether the next byte is for certain the first of a request.
        self._at_start, self._ends = True, False
        self._taken: Taken | None = None

    @property
    def untaken(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)
        self._await_head()
        self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_S, self._look_whether_idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.discard(self)
        self._stop_waiting()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._taken is not None:
            self._taken.give_up()
            self._taken = None
        super().connection_lost(exc)
        self._request = None

    def close(self) -> None:
        """Takes no other request."""
        self._ends = True
        super().close()

    def force_close(self) -> None:
        """Closes it as soon as the client has what was sent."""
        self._ends = True
        super().force_close()

    def drop(self) -> None:
        """Closes it at once."""
        if self.transport is not None:
            self.transport.abort()
        self.force_close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Closes it after the running request, for which it waits so many seconds."""
        until = time.monotonic() + (timeout or 0.0)
        while self._taken is not None and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        await super().shutdown(timeout)

    def data_received(self, data: bytes) -> None:
        if self._taken is not None:
            self._taken.add(data)
            return
        if self._at_start and data and self._takes(data):
            return
        if self._request is None and data:
            self._unclaimed += len(data)
            if self._unclaimed > _DROPPED_BYTES:
                self.force_close()
                return
            if self._timer is None:
                self._await_head()
        super().data_received(data)
        if self._request is not None and self._messages:
            self._note_broken_body(self._request)

    def begin(self, request: web.BaseRequest) -> None:
        """A request's head is there."""
        self._stop_waiting()
        self._request, self.idle_since, self._unclaimed = request, None, 0

    def end(self) -> None:
        """Its answer is made."""
        self._request, self.idle_since = None, time.monotonic()
        if self.broken is not None:
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no HTTP, and to what no handler should have let through."""
        if status >= 500:
            logging.error("%s failed", request.method, exc_info=exc)
            text = "the server failed on this request; its log has the traceback."
        else:
            status = 431 if isinstance(exc, LineTooLong) else status
            text = _not_http(message)
        answer = web.json_response({"error": text}, status=status)
        answer.force_close()
        return answer

    def _takes(self, data: bytes) -> bool:
        """Whether the request that begins here is answered without aiohttp."""
        head = express.read_head(data)
        size = 0 if head is None else head.size + head.length
        # aiohttp may not be done with its last one, nor the client with reading that.
        is_free = self._waiter is not None and not self._waiter.done() and not self._messages and not self._ends
        if head is not None and is_free and self.transport is not None and size <= express.MOST_BYTES:
            answering = self._connections.answering and self._connections.answering(head)
            if answering is not None and not self.untaken:
                self._stop_waiting()
                self.idle_since, self._unclaimed = None, 0
                self._taken = Taken(head, answering, self.transport, self._leave, self._answered)
                self._taken.add(data)
                return True
        self._at_start = size == len(data)
        return False

    def _leave(self, data: bytes) -> None:
        """Leaves a request, as far as it has come, to aiohttp."""
        self._taken, self._at_start = None, False
        self.idle_since = time.monotonic()
        if self._ends and self.transport is not None:
            # aiohttp takes nothing any more.
            said = "the server stops, and the request's body was not there yet."
            self.transport.write(_last_answer(503, said, {"Retry-After": "1"}))
            self.force_close()
            return
        self.data_received(data)

    def _answered(self, reply: Reply, more: bytes) -> None:
        """Sends the answer of a request, after which these bytes came."""
        self._taken, self.idle_since = None, time.monotonic()
        if self.transport is None:
            return
        self.transport.write(express.message(reply, self._ends))
        if self._ends:
            self.force_close()
        elif more:
            # Who does not wait for answers is aiohttp's from now on, which knows how much of that to keep.
            self._at_start = False
            self.data_received(more)

    def _look_whether_idle(self) -> None:
        # aiohttp may still be sending an answer.
        is_idle = self.idle_since is not None and self._waiter is not None
        idle_s = time.monotonic() - (self.idle_since or 0.0) if is_idle else 0.0
        untaken = self.untaken
        is_stuck = 0 < untaken == self._untaken_before
        self._untaken_before = untaken
        if is_stuck or (idle_s >= _IDLE_S and not untaken):
            self.drop()
        else:
            wait_s = _IDLE_S if untaken else _IDLE_S - idle_s
            self._idle_timer = asyncio.get_running_loop().call_later(wait_s, self._look_whether_idle)

    def _note_broken_body(self, request: web.BaseRequest) -> None:
        """Ends the running request's body where what came of it cannot be parsed, which aiohttp says only to the
        request after it."""
        error = getattr(self._messages[-1][0], "exc", None)
        if error is not None and not request.content.is_eof():
            self.broken = _not_http(getattr(error, "message", ""))
            request.content.feed_eof()

    def _await_head(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport is not None and self._unclaimed:
            self.transport.write(_last_answer(408, f"the request's head did not arrive within {_HEAD_S:g} s."))
        self.force_close()


class _Full(asyncio.Protocol):
    """What a client gets that comes when there are connections enough."""

    def __init__(self, most: int) -> None:
        self._most = most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        said = f"the server has {self._most} connections, which is all it takes."
        cast(asyncio.Transport, transport).write(_last_answer(503, said, {"Retry-After": "1"}))
        transport.close()


def _not_http(message: str | None) -> str:
    reason = (message or "it is malformed").strip().split("\n")[0].rstrip(":. ")
    return f"the request is not HTTP/1.1: {reason}."


def _last_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of an answer with the OIP error object, after which the connection closes."""
    body = json.dumps({"error": message}).encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json; charset=utf-8"]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
