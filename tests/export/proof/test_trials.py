"""What of a trial with boards is a fault, told from requests made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.emulation.boards import Board
from export.emulation.cluster import Trial
from export.proof import trials
from export.proof.engines import Engine, EngineOutputs
from fusion.base.program import UserError
from fusion.bench.load import Attempt
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from tests.export.conftest import Exported

SWITCH = "0.5+0.25+0.25"
BOARDS = {"worker-0": "aarch64", "worker-1": "aarch64", "worker-2": "armhf"}
KILLED_AT = 10.0
TOGETHER, MOVED, LEFT = "worker-0,worker-1,worker-2", "worker-2,worker-1,worker-1", ",worker-1,worker-2"
"""Who answers while all are there; then, where any serves any slice, and where each serves its own."""


class Cluster:
    """Makes a trial's answers: of ARM as the bundle stores them, but on armhf, whose outputs are one more."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.images, stored = bundle.read_samples()
        arm = {key.removesuffix("/arm"): array for key, array in stored.items() if key.endswith("/arm")}
        self.stored = {"aarch64": arm, "armhf": {key: array ^ 1 for key, array in arm.items()}}

    def answer(self, image: int, devices: str, started: float = 0.0, **changed: Any) -> Attempt:
        """An answer of these devices, or with an empty name the answer without that slice."""
        named, total = devices.split(","), np.zeros(len(self.bundle.labels))
        for device, part in zip(named, self.bundle.find_switch(SWITCH).slices, strict=True):
            if device:
                file = part.files["int8"]
                stored = self.stored[BOARDS[device]][f"{part.model}/int8"][image].astype(np.float64)
                assert file.output.scale is not None
                total = total + (stored - (file.output.zero_point or 0)) * file.output.scale
        missing = ",".join(str(number) for number, name in enumerate(named) if not name)
        said = {
            "model_id": self.bundle.model_id,
            "switch": SWITCH,
            "devices": devices,
            "missing": missing,
            "degraded": bool(missing),
        }
        logits = total.astype(np.float32)
        whole = Attempt(image, 200, started, started + 1, 1, 1, {"logits": logits}, said, "")
        return dataclasses.replace(whole, **changed)

    def after(self, *devices: str) -> list[Attempt]:
        """Answers of these devices to requests that were sent one after the other when one was killed."""
        return [self.answer(place % 4, named, KILLED_AT + 1 + 2 * place) for place, named in enumerate(devices)]

    def late(self, started: float) -> Attempt:
        return self.answer(0, TOGETHER, started, status=504, outputs={}, parameters={})

    def faults(
        self,
        *busy: Attempt,
        calm: Sequence[Attempt] = (),
        after: Sequence[Attempt] | None = None,
        own: bool = False,
        expects: bool = False,
    ) -> list[str]:
        """What is wrong with these requests, with one under way at the kill and with these `after` it; by default with
        two that are answered rightly."""
        offline: Mapping[str, EngineOutputs] = {
            name: EngineOutputs(Engine("tflite_runtime", board=Board(name, Path("a"), Path("q"))), "made up", stored)
            for name, stored in self.stored.items()
        }
        claims = trials.make_claims(self.bundle, "int8", self.images, BOARDS, offline)
        under_way = self.answer(0, TOGETHER, KILLED_AT - 0.5)
        ended = self.after(*[LEFT if own else MOVED] * 2) if after is None else after
        trial = Trial(BOARDS, own, calm, [under_way, *busy, *ended], KILLED_AT)
        expected = trials.expected_answers(self.bundle, self.bundle.find_switch(SWITCH))
        return trials.faults(trial, claims, expected if expects else None)


@pytest.fixture
def cluster(exported: Exported) -> Cluster:
    return Cluster(manifest.load(exported.bundle))


def test_answers_of_the_boards_that_they_claim_are_right(cluster: Cluster) -> None:
    assert not cluster.faults(
        cluster.answer(0, TOGETHER),
        # Under way at the kill.
        cluster.answer(1, ",worker-2,worker-1", KILLED_AT - 0.5),
        cluster.answer(1, "worker-2,worker-1,worker-1", KILLED_AT + 1),
        cluster.late(0.0),
    )


