"""Compares the files of a bundle with the network they were cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from export.proof import engines
from export.proof.engines import Answers
from export.proof.judges import ROUNDING, Judge
from export.proof.records import SliceCheck, SwitchCheck, Verification
from export.tflite import graph, operators
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.rules import sum as fuse
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import TailInterpreter
from paradis_tf.builders.static import extract_tail
from paradis_tf.evaluation.live_subsets import live_subsets
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

# How far a file may be from Keras, as a part of the range of the slice's outputs, by precision; others are held to the
# fused answers alone.
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2}
# How far a tail may be from Keras, in grey levels.
_TAIL_TOLERANCE = 0.51
# Images of a batch, and pixels at most.
_BATCH, _BATCH_PIXELS = 512, 2**20


def verify(
    bundle: Bundle,
    model: Supernet,
    judge: Judge,
    max_drop: float,
    report: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Runs Keras, tflite-runtime and, where it is installed, ai-edge-litert over the images of a judge.

    Args:
      bundle: the bundle.
      model: the supernet it was cut from.
      judge: the images to compare on, and what is thought of the answers.
      max_drop: how much of the judge's metric a fused switch may lose against Keras.
      report: is told what is being done.

    A fault is: an operator that tflite-runtime 2.14.0 does not have, or not in that version; an int8 slice on which the
    runtimes' built-in kernels differ by more than one quantum; a float32 slice that differs from Keras by more than
    1e-4 of the range of its outputs, a float16 slice by more than 1e-2; a tail that differs from Keras by more than its
    rounding to whole grey levels; a switch that loses more than `max_drop` anywhere. XNNPACK rounds int8 otherwise than
    the built-in kernels in every layer, which adds up to several quanta; it is held to the last alone, and so is
    `dynamic`, whose activations each runtime quantizes in its own way.

    Raises:
      UserError: the bundle was cut from another network, or a runtime could not run a file.
    """
    require_same_model(bundle, model)
    asked = engines.installed()
    report(f"running all slices on {'; '.join(str(engine) for engine in asked)}")
    outputs = engines.ask_all(bundle, asked, judge.images, report)
    slices: list[SliceCheck] = []
    switches: list[SwitchCheck] = []
    live: dict[str, list[dict[str, Any]]] = {}
    faults = [] if bundle.tail is None else _tail_faults(bundle, model, judge)
    for entry in bundle.switches:
        report(f"comparing switch {entry.switch}")
        partial = partial_outputs(model, Switch.parse(entry.switch, model.grid), judge.images)
        wanted = judge.answers(fuse.fuse([one.astype(np.float64) for one in partial]))
        float_score = judge.score(wanted)
        for precision in bundle.precisions:
            found, bad = _operators(bundle, entry, precision)
            faults += bad
            for answers in outputs:
                slices += _check_slices(entry, precision, partial, answers, outputs[0], found)
                switches.append(_check_switch(entry, precision, wanted, float_score, answers, judge))
        live[entry.switch] = _live(entry, bundle.precisions, partial, outputs[0], judge)
    faults += _faults(slices, switches, max_drop, judge)
    return Verification(tuple(slices), tuple(switches), live, tuple(faults))


def require_same_model(bundle: Bundle, model: Supernet) -> None:
    """Raises UserError if a bundle was cut from another network."""
    found = model.model_id()
    if found != bundle.model_id:
        raise UserError(
            f"bundle {bundle.folder} has model id {bundle.model_id[:12]}..., and the run's model has "
            f"{found[:12]}...; convert the run again."
        )


