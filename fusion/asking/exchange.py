"""Exchanges over HTTP/1.1 with one server: what a coordinator needs of it, and no more.

One request is sent to several workers at once, in one event loop; what each costs there is waited for by all. This is
why it is not done with aiohttp (WORKSPACE.md). A server is trusted with nothing: an answer is read strictly, and within
its limits of size and time.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from ..base.waiting import within
from .addresses import Addresses
from .answer_heads import AnswerHead, HeadError, read_head

CONNECTING = "connecting"
WAITING = "waiting for the answer"
READING = "reading the answer"

# A connection is not used any more after so many seconds without an exchange; servers close theirs later.
_IDLE_S = 15.0
_LEAST_S = 0.001


class ExchangeError(Exception):
    """An exchange without an answer.

    Attributes:
      phase: `connecting`, `waiting for the answer` or `reading the answer`.
    """

    def __init__(self, phase: str, message: str) -> None:
        super().__init__(message)
        self.phase = phase


class SlowError(ExchangeError):
    """It took longer than it may."""


class GoneError(ExchangeError):
    """The server is not there, or not any more; its cause, if there is one, is the `OSError`."""


class WrongAnswerError(ExchangeError):
    """What came is no answer of HTTP/1.1 with a length, or is too long."""


@dataclass(frozen=True)
class Answer:
    """A server's answer: its status, its fields by name in lower case, its body, and `time.perf_counter()` when that
    was there. The body of a refusal that came without its length is empty."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    received: float


class HttpClient:
    """One server, and the connections to it that are kept for the next exchange.

    Args:
      url: http(s)://host[:port].
      context: for https, whom to trust and what to show.
      fields: go with every request.
      connect_timeout_s: the limit of a connection, with its TLS.

    Source: RFC 9110 and 9112, of which it takes answers of HTTP/1.0 and 1.1 with a Content-Length.
    """

    def __init__(
        self, url: str, context: ssl.SSLContext | None, fields: Mapping[str, str], connect_timeout_s: float
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context, self._connect_s = context, connect_timeout_s
        self._addresses = Addresses(self._host, self._port)
        host = f"[{self._host}]" if ":" in self._host else self._host.encode("idna").decode("ascii")
        self._fields = {"Host": host if parts.port is None else f"{host}:{parts.port}", **fields}
        # Those without an exchange, the one used last at the end.
        self._kept: list[_Connection] = []
        self._closed = False

    def head(self, method: str, path: str, fields: Mapping[str, str] | None = None) -> bytes:
        """What the requests to a path have in common, for `exchange`."""
        lines = [f"{name}: {value}\r\n" for name, value in (self._fields | dict(fields or {})).items()]
        return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}".encode("ascii")

    async def exchange(
        self, head: bytes, body: Sequence[bytes | memoryview], timeout_s: float, most_bytes: int
    ) -> Answer:
        """Sends a request and returns its answer; given up, it closes its connection.

        Args:
          head: from `head`, and more fields, each with its line's end.
          body: its parts, in order, none of which is copied where it can be helped.
          timeout_s: the limit of all of it.
          most_bytes: the longest body of an answer.

        Raises `SlowError`, `GoneError` and `WrongAnswerError`.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        length = sum(map(len, body))
        # The first part of a body is small, and goes along with the head.
        request = [b"%bContent-Length: %d\r\n\r\n%b" % (head, length, b"".join(body[:1])), *body[1:]]
        connection = self._take_kept()
        if connection is not None:
            try:
                return await self._ask(connection, request, deadline, timeout_s, most_bytes)
            except GoneError as error:
                # The server may have closed it long ago, at a restart; a new one shows whether it is there.
                if error.phase != WAITING:
                    raise
        connection = await self._connect(deadline)
        return await self._ask(connection, request, deadline, timeout_s, most_bytes)

    def close(self) -> None:
        """Closes the connections that no exchange uses; the others close after theirs."""
        self._closed = True
        while self._kept:
            self._kept.pop().close()

    async def _ask(
        self,
        connection: _Connection,
        request: Sequence[bytes | memoryview],
        deadline: float,
        timeout_s: float,
        most_bytes: int,
    ) -> Answer:
        answer = await connection.ask(request, deadline, timeout_s, most_bytes)
        if connection.is_open and not self._closed:
            self._kept.append(connection)
        else:
            connection.close()
        return answer

    def _take_kept(self) -> _Connection | None:
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        while self._kept and (self._kept[0].used < oldest or not self._kept[0].is_open):
            self._kept.pop(0).close()
        while self._kept:
            connection = self._kept.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self, deadline: float) -> _Connection:
        loop = asyncio.get_running_loop()
        limit_s = max(_LEAST_S, min(self._connect_s, deadline - loop.time()))
        try:
            return await within(limit_s, self._open(loop))
        except asyncio.exceptions.TimeoutError as error:
            raise SlowError(CONNECTING, f"nothing within {limit_s:.3g} s") from error
        except OSError as error:
            raise GoneError(CONNECTING, "no connection") from error

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        """A connection to the first of the host's addresses that takes one."""
        name = None if self._context is None else self._host
        failed = OSError(f"host {self._host!r} has no address")
        for address in await self._addresses.found():
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), address, self._port, ssl=self._context, server_hostname=name
                )
                return connection
            except ssl.SSLError:
                raise
            except OSError as error:
                failed = error
        raise failed