@pytest.mark.parametrize("own", [True, False])
def test_some_are_answered_when_a_board_is_gone(cluster: Cluster, own: bool) -> None:
    said = "no request was answered that was sent when the coordinator knew that worker-0 is gone."
    refused = [cluster.late(KILLED_AT + 1 + place) for place in range(60)]
    first, second = cluster.after(*[LEFT if own else MOVED] * 2)
    for after in (refused, [], [first, *refused[:1]]):
        assert cluster.faults(after=after, own=own) == [said]
    assert cluster.faults(after=[*refused, first, second], own=own) == []


def test_boards_with_slices_of_their_own_all_answer_but_the_killed(cluster: Cluster) -> None:
    for devices in (",worker-1,", ",,worker-2", ",worker-1,worker-1", "worker-1,worker-1,worker-2"):
        for place in (0, 1):
            after = cluster.after(LEFT, LEFT, LEFT)
            after[place] = cluster.after(*[devices] * 3)[place]
            said = f"image {place}: its answer is of {devices!r}; legal: {LEFT!r}, all boards that are left."
            assert cluster.faults(after=after, own=True) == [said]
    assert cluster.faults(cluster.answer(1, ",worker-1,", KILLED_AT - 0.5), own=True) == []


def test_boards_with_all_slices_do_the_work_of_the_killed(cluster: Cluster) -> None:
    for devices in (LEFT, "worker-2,,worker-1", ",,worker-1"):
        legal = "no slice missing, since the boards that are left have all."
        for after in (cluster.after(MOVED, MOVED, devices), cluster.after(LEFT, MOVED, devices)):
            assert cluster.faults(after=after) == [f"image 2: its answer is of {devices!r}; legal: {legal}"]
    # The coordinator finds it out by requests: by those under way, and the first that is sent then.
    assert cluster.faults(after=cluster.after(LEFT, MOVED)) == []
    assert cluster.faults(cluster.answer(3, LEFT, KILLED_AT - 0.5), cluster.answer(3, LEFT, KILLED_AT + 1.5)) == []


def test_what_other_boards_give_is_wrong(cluster: Cluster) -> None:
    true = cluster.answer(1, "worker-2,worker-1,worker-1", KILLED_AT + 1)
    for devices in ("worker-1,worker-1,worker-2", "worker-2,worker-1,worker-2"):
        (fault,) = cluster.faults(dataclasses.replace(true, parameters={**true.parameters, "devices": devices}))
        assert fault.startswith("request 1, image 1: its output is ")


def test_nothing_but_the_deadline_refuses(cluster: Cluster) -> None:
    for status, error in ((0, "the connection was closed"), (500, "no"), (503, "no living device serves slice 0")):
        lost = cluster.answer(2, "worker-0,worker-1,worker-2", status=status, outputs={}, parameters={}, error=error)
        assert cluster.faults(lost) == [f"request 1, image 2: status {status}: {error}"]


def test_the_dead_answer_nothing_that_is_sent_after_their_end(cluster: Cluster) -> None:
    for started, faults in ((KILLED_AT - 0.1, 0), (KILLED_AT + 0.1, 1)):
        found = cluster.faults(cluster.answer(3, "worker-1,worker-0,worker-1", started))
        assert found == ["image 3: worker-0 has a part in an answer to what was sent after its end."] * faults


def test_boards_with_slices_of_their_own_all_have_a_part(cluster: Cluster) -> None:
    calm = [cluster.answer(0, "worker-0,worker-1,worker-2"), cluster.answer(1, "worker-0,worker-1,worker-1")]
    assert cluster.faults(calm=calm) == []
    assert cluster.faults(calm=calm, own=True) == ["image 1: not all boards have a part in its answer."]


def test_samples_are_answered_as_the_bundle_expects(cluster: Cluster) -> None:
    for own in (False, True):
        # The 32-bit board of this test differs from what is expected.
        calm = [cluster.answer(image, "worker-0,worker-1,worker-2") for image in (0, 1)]
        wrong = [f"image {image}: its answer is not the one that the bundle expects." for image in (0, 1)]
        assert cluster.faults(calm=calm, own=own, expects=True) == wrong
    cluster.stored["armhf"] = cluster.stored["aarch64"]
    assert cluster.faults(calm=[cluster.answer(0, "worker-0,worker-1,worker-2")], own=True, expects=True) == []


def test_a_bundle_without_such_a_switch_is_refused(bundle: Path) -> None:
    with pytest.raises(UserError, match=r"^bundle '.*' has the switches 1\.0, .*; legal: one of 3 slices\.$"):
        trials.find_switch(manifest.load(bundle))
