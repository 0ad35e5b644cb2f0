"""Where the time of a request goes, from what client, coordinator and workers tell of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from ..base.program import UserError
from .load import Attempt

PHASES = ("decode", "queue", "wire", "worker_queue", "invoke", "fuse", "answer")
"""The phases of a request, one after the other:

decode: the coordinator, from the request's head to its image. queue: until the coordinator sends the image to the
device that answers last. wire: that exchange, less what the worker tells of, HTTP. worker_queue: the worker decodes,
and waits. invoke: its invocation. fuse: the coordinator adds what came. answer: the rest, which is the request's making
and its way to the coordinator, the answer's encoding, its way back and its reading."""

_DEVICE_TIMES = ("sent_ms", "received_ms", "queue_ms", "invoke_ms")


def phases(attempt: Attempt) -> dict[str, float]:
    """The milliseconds of each of `PHASES`, whose sum is `attempt.ms`, of an answer asked for with `timeline`.

    Raises `UserError` where the answer has no timeline that is understood.
    """
    decode, fuse, devices = _timeline(attempt)
    last = max(devices, key=lambda device: device["received_ms"])
    sent, received, queued, invoked = (last[key] for key in _DEVICE_TIMES)
    return {
        "decode": decode,
        "queue": sent - decode,
        "wire": received - sent - queued - invoked,
        "worker_queue": queued,
        "invoke": invoked,
        "fuse": fuse,
        "answer": attempt.ms - received - fuse,
    }


def median_phases(attempts: Sequence[Attempt]) -> dict[str, float]:
    """The mean milliseconds of each phase over the middle fifth of the attempts by their time, at least one.

    Medians of phases do not add up to the median of the sum; these means add up to nearly that.
    """
    ranked = sorted(attempts, key=lambda attempt: attempt.ms)
    first = len(ranked) * 2 // 5
    middle = [phases(attempt) for attempt in ranked[first : max(first + 1, -(-len(ranked) * 3 // 5))]]
    return {name: statistics.fmean(line[name] for line in middle) for name in PHASES}


def slowest_invoke_ms(attempt: Attempt) -> float:
    """The milliseconds of the slowest slice's own invocation. Raises `UserError` as `phases` does."""
    return max(device["invoke_ms"] for device in _timeline(attempt)[2])


def _timeline(attempt: Attempt) -> tuple[float, float, list[dict[str, float]]]:
    """Of an answer's timeline, in ms: decoding, fusing, and `_DEVICE_TIMES` of the devices whose answers came."""
    try:
        line = json.loads(str(attempt.parameters["timeline"]))
        answered = [device for device in line["devices"] if device.get("received_ms") is not None]
        devices = [{key: float(device[key]) for key in _DEVICE_TIMES} for device in answered]
        if not devices:
            raise ValueError("no device has answered")
        return float(line["decode_ms"]), float(line["fuse_ms"]), devices
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"the answer has no timeline that is understood ({error}).") from error
