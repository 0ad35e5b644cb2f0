"""Reads and unpacks the bodies of requests, within limits of size and time."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import HttpVersion11, web

from ..base.waiting import within
from ..protocol.oip import OipError
from .connections import Connection

_LIMITS_AT_ONCE = 4
_ENCODINGS = ("", "identity", "gzip", "deflate")


class BodyReader:
    """Reads request bodies.

    Args:
      max_body_mb: the largest, as sent and unpacked, in MB.
      timeout_s: how long one may take to arrive.

    Attributes:
      limit: the largest, in bytes.
    """

    def __init__(self, max_body_mb: float, timeout_s: float) -> None:
        self.limit, self._timeout_s = int(max_body_mb * 1e6), timeout_s
        self._arriving = 0
        self._legal = f"legal: at most {max_body_mb:g} MB, decompressed"

    async def read(self, request: web.BaseRequest) -> tuple[bytes, bool]:
        """The body as it was sent, and whether it is packed: if so, `unpack` it.

        Raises `OipError`: 413 (too large; at once where its length is declared), 408 (too slow, or not to be parsed),
        415 (packed in another way than gzip or deflate), 503 (all bodies on their way would take more than four times
        the limit, or the server stops) and 400 (its client is gone).
        """
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise OipError(415, f"content encoding {encoding!r} is not supported; legal: gzip, deflate.")
        if (request.content_length or 0) > self.limit:
            raise OipError(413, f"the request body has {request.content_length} bytes; {self._legal}.")
        _ask_for_body(request)
        try:
            chunks = self._chunks(request)
            # A limit costs more than taking what is there.
            body = await (chunks if request.content.is_eof() else within(self._timeout_s, chunks))
        except asyncio.exceptions.TimeoutError as error:
            late = f"the request body did not arrive within {self._timeout_s:g} s."
            raise OipError(408, late) from error
        except web.RequestPayloadError as error:
            raise OipError(400, f"the request body cannot be read: {error}.") from error
        except ConnectionResetError as error:
            raise OipError(400, "the client closed the connection before its request was there.") from error
        if isinstance(request.protocol, Connection) and request.protocol.stopped:
            raise OipError(503, "the server stops, and the request's body was not there yet.", {"Retry-After": "1"})
        return body, encoding in ("gzip", "deflate")

    def unpack(self, body: bytes | memoryview) -> bytes:
        """What the gzip or zlib stream `body` holds; unpacks no more than the limit of it.

        Raises `OipError`: 413 (too large) and 400 (no such stream).
        """
        stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            plain = stream.decompress(body, self.limit + 1)
        except zlib.error as error:
            raise OipError(400, "the request body is not as its content encoding says.") from error
        if len(plain) > self.limit:
            raise self._too_large()
        if not stream.eof or stream.unused_data:
            raise OipError(400, "the request body is not as its content encoding says.")
        return plain

    async def _chunks(self, request: web.BaseRequest) -> bytes:
        chunks, size = [], 0
        try:
            while chunk := await request.content.readany():
                size += len(chunk)
                self._arriving += len(chunk)
                if size > self.limit:
                    raise self._too_large()
                if self._arriving > _LIMITS_AT_ONCE * self.limit:
                    raise OipError(
                        503, "too many large requests arrive at once; try again later.", {"Retry-After": "1"}
                    )
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self._arriving -= size

    def _too_large(self) -> OipError:
        return OipError(413, f"the request body is too large; {self._legal}.")


def _ask_for_body(request: web.BaseRequest) -> None:
    """Tells a client that waits for it to send its body."""
    is_waiting = "Expect" in request.headers and request.version >= HttpVersion11 and not request.content.is_eof()
    if is_waiting and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
