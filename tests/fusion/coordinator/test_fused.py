"""The fused model: its answers, and what it keeps of them."""

import asyncio
import contextlib
import gc
import json
import weakref

import numpy as np
import pytest

from fusion.coordinator.fleet_metrics import FleetMetrics
from fusion.coordinator.fused import FusedModel, Limits
from fusion.protocol.oip import OipError, Request
from fusion.rules import answers
from fusion.serving.journal import Journal
from fusion.serving.metrics import Metrics
from tests.fusion.coordinator.fakes import IMAGE, FakeWorker, bundle_of, entry, fleet_of, now, refusal, run

HALVES = entry("0.5+0.5", [4, 4], {(0,): 0.5, (1,): 0.45, (0, 1): 0.7})
FIRST, SECOND = "0.5+0.5-0", "0.5+0.5-1"


def tell(story, is_settled=None, running=64):
    """Runs `story(infer, model, a, b)` with a model whose fleet are a worker of each half, a and b; `infer` is
    `FusedModel.infer` of a request of one image, and gives its tensors by name and its parameters."""

    async def main():
        bundle = bundle_of(HALVES)
        a, b = FakeWorker(FIRST, device="a", ms=5.0), FakeWorker(SECOND, device="b", ms=7.0)
        async with fleet_of(a, b, entries=[HALVES]) as fleet:
            limits = Limits(32, running, 10, "off")
            counted = FleetMetrics(Metrics(), fleet), limits, answers.of(bundle, "auto", 1), is_settled, Journal(None)
            model = FusedModel(bundle, fleet, *counted)

            async def infer(**parameters):
                arrived = now()
                arrays, said = await model.infer(Request(None, {"image": IMAGE}, {}, parameters), arrived, arrived)
                return {spec.name: array for spec, array in arrays}, said

            await story(infer, model, a, b)

    run(main())


async def counts(model):
    """What the status counts, once all is counted."""
    await asyncio.sleep(0)
    return model.status()["requests"]


def test_the_answer_is_what_the_sum_of_the_slices_says():
    async def story(infer, model, a, b):
        outputs, said = await infer()
        np.testing.assert_array_equal(outputs["logits"], [[3.0] * 4])
        assert (outputs["class"].tolist(), outputs["label"].tolist()) == ([0], [b"ant"])
        origin = {"switch": "0.5+0.5", "devices": "a,b", "missing": "", "early": False, "degraded": False}
        assert said == origin | {"model_id": "0" * 64, "device_ms": "5.00,7.00", "expected_accuracy": 0.7}

    tell(story)


def test_a_timeline_for_those_who_ask():
    async def story(infer, model, a, b):
        _, said = await infer(timeline=True)
        timeline = json.loads(said["timeline"])
        assert [(one["device"], one["slice"], one["invoke_ms"]) for one in timeline["devices"]] == [
            ("a", 0, 5.0),
            ("b", 1, 7.0),
        ]
        for value in (1, "yes"):
            with pytest.raises(OipError, match="parameter 'timeline' of the request is .*; legal: true or false"):
                await infer(timeline=value)

    tell(story)


def test_it_is_ready_where_a_switch_can_be_run():
    async def story(infer, model, a, b):
        assert await model.not_ready() is None
        b.refused = refusal()
        with contextlib.suppress(OipError):
            await infer()
        # The other half is an answer too.
        assert await model.not_ready() is None
        a.refused = refusal()
        with contextlib.suppress(OipError):
            await infer()
        assert (await model.not_ready()).startswith("no switch can be run. device a refuses.")

    tell(story)


def test_a_request_has_the_time_that_it_asks_for_and_no_more_than_the_longest():
    async def story(infer, model, a, b):
        for asked_us, most_s in ((200_000, 0.2), (60_000_000, 10.0)):
            await infer(timeout=asked_us)
            # A little is left for the answer.
            assert most_s - 0.1 < a.timeouts[-1] < most_s

    tell(story)


def test_more_requests_than_may_run_are_refused():
    async def story(infer, model, a, b):
        first = asyncio.create_task(infer())
        await asyncio.sleep(0.001)
        with pytest.raises(OipError, match="1 requests are running, which is the most") as refused:
            await infer()
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        await first
        await infer()
        found = await counts(model)
        assert (found["answered"], found["refused"], found["running"]) == (2, 1, 0)

    tell(story, running=1)


def test_recent_answers_are_kept_without_their_outputs():
    async def story(infer, model, a, b):
        outputs, _ = await infer()
        kept = [weakref.ref(outputs.pop("logits")), a.answers[-1], b.answers[-1]]
        assert (await counts(model))["answered"] == 1
        gc.collect()
        assert [one() for one in kept] == [None] * 3 and len(model.status()["recent"]) == 1

    tell(story)


def test_answers_and_slices_are_counted_apart():
    settled = []

    async def story(infer, model, a, b):
        await infer()
        settled.append(True)
        await infer()
        settled.clear()
        b.hanging = [SECOND]
        await infer(timeout=10_000_000)
        a.hanging = [FIRST]
        with pytest.raises(OipError) as refused:
            await infer(timeout=10_000_000)
        assert refused.value.status == 504
        # By now b may be so slow that it is not asked; measurements have a minute, and are no requests.
        asked = sum(timeout_s <= 10 for worker in (a, b) for timeout_s in worker.timeouts)
        late = asked - (2 + 1 + 1)
        assert late in (3, 4)
        expected = {"answered": 3, "early": 1, "degraded": 1, "refused": 1, "late_slices": late, "running": 0}
        assert await counts(model) == expected
        kinds = [(one["status"], one["early"], one["degraded"], one["missing"]) for one in model.status()["recent"]]
        assert kinds == [
            (504, False, False, ""),
            (200, False, True, "1"),
            (200, True, False, "1"),
            (200, False, False, ""),
        ]

    tell(story, is_settled=lambda switch, contributions: bool(settled))
