"""Which int8 files a switch gets: quantized after training, or by quantization-aware training where that loses much."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from export.compression.settings import Compression
from export.conversion.making import FileMaker, FilePlan
from export.conversion.older import OlderBundle
from export.proof import checks, engines
from export.proof.judges import Judge
from export.proof.records import ROUNDING
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle
from fusion.bundle.typed_json import JsonTable
from fusion.rules.sum import Sum
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch


@dataclasses.dataclass(frozen=True)
class QuantizationChoice:
    """How the int8 files of a switch are made, and what was measured for that on the validation part.

    Attributes:
      key: digest of everything it depends on.
      metric: the judge's, by its name.
      images: how many images.
      keras, ptq, qat: the metric of the float network and of the files; `qat` None where post-training quantization is
        enough.
      chosen: `ptq` or `qat`.
    """

    key: str
    metric: str
    images: int
    keras: float
    ptq: float
    qat: float | None
    chosen: str

    @property
    def lost(self) -> float:
        """What the chosen files lose."""
        return self.keras - (self.ptq if self.chosen == "ptq" or self.qat is None else self.qat)


class Scorer(Protocol):
    """Scores switches on the images of `judge`, in its metric."""

    judge: Judge

    def score_network(self, switch: Switch) -> float:
        """Of the float network."""

    def score_files(self, plan: FilePlan) -> dict[Switch, float]:
        """By switch, of the int8 files of a plan."""


class ReferenceScorer:
    """Scores the network in Keras, and files on the reference runtime.

    Args:
      model: the trained supernet.
      judge: of the validation part.
      write: makes a bundle of a plan of int8 files.
    """

    def __init__(self, model: Supernet, judge: Judge, write: Callable[[FilePlan], Bundle]) -> None:
        self.judge = judge
        self._model, self._write = model, write

    def score_network(self, switch: Switch) -> float:
        outputs = checks.partial_outputs(self._model, switch, self.judge.images)
        return self._score(Sum().fuse([output.astype(np.float64) for output in outputs]))

    def score_files(self, plan: FilePlan) -> dict[Switch, float]:
        bundle = self._write(plan)
        outputs = engines.run(bundle, engines.REFERENCE, self.judge.images)
        switches = dict.fromkeys(file.switch for file in plan)
        return {switch: self._score(outputs.fused(bundle.find_switch(str(switch)), "int8")) for switch in switches}

    def _score(self, summed: np.ndarray) -> float:
        return self.judge.score(self.judge.answers(summed))


def choose_quantization(
    maker: FileMaker,
    plan: FilePlan,
    training: Compression,
    max_drop: float,
    scorer: Scorer,
    older: Mapping[str, QuantizationChoice],
    report: Callable[[str], None],
) -> tuple[FilePlan, dict[Switch, QuantizationChoice]]:
    """Scores the int8 files of a plan by post-training quantization, and trains the switches that lose too much.

    Args:
      maker: makes the files.
      plan: as they are made by post-training quantization; other precisions stay as they are.
      training: the quantization-aware training.
      max_drop: what a switch may lose against the float network before it is trained, in the judge's metric.
      scorer: scores network and files.
      older: the choices of the older bundle by switch; one with the same key is taken.
      report: is told what is being done.

    Returns:
      the plan of the better files, and the choices by switch.
    """
    int8 = {file: compression for file, compression in plan.items() if file.precision == "int8"}
    keys = _keys(maker, int8, training, max_drop, scorer.judge)
    known = {switch: older.get(str(switch)) for switch in keys}
    choices = {switch: one for switch, one in known.items() if one is not None and one.key == keys[switch]}
    unknown = {file: compression for file, compression in int8.items() if file.switch not in choices}
    if unknown:
        # With the other precisions at once, so that no process waits for the judgement.
        maker.make(unknown | {file: plan[file] for file in plan if file not in int8})
        choices |= _judge(unknown, keys, training, max_drop, scorer, report)
    trained = {file: training for file in int8 if choices[file.switch].chosen == "qat"}
    return {**plan, **trained}, choices


def _keys(maker: FileMaker, int8: FilePlan, training: Compression, max_drop: float, judge: Judge) -> dict[Switch, str]:
    """By switch, the digest of all that its choice depends on."""
    images = hashlib.sha256(np.ascontiguousarray(judge.images).tobytes()).hexdigest()
    recipes: dict[Switch, list[str]] = {}
    for file, compression in int8.items():
        recipes.setdefault(file.switch, []).extend((maker.recipe(file, compression), maker.recipe(file, training)))
    return {
        switch: hashlib.sha256(json.dumps([of_switch, max_drop, images]).encode()).hexdigest()
        for switch, of_switch in recipes.items()
    }


def _judge(
    int8: FilePlan,
    keys: Mapping[Switch, str],
    training: Compression,
    max_drop: float,
    scorer: Scorer,
    report: Callable[[str], None],
) -> dict[Switch, QuantizationChoice]:
    """The choices of the switches of a plan of int8 files by post-training quantization."""
    judge = scorer.judge
    switches = list(dict.fromkeys(file.switch for file in int8))
    plural = "es" if len(switches) > 1 else ""
    report(f"judging int8 files of {len(switches)} switch{plural} by {judge.count} validation images")
    network = {switch: scorer.score_network(switch) for switch in switches}
    ptq = scorer.score_files(int8)
    poor = {switch for switch in switches if network[switch] - ptq[switch] > max_drop + ROUNDING}
    for switch in switches:
        lost = judge.per_unit * (network[switch] - ptq[switch])
        then = "; quantization-aware training" if switch in poor else ""
        report(f"switch '{switch}': post-training quantization loses {lost:.2f} {judge.unit}{then}")
    qat = scorer.score_files({file: training for file in int8 if file.switch in poor}) if poor else {}
    for switch, score in qat.items():
        lost = judge.per_unit * (network[switch] - score)
        report(f"switch '{switch}': quantization-aware training loses {lost:.2f} {judge.unit}")
    return {
        switch: QuantizationChoice(
            key=keys[switch],
            metric=judge.metric,
            images=judge.count,
            keras=network[switch],
            ptq=ptq[switch],
            qat=qat.get(switch),
            chosen="qat" if qat.get(switch, -np.inf) > ptq[switch] else "ptq",
        )
        for switch in switches
    }


def older_choices(older: OlderBundle) -> dict[str, QuantizationChoice]:
    """The choices that the manifest of an older bundle holds, by switch; those that can be read."""
    choices = {}
    for switch, entry in older.switches.items():
        with contextlib.suppress(UserError):
            choices[switch] = _read_choice(JsonTable(entry.get("quantization"), str(switch)))
    return choices


def _read_choice(table: JsonTable) -> QuantizationChoice:
    chosen = table.choice("chosen", ("ptq", "qat"))
    return QuantizationChoice(
        key=table.get("key", str),
        metric=table.get("metric", str),
        images=table.count("images"),
        keras=table.get("keras", float),
        ptq=table.get("ptq", float),
        qat=table.get("qat", float, optional=chosen == "ptq"),
        chosen=chosen,
    )
