"""Exchanges over HTTP/1.1 with one server: what a coordinator needs of it, and no more.

One request is sent to several workers at once, in one event loop; what each costs there is waited for by all. This is
why it is not done with aiohttp (WORKSPACE.md). A server is trusted with nothing: an answer is read strictly, and within
its limits of size and time.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from .addresses import Addresses
from .waiting import within

CONNECTING = "connecting"
WAITING = "waiting for the answer"
READING = "reading the answer"

_MOST_HEAD_BYTES = 32768
# A connection is not used any more after so many seconds without an exchange; servers close theirs later.
_IDLE_S = 15.0
_LEAST_S = 0.001
_END_OF_HEAD = b"\r\n\r\n"
# RFC 9112: a status line, whose reason may be missing along with its space; a field, without folding.
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?")
_FIELDS = re.compile(r"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*")
_LENGTH = re.compile(r"[0-9]{1,18}")


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
        # The answer's status and fields, and its body's length, once its head is there.
        self._head: tuple[int, dict[str, str], int] | None = None
        self._most_bytes, self._limit_s = 0, 0.0
        self.is_open, self.used = True, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

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
                self._take_body(*self._head)
        except WrongAnswerError as error:
            self._answer.set_exception(error)
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

    def _take_head(self) -> tuple[int, dict[str, str], int] | None:
        """The head, taken off what was received; None while it is not complete."""
        end = self._received.find(_END_OF_HEAD, 0, _MOST_HEAD_BYTES)
        if end < 0:
            if len(self._received) >= _MOST_HEAD_BYTES:
                raise _wrong(f"the head of its answer is longer than {_MOST_HEAD_BYTES} bytes")
            return None
        head = self._received[:end].decode("latin-1")
        del self._received[: end + len(_END_OF_HEAD)]
        said = _STATUS.match(head)
        if said is None:
            raise _wrong("its answer is not HTTP/1.1")
        if _FIELDS.fullmatch(head, said.end()) is None:
            raise _wrong("the head of its answer is malformed")
        fields: dict[str, str] = {}
        for line in head[said.end() :].split("\r\n")[1:]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            # One that stands twice is a list, which is no length.
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        options = [option.strip() for option in fields.get("connection", "").lower().split(",")]
        if "close" in options or (said[1] == "0" and "keep-alive" not in options):
            self.is_open = False
        status = int(said[2])
        return status, fields, self._length(status, fields)

    def _length(self, status: int, fields: Mapping[str, str]) -> int:
        length = fields.get("content-length", "")
        if "transfer-encoding" in fields or not _LENGTH.fullmatch(length):
            if status == 200:
                raise _wrong("its answer has no length" if not length else f"its answer has the length {length[:60]!r}")
            # A refusal says enough by its status; where its body ends is not known.
            self.is_open = False
            self._received.clear()
            return 0
        if int(length) > self._most_bytes:
            raise _wrong(f"its answer is longer than {self._most_bytes} bytes")
        return int(length)

    def _take_body(self, status: int, fields: Mapping[str, str], length: int) -> None:
        if len(self._received) < length or self._answer is None or self._transport is None:
            return
        # An answer to half a request, or one with something after it, ends what the connection is good for.
        if len(self._received) > length or self._transport.get_write_buffer_size():
            self.is_open = False
        self._answer.set_result(Answer(status, fields, bytes(self._received[:length]), time.perf_counter()))


def _wrong(message: str) -> WrongAnswerError:
    return WrongAnswerError(READING, message)
