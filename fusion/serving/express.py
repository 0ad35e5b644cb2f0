"""The common requests, read and answered without aiohttp: one that stands in one head and a body of moderate size.

aiohttp makes two tasks, a request, a stream and a response of each, and every answer waits for that twice, at the
coordinator and at a worker. What is not read here with certainty is left to aiohttp, to the byte.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

MOST_BYTES = 1 << 19
"""The largest request, its head included, that is taken here."""

_MOST_HEAD_BYTES = 4096
# RFC 9112, without what is rare: fields of visible ASCII, no folding, a path without a query.
_HEAD = re.compile(rb"(GET|HEAD|POST) (/[!-~]*) HTTP/1\.1((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t!-~]*){1,64})\r\n\r\n")
# For the body of a request, in seconds; the slower ones are aiohttp's, with the limits of `BodyReader`.
_BODY_S = 0.1
_LENGTH = re.compile(r"[0-9]{1,9}")
# What changes how a body is read, or the connection.
_CODINGS = ("transfer-encoding", "content-encoding", "te", "trailer")
_UNUSUAL = frozenset((*_CODINGS, "expect", "upgrade", "http2-settings", "proxy-connection"))


@dataclass(frozen=True)
class Head:
    """The head of a request: its method, its path as it was sent, its fields by name in lower case, none of which
    stands twice; its own bytes, and those of the body that follows it."""

    method: str
    path: str
    fields: Mapping[str, str]
    size: int
    length: int


@dataclass(frozen=True)
class Reply:
    """What is answered: a status, a body and its fields, Content-Type among them."""

    status: int
    body: bytes
    fields: Mapping[str, str]


Answering = Callable[[memoryview, float], Awaitable[Reply]]
"""Makes the reply to a request's body, which arrived at a `time.perf_counter()`; never fails."""

Express = Callable[[Head], "Answering | None"]
"""What answers a request, by its head; None leaves it to aiohttp."""


class Taken:
    """A request that is answered here, from its first bytes on.

    Args:
      head: its head.
      answering: answers it.
      transport: what it comes by.
      leave: is given all that came of it where its body takes long.
      answered: is given its reply, and what came after it.

    Attributes:
      task: makes the answer, once all of the request is there.
    """

    def __init__(
        self,
        head: Head,
        answering: Answering,
        transport: asyncio.Transport,
        leave: Callable[[bytes], None],
        answered: Callable[[Reply, bytes], None],
    ) -> None:
        self._head, self._answering, self._transport = head, answering, transport
        self._leave, self._answered = leave, answered
        self._arrived = time.perf_counter()
        self._missing = head.size + head.length
        self._parts: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def add(self, data: bytes) -> None:
        """Takes in what arrived."""
        self._parts.append(data)
        self._missing -= len(data)
        if self.task is not None:
            # Of the next request, which can wait.
            self._transport.pause_reading()
        elif self._missing <= 0:
            self._stop_timer()
            self.task = asyncio.get_running_loop().create_task(self._answer())
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BODY_S, self._give_back)

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self._stop_timer()
        if self.task is not None:
            self.task.cancel()

    async def _answer(self) -> None:
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        end = self._head.size + self._head.length
        reply = await self._answering(memoryview(whole)[self._head.size : end], self._arrived)
        if self._parts:
            self._transport.resume_reading()
        self._answered(reply, b"".join([whole[end:], *self._parts]))

    def _give_back(self) -> None:
        self._timer = None
        self._leave(b"".join(self._parts))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def read_head(data: bytes) -> Head | None:
    """The head that `data` begins with; None where it is not complete, or is not of the common kind: then nothing is
    known of it, and it may well be legal. Source: RFC 9112."""
    found = _HEAD.match(data, 0, _MOST_HEAD_BYTES)
    return None if found is None else _parsed(found[0])


# Clients repeat themselves.
@functools.lru_cache(maxsize=64)
def _parsed(data: bytes) -> Head | None:
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    lines = found[3].decode("ascii").split("\r\n")[1:]
    pairs = [line.partition(":") for line in lines]
    fields = {name.lower(): value.strip(" \t") for name, _, value in pairs}
    if len(fields) < len(pairs) or "host" not in fields or not _UNUSUAL.isdisjoint(fields):
        return None
    length = fields.get("content-length", "0")
    if fields.get("connection", "keep-alive").lower() != "keep-alive" or not _LENGTH.fullmatch(length):
        return None
    return Head(found[1].decode("ascii"), found[2].decode("ascii"), fields, len(data), int(length))


def message(reply: Reply, closes: bool) -> bytes:
    """The bytes of an answer; `closes` says that the connection is closed after it."""
    fields = dict(reply.fields) | {"Content-Length": str(len(reply.body)), "Date": _date(int(time.time()))}
    if closes:
        fields["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n{lines}\r\n"
    return head.encode("ascii") + reply.body


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
