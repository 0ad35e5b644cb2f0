"""Compares the files of a bundle with the network they were cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from export.proof import engines
from export.proof.engines import EngineOutputs
from export.proof.judges import Judge
from export.proof.records import ROUNDING, SliceCheck, SwitchCheck, Verification
from export.tflite import graph, operators
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.rules.sum import Sum
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import TailInterpreter
from paradis_tf.builders.static import extract_tail
from paradis_tf.evaluation.live_subsets import live_subsets
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

# How far a file may be from Keras, as a fraction of the range of the slice's outputs, by precision; others are held to
# the fused answers alone.
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
      judge: the images to compare on, and how answers are scored.
      max_drop: how much of the judge's metric a fused switch may lose against Keras.
      report: is told what is being done.

    A fault is: an operator that tflite-runtime 2.14.0 does not have, or not in that version; a channel that a kernel of
    aarch64 does not scale; an int8 slice on which the runtimes' built-in kernels differ by more than one quantum; a
    float32 slice that differs from Keras by more than 1e-4 of the range of its outputs, a float16 slice by more than
    1e-2; a tail that differs from Keras by more than its rounding to whole grey levels; a switch that loses more than
    `max_drop` anywhere. XNNPACK rounds int8 otherwise than the built-in kernels in every layer, which adds up to
    several quanta; it is held to the last alone, and so is `dynamic`, whose activations each runtime quantizes in its
    own way.

    Raises:
      UserError: the bundle was cut from another network, or a runtime could not run a file.
    """
    require_same_model(bundle, model)
    installed = engines.installed()
    report(f"running all slices on {'; '.join(str(engine) for engine in installed)}")
    outputs = engines.run_all(bundle, installed, judge.images, report)
    slices: list[SliceCheck] = []
    switches: list[SwitchCheck] = []
    live: dict[str, list[dict[str, Any]]] = {}
    faults = [] if bundle.tail is None else _tail_faults(bundle, model, judge)
    for entry in bundle.switches:
        report(f"comparing switch {entry.switch}")
        partial = partial_outputs(model, Switch.parse(entry.switch, model.grid), judge.images)
        answers = judge.answers(Sum().fuse([output.astype(np.float64) for output in partial]))
        for precision in bundle.precisions:
            names, operator_faults = _operators(bundle, entry, precision)
            faults += operator_faults
            for engine_outputs in outputs:
                slices += _check_slices(entry, precision, partial, engine_outputs, outputs[0], names)
                switches.append(_check_switch(entry, precision, answers, engine_outputs, judge))
        live[entry.switch] = _score_live_subsets(entry, bundle.precisions, partial, outputs[0], judge)
    faults += find_faults(slices, switches, max_drop, judge)
    return Verification(tuple(slices), tuple(switches), live, tuple(faults))


def require_same_model(bundle: Bundle, model: Supernet) -> None:
    """Raises UserError if a bundle was cut from another network."""
    model_id = model.model_id()
    if model_id != bundle.model_id:
        raise UserError(
            f"bundle {bundle.folder} has model id {bundle.model_id[:12]}..., and the run's model has "
            f"{model_id[:12]}...; convert the run again."
        )


