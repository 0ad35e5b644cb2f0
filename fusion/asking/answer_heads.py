"""The head of an HTTP/1.1 answer, read strictly."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

_MOST_BYTES = 32768
_END = b"\r\n\r\n"
# RFC 9112: a status line, whose reason may be missing along with its space; a field, without folding.
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?")
_FIELDS = re.compile(r"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*)*")
_LENGTH = re.compile(r"[0-9]{1,18}")


class HeadError(Exception):
    """What came is no head of an answer; as a clause that says why."""


@dataclass(frozen=True)
class AnswerHead:
    """The head of an answer.

    Attributes:
      status: its status, 100 to 599.
      fields: its fields by name in lower case; of one that stands twice, the list.
      size: its own bytes.
      length: the bytes of the body that follows it; None of a refusal that does not say.
      closes: whether the connection is of no use after it.
    """

    status: int
    fields: Mapping[str, str]
    size: int
    length: int | None
    closes: bool


def read_head(received: bytes | bytearray) -> AnswerHead | None:
    """The head that `received` begins with; None while it is not complete.

    Raises `HeadError` where it is none, is too long, or is that of a 200 without a length. Source: RFC 9112.
    """
    end = received.find(_END, 0, _MOST_BYTES)
    if end >= 0:
        return _parsed(bytes(received[: end + len(_END)]))
    if len(received) >= _MOST_BYTES:
        raise HeadError(f"the head of its answer is longer than {_MOST_BYTES} bytes")
    return None


# Servers repeat themselves.
@functools.lru_cache(maxsize=64)
def _parsed(whole: bytes) -> AnswerHead:
    head = whole[: -len(_END)].decode("latin-1")
    said = _STATUS.match(head)
    if said is None:
        raise HeadError("its answer is not HTTP/1.1")
    if _FIELDS.fullmatch(head, said.end()) is None:
        raise HeadError("the head of its answer is malformed")
    fields: dict[str, str] = {}
    for line in head[said.end() :].split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        # One that stands twice is a list, which is no length.
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    options = [option.strip() for option in fields.get("connection", "").lower().split(",")]
    closes = "close" in options or (said[1] == "0" and "keep-alive" not in options)
    status, length = int(said[2]), _length(int(said[2]), fields)
    return AnswerHead(status, fields, len(whole), length, closes or length is None)


def _length(status: int, fields: Mapping[str, str]) -> int | None:
    length = fields.get("content-length", "")
    if "transfer-encoding" not in fields and _LENGTH.fullmatch(length):
        return int(length)
    if status == 200:
        raise HeadError("its answer has no length" if not length else f"its answer has the length {length[:60]!r}")
    # A refusal says enough by its status; where its body ends is not known.
    return None
