"""The fused model as a coordinator serves it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..bundle.contents import Bundle
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from ..rules.answers import Answers
from ..rules.early import IsSettled
from ..serving.inference import ServedModel
from ..serving.journal import Journal
from . import planning
from .dispatch import RETRY, Dispatch, Outcome
from .estimates import Estimate, now
from .fleet import Fleet
from .fleet_metrics import FleetMetrics
from .planner import Goal

_RECENT = 50
# What is left of a request's time for sending the answer.
_SENDING_S = 0.004
# Where a refusal comes from, by the keys that the status has of all.
_NOWHERE = {"switch": "", "devices": "", "missing": "", "early": False, "degraded": False}


@dataclass(frozen=True)
class Limits:
    """What a request may have: images, seconds, and an early answer, of `early.MODES`; and how many may run at once."""

    batch: int
    running: int
    longest_s: float
    early_answer: str


class FusedModel(ServedModel):
    """What the devices answer together; see `ServedModel`. Gives the tensors of `answers` for `image` UINT8 (N, height,
    width, channels).

    A request's parameter `timeout`, in microseconds, takes the place of the deadline of `goal`. `is_settled` decides
    early answers, if there are any. Answers and refusals are counted in `metrics` and told to the `journal`.
    """

    platform = "fusion"

    def __init__(
        self,
        bundle: Bundle,
        fleet: Fleet,
        metrics: FleetMetrics,
        limits: Limits,
        answers: Answers,
        is_settled: IsSettled | None,
        journal: Journal,
    ) -> None:
        self.name, self.max_batch = bundle.name, limits.batch
        self.inputs = (TensorSpec("image", "UINT8", (-1, *bundle.shape)),)
        self.outputs = answers.outputs
        self._bundle, self._fleet, self._goal = bundle, fleet, fleet.goal
        self._limits, self._journal = limits, journal
        self._answers, self._is_settled = answers, is_settled
        # A tail takes its time, and is not thread-safe.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tail") if bundle.tail else None
        # What making an answer takes for an image; a tail's first is measured now.
        started = now()
        answers(np.zeros((1, *bundle.shape), np.uint8), [np.zeros((1, *bundle.output_shape))])
        self._fuse = Estimate((now() - started) * 1e3)
        self._running = 0
        self._counts = dict.fromkeys(("answered", "early", "degraded", "refused", "late_slices"), 0)
        # When they ended, and what the status says of them; without their outputs, which may be large.
        self._recent: deque[tuple[float, Mapping[str, Any]]] = deque(maxlen=_RECENT)
        self._started = now()
        self._metrics = metrics

    def parameters(self) -> Mapping[str, str | int | float | bool]:
        return {
            "model_id": self._bundle.model_id,
            "precision": self._fleet.precision,
            "deadline_ms": self._goal.deadline_ms,
        }

    async def not_ready(self) -> str | None:
        return self._fleet.no_plan() if self._fleet.decide(self._goal).chosen is None else None

    async def infer(
        self, request: oip.Request, arrived: float, decoded: float
    ) -> tuple[Sequence[tuple[TensorSpec, np.ndarray]], Mapping[str, str | int | float | bool]]:
        """Answers with the fused outputs; with the request parameter `timeline` true, also with a JSON `timeline` whose
        times are in ms since the request arrived."""
        timeline = oip.flag(request.parameters, "timeline")
        goal = self._goal_of(request.parameters)
        if self._running >= self._limits.running:
            self._record_refusal(arrived, 503)
            raise OipError(503, f"{self._running} requests are running, which is the most; try again later.", RETRY)
        self._running += 1
        images, loop = request.inputs["image"], asyncio.get_running_loop()
        ends = arrived + (goal.deadline_ms - self._fuse.ms * len(images)) / 1e3 - _SENDING_S
        dispatch = Dispatch(self._fleet, images, goal, ends - now(), self._is_settled)
        try:
            outcome = await dispatch.run()
            arrays, fuse_ms = await self._make_answer(images, outcome)
        except OipError as error:
            self._record_refusal(arrived, error.status)
            raise
        finally:
            self._running -= 1
            # Once the answer is on its way, as all that is counted.
            loop.call_soon(self._record_events, dispatch)
        decode_ms, parameters = (decoded - arrived) * 1e3, self._parameters_of(outcome)
        loop.call_soon(self._record, arrived, outcome, decode_ms, fuse_ms, parameters)
        if timeline:
            parameters = parameters | {"timeline": json.dumps(_timeline(outcome, arrived, decode_ms, fuse_ms))}
        return list(zip(self.outputs, arrays, strict=True)), parameters

    def status(self) -> dict[str, Any]:
        """Everything that a person wants to know of the cluster, as JSON values.

        Of `requests`, `answered` is all answers, those among them that are `early` or `degraded` included; `refused` is
        requests without an answer. `late_slices` counts no requests, but slices that were not waited for.
        """
        time = now()
        return {
            "name": self.name,
            "model_id": self._bundle.model_id,
            "uptime_s": time - self._started,
            "early_answer": self._limits.early_answer,
            **planning.describe(self._fleet),
            "requests": {"running": self._running, **self._counts},
            "recent": [{"age_s": time - ended, **recent} for ended, recent in reversed(self._recent)],
        }

    def _goal_of(self, parameters: oip.Parameters) -> Goal:
        timeout_s = oip.timeout_s(parameters)
        if timeout_s is None:
            return self._goal
        return replace(self._goal, deadline_ms=min(timeout_s, self._limits.longest_s) * 1e3)

    async def _make_answer(self, images: np.ndarray, outcome: Outcome) -> tuple[Sequence[np.ndarray], float]:
        """The answer's tensors, and how many milliseconds making them took."""
        started = now()
        contributions = [arrival.partial.outputs for arrival in outcome.arrivals.values()]
        if self._thread is None:
            arrays = self._answers(images, contributions)
        else:
            loop = asyncio.get_running_loop()
            arrays = await loop.run_in_executor(self._thread, self._answers, images, contributions)
        fuse_ms = (now() - started) * 1e3
        self._fuse.add(fuse_ms / len(images))
        return arrays, fuse_ms

    def _parameters_of(self, outcome: Outcome) -> dict[str, str | int | float | bool]:
        arrivals = [outcome.arrivals.get(number) for number in range(len(outcome.entry.slices))]
        parameters: dict[str, str | int | float | bool] = {
            "model_id": self._bundle.model_id,
            "switch": outcome.entry.switch,
            "devices": ",".join("" if arrival is None else arrival.device for arrival in arrivals),
            "missing": ",".join(map(str, outcome.missing)),
            "early": outcome.early,
            "degraded": outcome.degraded,
            "device_ms": ",".join("" if arrival is None else f"{arrival.ms:.2f}" for arrival in arrivals),
        }
        if outcome.accuracy is not None:
            parameters["expected_accuracy"] = outcome.accuracy
        return parameters

    def _record(
        self, arrived: float, outcome: Outcome, decode_ms: float, fuse_ms: float, parameters: Mapping[str, Any]
    ) -> None:
        self._counts["answered"] += 1
        self._counts["early"] += outcome.early
        self._counts["degraded"] += outcome.degraded
        self._metrics.observe(outcome, decode_ms, fuse_ms)
        self._journal.write("answer", ms=self._remember(arrived, 200, parameters), **parameters)

    def _record_events(self, dispatch: Dispatch) -> None:
        self._metrics.count(dispatch)
        self._counts["late_slices"] += len(dispatch.late)

    def _record_refusal(self, arrived: float, status: int) -> None:
        self._counts["refused"] += 1
        self._journal.write("refusal", ms=self._remember(arrived, status, _NOWHERE), status=status)

    def _remember(self, arrived: float, status: int, origin: Mapping[str, Any]) -> float:
        """Puts an answer or refusal among the recent ones; returns the milliseconds that it took."""
        ms = (now() - arrived) * 1e3
        self._recent.append((now(), {"ms": ms, "status": status} | {key: origin[key] for key in _NOWHERE}))
        return ms


def _timeline(outcome: Outcome, arrived: float, decode_ms: float, fuse_ms: float) -> dict[str, Any]:
    devices = [
        {
            "device": arrival.device,
            "url": arrival.url,
            "slice": number,
            "sent_ms": (arrival.partial.sent - arrived) * 1e3,
            "received_ms": (arrival.partial.received - arrived) * 1e3,
            "queue_ms": arrival.partial.queue_ms,
            "invoke_ms": arrival.partial.invoke_ms,
        }
        for number, arrival in outcome.arrivals.items()
    ]
    return {"switch": outcome.entry.switch, "decode_ms": decode_ms, "devices": devices, "fuse_ms": fuse_ms}
