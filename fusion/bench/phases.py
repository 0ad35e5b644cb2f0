"""Where the time of a request goes, from what client, coordinator and workers tell of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..protocol.tensors import OipError
from .load import Reply

PHASES = (
    "client_encode",
    "decode",
    "queue",
    "wire",
    "worker_queue",
    "invoke",
    "fuse",
    "answer",
    "client_decode",
)
"""The phases of a request, one after the other:

client_encode: the client makes the request. decode: the coordinator, from the request's head to its image. queue: until
the coordinator sends the image to the device that answers last. wire: that exchange, less what the worker tells of,
HTTP. worker_queue: the worker decodes, and waits. invoke: its invocation. fuse: the coordinator adds what came.
answer: the request's way to the coordinator, the answer's encoding and its way back. client_decode: the client reads
it."""


def phases(reply: Reply) -> dict[str, float]:
    """The milliseconds of each of `PHASES`, whose sum is `reply.ms`, of an answer that was asked for with `timeline`.

    Raises `OipError` (502) where the answer has no timeline that is understood.
    """
    try:
        line = json.loads(str(reply.parameters["timeline"]))
        last = max(_arrived(line), key=lambda device: float(device["received_ms"]))
        sent, received, queued, invoked = (
            float(last[key]) for key in ("sent_ms", "received_ms", "queue_ms", "invoke_ms")
        )
        decode, fuse = float(line["decode_ms"]), float(line["fuse_ms"])
    except (KeyError, ValueError, TypeError) as error:
        raise OipError(502, f"the answer has no timeline that is understood ({error}).") from error
    return {
        "client_encode": (reply.encoded - reply.started) * 1e3,
        "decode": decode,
        "queue": sent - decode,
        "wire": received - sent - queued - invoked,
        "worker_queue": queued,
        "invoke": invoked,
        "fuse": fuse,
        "answer": (reply.received - reply.encoded) * 1e3 - received - fuse,
        "client_decode": (reply.ended - reply.received) * 1e3,
    }


def slowest_invoke(reply: Reply) -> float:
    """The milliseconds of the slowest slice's own invocation. Raises `OipError` as `phases` does."""
    try:
        return max(float(device["invoke_ms"]) for device in _arrived(json.loads(str(reply.parameters["timeline"]))))
    except (KeyError, ValueError, TypeError) as error:
        raise OipError(502, f"the answer has no timeline that is understood ({error}).") from error


def of_the_middle(replies: Sequence[Reply]) -> dict[str, float]:
    """The mean milliseconds of each phase over the middle fifth of the replies by their time, at least one.

    Medians of phases do not add up to the median of the sum; these means add up to nearly that.
    """
    ranked = sorted(replies, key=lambda reply: reply.ms)
    half = max(1, len(ranked) // 5) / 2
    middle = ranked[int(len(ranked) / 2 - half) : int(np.ceil(len(ranked) / 2 + half))] or ranked
    found = [phases(reply) for reply in middle]
    return {name: float(np.mean([one[name] for one in found])) for name in PHASES}


def _arrived(line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The devices of a timeline whose answers came."""
    return [device for device in line["devices"] if device.get("received_ms") is not None]
