"""Reads and unpacks the bodies of requests, within limits of size and time."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import HttpVersion11, web

from ..base.waiting import within
from ..protocol.oip import OipError
from .connections import Connection

_LIMITS_AT_ONCE = 4
_PACKED = ("gzip", "x-gzip", "deflate")
# A body is unpacked in pieces of so many bytes, and may have so many gzip members: each costs its start, and a copy of
# what follows it in its piece.
_PIECE_BYTES = 65_536
_MOST_MEMBERS = 10_000


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
        if encoding not in ("", "identity", *_PACKED):
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
        return body, encoding in _PACKED

    def unpack(self, body: bytes | memoryview) -> bytes:
        """What the members of the gzip file `body`, or the zlib stream, hold together; unpacks no more than the limit.
        Zeros that fill a gzip file up are no part of it.

        Raises `OipError`: 413 (too large, or too many members) and 400 (no such file).
        """
        plain, rest = bytearray(), memoryview(body)
        is_gzip = bytes(rest[:2]) == b"\x1f\x8b"
        wbits = zlib.MAX_WBITS | 16 if is_gzip else zlib.MAX_WBITS
        stream, members = zlib.decompressobj(wbits), 1
        while rest:
            if stream.eof:
                if not is_gzip:
                    raise _wrongly_packed()
                if not rest[0] and not bytes(rest).strip(b"\0"):
                    break
                if members == _MOST_MEMBERS:
                    raise OipError(413, f"the request body has too many gzip members; legal: at most {_MOST_MEMBERS}.")
                stream, members = zlib.decompressobj(wbits), members + 1
            piece = rest[:_PIECE_BYTES]
            try:
                plain += stream.decompress(piece, self.limit + 1 - len(plain))
            except zlib.error as error:
                raise _wrongly_packed() from error
            if len(plain) > self.limit:
                raise self._too_large()
            rest = rest[len(piece) - len(stream.unused_data) :]
        if not stream.eof:
            raise _wrongly_packed()
        return bytes(plain)

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


def _wrongly_packed() -> OipError:
    return OipError(400, "the request body is not as its content encoding says.")


def _ask_for_body(request: web.BaseRequest) -> None:
    """Tells a client that waits for it to send its body."""
    is_waiting = "Expect" in request.headers and request.version >= HttpVersion11 and not request.content.is_eof()
    if is_waiting and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