def partial_outputs(model: Supernet, switch: Switch, images: np.ndarray) -> list[np.ndarray]:
    """What Keras gives for each device of a switch, float32 (n, *output)."""
    size = max(1, min(_BATCH, _BATCH_PIXELS // (images.shape[1] * images.shape[2])))
    batches = np.split(images, range(size, len(images), size))
    return [np.concatenate([model.call_cut(batch, cut).prediction.numpy() for batch in batches]) for cut in switch.cuts]


def _operators(bundle: Bundle, entry: SwitchEntry, precision: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """By device, the operators of its file; and what is wrong with them."""
    names: list[tuple[str, ...]] = []
    faults: list[str] = []
    for slice_ in entry.slices:
        where = f"switch '{entry.switch}', device {slice_.device}, {precision}"
        try:
            contents = graph.read(bundle.read(slice_.files[precision]))
        except ValueError as error:
            faults.append(f"{where}: {error}")
            names.append(())
            continue
        names.append(tuple(f"{name} {version}" for name, version in sorted(contents.operators)))
        faults += [f"{where}: {fault}" for fault in operators.faults(contents)]
    return names, faults


def _tail_faults(bundle: Bundle, model: Supernet, judge: Judge) -> list[str]:
    tail = extract_tail(model, keras, bundle.shape)
    run = TailInterpreter(bundle, runtime.choose(engines.REFERENCE.runtime), 1)
    image = judge.images[0]
    summed = np.random.default_rng(0).normal(0, 0.1, bundle.output_shape).astype(np.float32)
    expected = np.asarray(tail([image[np.newaxis].astype(np.float32), summed[np.newaxis]], training=False))[0]
    error = float(np.abs(run(image, summed) - np.clip(expected, 0, 255)).max())
    if not error <= _TAIL_TOLERANCE:
        return [f"the tail differs from Keras by {error:.2f} grey levels, legal {_TAIL_TOLERANCE}."]
    return []


def _check_slices(
    entry: SwitchEntry,
    precision: str,
    partial: Sequence[np.ndarray],
    outputs: EngineOutputs,
    reference: EngineOutputs,
    operator_names: Sequence[tuple[str, ...]],
) -> list[SliceCheck]:
    checks = []
    for slice_, expected, real in zip(entry.slices, partial, outputs.real(entry, precision), strict=True):
        key, scale = f"{slice_.model}/{precision}", slice_.files[precision].output.scale
        error = float(np.abs(real - expected).max())
        apart = np.abs(outputs.stored[key].astype(np.float64) - reference.stored[key].astype(np.float64))
        checks.append(
            SliceCheck(
                switch=entry.switch,
                device=slice_.device,
                precision=precision,
                runtime=outputs.name,
                delegates=outputs.engine.delegates,
                error=error,
                spread=float(np.ptp(expected)),
                quanta=error / scale if scale else None,
                runtime_quanta=float(apart.max()),
                operators=operator_names[slice_.device],
            )
        )
    return checks


def _check_switch(
    entry: SwitchEntry, precision: str, float_answers: Any, outputs: EngineOutputs, judge: Judge
) -> SwitchCheck:
    answers = judge.answers(outputs.fused(entry, precision))
    return SwitchCheck(
        switch=entry.switch,
        precision=precision,
        runtime=outputs.name,
        delegates=outputs.engine.delegates,
        images=judge.count,
        metric=judge.metric,
        agreement=judge.agreement(answers, float_answers),
        float_score=judge.score(float_answers),
        score=judge.score(answers),
    )


def _score_live_subsets(
    entry: SwitchEntry, precisions: Sequence[str], partial: Sequence[np.ndarray], outputs: EngineOutputs, judge: Judge
) -> list[dict[str, Any]]:
    real = {precision: outputs.real(entry, precision) for precision in precisions}

    def score(slice_outputs: Sequence[np.ndarray], devices: Sequence[int]) -> float:
        return judge.score(judge.answers(Sum().fuse([slice_outputs[device].astype(np.float64) for device in devices])))

    return [
        {
            "devices": list(devices),
            "float": score(partial, devices),
            "exported": {precision: score(real[precision], devices) for precision in precisions},
        }
        for devices in live_subsets(len(entry.slices))
    ]


def find_faults(
    slices: Sequence[SliceCheck], switches: Sequence[SwitchCheck], max_drop: float, judge: Judge
) -> list[str]:
    """A sentence for each check that is not within what is legal; see `verify`."""
    faults = []
    for check in slices:
        where = f"switch '{check.switch}', device {check.device}, {check.precision} on {check.runtime}"
        # Not `>`, which holds of no NaN.
        if check.quanta is not None and not check.delegates and not check.runtime_quanta <= 1:
            faults.append(
                f"{where}: differs from {engines.REFERENCE.runtime} by {check.runtime_quanta:g} quanta, legal 1."
            )
        legal = _TOLERANCES.get(check.precision, np.inf) * check.spread
        if not check.error <= legal:
            faults.append(f"{where}: differs from Keras by {check.error:g}, legal {legal:g}.")
    for switch in switches:
        if not switch.float_score - switch.score <= max_drop + ROUNDING:
            faults.append(
                f"switch '{switch.switch}', {switch.precision} on {switch.runtime}: {judge.metric} "
                f"{judge.per_unit * switch.score:.2f}, in float {judge.per_unit * switch.float_score:.2f}; it may lose "
                f"{judge.per_unit * max_drop:g} {judge.unit}."
            )
    return faults