def partial_outputs(model: Supernet, switch: Switch, images: np.ndarray) -> list[np.ndarray]:
    """What Keras gives for each device of a switch, float32 (n, *output)."""
    size = max(1, min(_BATCH, _BATCH_PIXELS // (images.shape[1] * images.shape[2])))
    batches = np.split(images, range(size, len(images), size))
    return [
        np.concatenate([model.call_slice(batch, switch, device).prediction.numpy() for batch in batches])
        for device in range(switch.devices)
    ]


def _operators(bundle: Bundle, entry: SwitchEntry, precision: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """By device, the operators of its file; and what is wrong with them."""
    names: list[tuple[str, ...]] = []
    faults: list[str] = []
    for part in entry.slices:
        where = f"switch '{entry.switch}', device {part.device}, {precision}"
        try:
            found = graph.read(bundle.read(part.files[precision]))
        except ValueError as error:
            faults.append(f"{where}: {error}")
            names.append(())
            continue
        names.append(tuple(f"{name} {version}" for name, version in sorted(found.operators)))
        faults += [f"{where}: {one}" for one in operators.faults(found)]
    return names, faults


def _tail_faults(bundle: Bundle, model: Supernet, judge: Judge) -> list[str]:
    tail = extract_tail(model, keras, bundle.shape)
    run = TailInterpreter(bundle, runtime.choose(engines.REFERENCE.runtime), 1)
    image = judge.images[0]
    summed = np.random.default_rng(0).normal(0, 0.1, bundle.output_shape).astype(np.float32)
    wanted = np.asarray(tail([image[np.newaxis].astype(np.float32), summed[np.newaxis]], training=False))[0]
    error = float(np.abs(run(image, summed) - np.clip(wanted, 0, 255)).max())
    if not error <= _TAIL_TOLERANCE:
        return [f"the tail differs from Keras by {error:.2f} grey levels, legal {_TAIL_TOLERANCE}."]
    return []


def _check_slices(
    entry: SwitchEntry,
    precision: str,
    partial: Sequence[np.ndarray],
    answers: Answers,
    reference: Answers,
    found: Sequence[tuple[str, ...]],
) -> list[SliceCheck]:
    checks = []
    for slice, wanted, real in zip(entry.slices, partial, answers.real(entry, precision), strict=True):
        key, scale = f"{slice.model}/{precision}", slice.files[precision].output.scale
        error = float(np.abs(real - wanted).max())
        apart = np.abs(answers.stored[key].astype(np.float64) - reference.stored[key].astype(np.float64))
        checks.append(
            SliceCheck(
                entry.switch,
                slice.device,
                precision,
                answers.name,
                answers.engine.delegates,
                error,
                float(np.ptp(wanted)),
                error / scale if scale else None,
                float(apart.max()),
                found[slice.device],
            )
        )
    return checks


def _check_switch(
    entry: SwitchEntry, precision: str, wanted: Any, float_score: float, outputs: Answers, judge: Judge
) -> SwitchCheck:
    answers = judge.answers(outputs.fused(entry, precision))
    return SwitchCheck(
        entry.switch,
        precision,
        outputs.name,
        outputs.engine.delegates,
        judge.count,
        judge.metric,
        judge.agreement(answers, wanted),
        float_score,
        judge.score(answers),
    )


def _live(
    entry: SwitchEntry, precisions: Sequence[str], partial: Sequence[np.ndarray], answers: Answers, judge: Judge
) -> list[dict[str, Any]]:
    real = {precision: answers.real(entry, precision) for precision in precisions}

    def score(parts: Sequence[np.ndarray], devices: Sequence[int]) -> float:
        return judge.score(judge.answers(fuse.fuse([parts[device].astype(np.float64) for device in devices])))

    return [
        {
            "devices": list(devices),
            "float": score(partial, devices),
            "exported": {precision: score(real[precision], devices) for precision in precisions},
        }
        for devices in live_subsets(len(entry.slices))
    ]


def _faults(slices: Sequence[SliceCheck], switches: Sequence[SwitchCheck], max_drop: float, judge: Judge) -> list[str]:
    faults = []
    for one in slices:
        where = f"switch '{one.switch}', device {one.device}, {one.precision} on {one.runtime}"
        # Not `>`, which holds of no NaN.
        if one.quanta is not None and not one.delegates and not one.runtime_quanta <= 1:
            faults.append(
                f"{where}: differs from {engines.REFERENCE.runtime} by {one.runtime_quanta:g} quanta, legal 1."
            )
        legal = _TOLERANCES.get(one.precision, np.inf) * one.spread
        if not one.error <= legal:
            faults.append(f"{where}: differs from Keras by {one.error:g}, legal {legal:g}.")
    for switch in switches:
        if not switch.float_score - switch.score <= max_drop + ROUNDING:
            faults.append(
                f"switch '{switch.switch}', {switch.precision} on {switch.runtime}: {judge.metric} "
                f"{judge.per_unit * switch.score:.2f}, in float {judge.per_unit * switch.float_score:.2f}; it may lose "
                f"{judge.per_unit * max_drop:g} {judge.unit}."
            )
    return faults
