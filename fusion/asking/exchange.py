"""Exchanges over HTTP with one server, by aiohttp: each failure has a phase, and answers limits of size and time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
import weakref
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from ..base.waiting import within
from .names import ThreadResolver

CONNECTING = "connecting"
WAITING = "waiting for the answer"
READING = "reading the answer"
MALFORMED = (ValueError, KeyError, TypeError, RecursionError)
"""What reading JSON that is not as it should be raises."""

# A connection is not used any more after so many seconds without a request; servers close theirs later.
_IDLE_S = 15.0
_VERSIONS = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)
_NOT_HTTP = "its answer is not HTTP/1.1"
# What aiohttp would add to each request.
_NO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


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
    """The server is not there, or not any more."""


class AbsentError(GoneError):
    """Nothing listens at the server's address."""


class WrongAnswerError(ExchangeError):
    """What came is no answer of HTTP/1.1 with a length, or is too long."""


@dataclass(frozen=True)
class HttpAnswer:
    """A server's answer: its status, its fields (names in any case), its body, and `time.monotonic()` when that was
    there. The body of a refusal that came without its length is empty."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    received: float

    def json(self) -> Any:
        """The JSON of its body; raises, as reading that may, one of `MALFORMED`."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """What a refusal says, without its full stop."""
        try:
            reason = self.json()["error"]
        except MALFORMED:
            return "no reason given"
        return (reason if isinstance(reason, str) else json.dumps(reason)).rstrip(".")


class HttpClient:
    """One server, and the connections to it that are kept for the next exchange.

    Args:
      url: http(s)://host[:port].
      context: for https, whom to trust and what to show.
      fields: go with every request.
      connect_timeout_s: the limit of a connection, with its TLS.

    It follows no redirect, keeps no cookie, and unpacks nothing.
    """

    def __init__(
        self, url: str, context: ssl.SSLContext | None, fields: Mapping[str, str], connect_timeout_s: float
    ) -> None:
        self._url, self._context, self._fields = url.rstrip("/"), context, fields
        self._connect_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._running, self._closed = 0, False

    async def exchange(
        self,
        method: str,
        path: str,
        body: Sequence[bytes | memoryview],
        timeout_s: float,
        most_bytes: int,
        fields: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """Sends a request and returns its answer; given up, it closes its connection.

        Args:
          method, path, fields: its head's; the path is quoted.
          body: its pieces, in order.
          timeout_s: the limit of all of it.
          most_bytes: the longest body of an answer.

        Raises `SlowError`, `GoneError` and `WrongAnswerError`.
        """
        state = _State()
        _STATE.set(state)
        url, data = URL(self._url + path, encoded=True), _Pieces(body) if body else None
        self._running += 1
        try:
            return await within(timeout_s, self._ask(state, most_bytes, method, url, headers=fields, data=data))
        except aiohttp.ConnectionTimeoutError as error:
            raise SlowError(CONNECTING, f"nothing within {self._connect_s:.3g} s") from error
        except asyncio.exceptions.TimeoutError as error:
            raise SlowError(state.phase, f"nothing within {timeout_s:.3g} s") from error
        except aiohttp.ClientResponseError as error:
            raise WrongAnswerError(READING, _malformed(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise GoneError(READING, "it closed the connection") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _gone(error, state.phase) from error
        finally:
            self._running -= 1
            await self._close_when_done()

    async def close(self) -> None:
        """Closes the connections that no exchange uses; the others close after theirs."""
        self._closed = True
        await self._close_when_done()

    async def _close_when_done(self) -> None:
        if self._closed and not self._running and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _ask(self, state: _State, most_bytes: int, *request: Any, **options: Any) -> HttpAnswer:
        while True:
            try:
                return await self._ask_once(state, most_bytes, *request, **options)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                # The server may have closed a kept connection long ago, as by a restart; a new one shows whether it is
                # there.
                if not state.is_kept or state.phase != WAITING:
                    raise

    async def _ask_once(self, state: _State, most_bytes: int, *request: Any, **options: Any) -> HttpAnswer:
        state.phase = CONNECTING
        async with self._open().request(*request, allow_redirects=False, **options) as response:
            state.phase = READING
            length, version = response.content_length, response.version
            if version is not None and version not in _VERSIONS:
                response.close()
                raise WrongAnswerError(READING, f"{_NOT_HTTP}: it says HTTP/{version.major}.{version.minor}")
            if length is None:
                response.close()
                if response.status == 200:
                    raise WrongAnswerError(READING, "its answer has no length")
            elif length > most_bytes:
                response.close()
                raise WrongAnswerError(READING, f"its answer is longer than {most_bytes} bytes")
            content = b"" if length is None else await response.read()
            return HttpAnswer(response.status, response.headers, content, time.monotonic())

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(
                    ssl=True if self._context is None else self._context,
                    limit=0,
                    keepalive_timeout=_IDLE_S,
                    resolver=ThreadResolver(),
                ),
                headers=self._fields,
                skip_auto_headers=_NO_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(connect=self._connect_s),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


@dataclass
class _State:
    """How far a request is, and whether its connection was used before."""

    phase: str = CONNECTING
    is_kept: bool = False


# Of the exchange that the running task is at.
_STATE: ContextVar[_State] = ContextVar("state")


class _Connector(aiohttp.TCPConnector):
    """The connections of one client; tells a request's state when it has one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._kept: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Any:
        """As the base class's."""
        state = _STATE.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            state.is_kept = protocol in self._kept
            if not state.is_kept:
                self._kept.add(protocol)
            elif protocol is not None and protocol.should_close:
                # What came unasked would be taken for the answer.
                connection.close()
                continue
            state.phase = WAITING
            return connection


class _Pieces(aiohttp.Payload):
    """A body in pieces, which leave together with the request's head: a server that is woken twice takes longer than a
    copy."""

    def __init__(self, pieces: Sequence[bytes | memoryview]) -> None:
        super().__init__(pieces, content_type="application/octet-stream")
        self._size = sum(map(len, pieces))

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(b"".join(self._value))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)


def _malformed(error: aiohttp.ClientResponseError) -> str:
    reason = (error.message or "it is malformed").strip().split("\n")[0].rstrip(":. ")
    return f"{_NOT_HTTP}: {reason}"


def _gone(error: aiohttp.ClientError | OSError, phase: str) -> GoneError:
    """The failure of a connection."""
    cause: BaseException = error
    while isinstance(cause, aiohttp.ClientError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return (AbsentError if isinstance(cause, ConnectionRefusedError) else GoneError)(phase, _reason(cause))


def _reason(cause: BaseException) -> str:
    """Why a connection failed, as the end of a sentence."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {cause.verify_message.rstrip('.')}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {(cause.reason or str(cause)).replace('_', ' ').lower()}"
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, socket.gaierror):
        return os.strerror(cause.errno)
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