class _Connection(asyncio.Protocol):
    """One connection, with one exchange at a time.

    Attributes:
      is_open: whether another exchange can use it.
      used: the loop's time at the end of the last exchange.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._received = bytearray()
        # The answer's head, once it is there, and is not among what was received any more.
        self._head: AnswerHead | None = None
        self._most_bytes, self._limit_s = 0, 0.0
        self.is_open, self.used = True, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def ask(
        self, request: Sequence[bytes | memoryview], deadline: float, limit_s: float, most_bytes: int
    ) -> Answer:
        """One exchange; see `HttpClient.exchange`. What fails closes the connection."""
        if self._transport is None or not self.is_open:
            raise GoneError(WAITING, "it closed the connection")
        self._received, self._head = bytearray(), None
        self._most_bytes, self._limit_s = most_bytes, limit_s
        self._answer = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._give_up)
        try:
            for part in request:
                self._transport.write(part)
            return await self._answer
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._answer, self._received = None, bytearray()
            self.used = self._loop.time()

    def close(self) -> None:
        """Closes it at once: what is still to be sent or received, nobody wants."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Nothing was asked for, so it would be taken for the next answer.
            self.close()
            return
        self._received += data
        try:
            if self._head is None:
                self._head = self._take_head()
            if self._head is not None:
                self._take_body(self._head)
        except HeadError as error:
            self._answer.set_exception(WrongAnswerError(READING, str(error)))
            self.close()

    def eof_received(self) -> None:
        # With it the transport closes, which is not told before the loop's next turn.
        self.is_open = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            error = GoneError(self._phase, "it closed the connection")
            error.__cause__ = exc
            self._answer.set_exception(error)

    @property
    def _phase(self) -> str:
        return READING if self._received or self._head is not None else WAITING

    def _give_up(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SlowError(self._phase, f"nothing within {self._limit_s:g} s"))

    def _take_head(self) -> AnswerHead | None:
        """The head, taken off what was received; None while it is not complete."""
        head = read_head(self._received)
        if head is None:
            return None
        if head.closes:
            self.is_open = False
        if head.length is None:
            self._received.clear()
            return head
        if head.length > self._most_bytes:
            raise HeadError(f"its answer is longer than {self._most_bytes} bytes")
        del self._received[: head.size]
        return head

    def _take_body(self, head: AnswerHead) -> None:
        length = head.length or 0
        if len(self._received) < length or self._answer is None or self._transport is None:
            return
        # An answer to half a request, or one with something after it, ends what the connection is good for.
        if len(self._received) > length or self._transport.get_write_buffer_size():
            self.is_open = False
        body = bytes(self._received[:length])
        self._answer.set_result(Answer(head.status, head.fields, body, time.perf_counter()))
