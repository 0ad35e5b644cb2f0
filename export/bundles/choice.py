"""Which int8 files a switch gets: quantized after training, or by quantization-aware training where that loses much."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from export.compression.settings import Compression
from export.conversion.making import Maker, Plan
from export.proof import checks as verification
from export.proof import engines
from export.proof.judges import ROUNDING, Judge
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle
from fusion.bundle.typed_json import JsonTable
from fusion.rules import sum as fuse
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of a switch's int8 files on the validation part, in the judge's metric.

    Attributes:
      key: digest of everything it depends on.
      metric: the metric's name.
      images: how many images.
      keras, ptq, qat: of the float network and of the files; `qat` None where post-training quantization is enough.
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


def choose(
    maker: Maker,
    plan: Plan,
    training: Compression,
    max_drop: float,
    model: Supernet,
    judge: Judge,
    write: Callable[[Plan], Bundle],
    older: Mapping[str, Verdict],
    report: Callable[[str], None],
) -> tuple[Plan, dict[Switch, Verdict]]:
    """Judges the int8 files of a plan by post-training quantization, and trains the switches that lose too much.

    Args:
      maker: makes the files.
      plan: as they are made by post-training quantization; other precisions stay as they are.
      training: the quantization-aware training.
      max_drop: what a switch may lose against Keras before it is trained, in the judge's metric.
      model: the trained supernet.
      judge: of the validation part.
      write: makes a bundle of a plan of int8 files.
      older: the verdicts of the older bundle by switch; one with the same key is taken.
      report: is told what is being done.

    Returns:
      the plan of the better files, and the verdicts by switch.
    """
    jobs = [job for job in plan if job.precision == "int8"]
    switches = list(dict.fromkeys(job.switch for job in jobs))
    images = hashlib.sha256(np.ascontiguousarray(judge.images).tobytes()).hexdigest()
    keys = {}
    for switch in switches:
        of_switch = [job for job in jobs if job.switch == switch]
        recipes = [maker.recipe(job, compression) for job in of_switch for compression in (plan[job], training)]
        keys[switch] = hashlib.sha256(json.dumps([recipes, max_drop, images]).encode()).hexdigest()
    verdicts: dict[Switch, Verdict] = {}
    for switch, key in keys.items():
        found = older.get(str(switch))
        if found is not None and found.key == key:
            verdicts[switch] = found
    left = [switch for switch in switches if switch not in verdicts]
    if left:
        # All at once, so that no process waits for the judgement.
        maker.make({job: one for job, one in plan.items() if job.switch in left or job.precision != "int8"})
        plural = "es" if len(left) > 1 else ""
        report(f"judging int8 files of {len(left)} switch{plural} by {judge.count} validation images")
        floats = {switch: judge.score(judge.answers(_keras(model, switch, judge))) for switch in left}
        ptq = _scores(write, {job: plan[job] for job in jobs if job.switch in left}, judge)
        poor = [switch for switch in left if floats[switch] - ptq[switch] > max_drop + ROUNDING]
        for switch in left:
            lost = judge.per_unit * (floats[switch] - ptq[switch])
            said = "; quantization-aware training" if switch in poor else ""
            report(f"switch '{switch}': post-training quantization loses {lost:.2f} {judge.unit}{said}")
        qat = _scores(write, {job: training for job in jobs if job.switch in poor}, judge) if poor else {}
        for switch in left:
            better = switch in qat and qat[switch] > ptq[switch]
            verdicts[switch] = Verdict(
                keys[switch],
                judge.metric,
                judge.count,
                floats[switch],
                ptq[switch],
                qat.get(switch),
                "qat" if better else "ptq",
            )
            if switch in qat:
                lost = judge.per_unit * (floats[switch] - qat[switch])
                report(f"switch '{switch}': quantization-aware training loses {lost:.2f} {judge.unit}")
    trained = {job: training for job in jobs if verdicts[job.switch].chosen == "qat"}
    return {**plan, **trained}, verdicts


def _scores(write: Callable[[Plan], Bundle], plan: Plan, judge: Judge) -> dict[Switch, float]:
    """By switch, the metric of its int8 files on the reference runtime."""
    bundle = write(plan)
    outputs = engines.ask(bundle, engines.REFERENCE, judge.images)
    fused = {job.switch: outputs.fused(bundle.find_switch(str(job.switch)), "int8") for job in plan}
    return {switch: judge.score(judge.answers(summed)) for switch, summed in fused.items()}


def _keras(model: Supernet, switch: Switch, judge: Judge) -> np.ndarray:
    partial: Sequence[np.ndarray] = verification.partial_outputs(model, switch, judge.images)
    return fuse.fuse([one.astype(np.float64) for one in partial])


def older_verdicts(bundle: Path) -> dict[str, Verdict]:
    """The verdicts that the manifest of an older bundle holds, by switch; nothing of one that cannot be read."""
    try:
        written = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        found = {entry["switch"]: entry.get("quantization") for entry in written["switches"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    verdicts = {}
    for switch, fields in found.items():
        with contextlib.suppress(UserError):
            verdicts[switch] = _verdict(JsonTable(fields, switch))
    return verdicts


def _verdict(table: JsonTable) -> Verdict:
    chosen = table.chosen("chosen", ("ptq", "qat"))
    qat = table.get("qat", float, optional=chosen == "ptq")
    keras, ptq = table.get("keras", float), table.get("ptq", float)
    key, metric, images = table.get("key", str), table.get("metric", str), table.count("images")
    return Verdict(key, metric, images, keras, ptq, qat, chosen)
