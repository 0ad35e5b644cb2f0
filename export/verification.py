"""Compares the files of a bundle with the network they were cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export import engines
from export.engines import Answers
from export.fusion import fuse
from export.fusion.manifest import Bundle, SwitchEntry
from export.fusion.program import UserError
from paradis_tf.data.datasets import Part
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_FLOAT_TOLERANCE = 1e-3
_ROUNDING = 1e-9
_BATCH = 256


@dataclass(frozen=True)
class SliceCheck:
    """One slice file on one runtime.

    Attributes:
      delegates: whether XNNPACK might take part.
      error: largest absolute difference of a partial logit from Keras.
      quanta: that difference in steps of the file's output (None for float files).
      runtime_quanta: largest difference from the reference runtime, in steps (int8) or as a value (float).
    """

    switch: str
    device: int
    precision: str
    runtime: str
    delegates: bool
    error: float
    quanta: float | None
    runtime_quanta: float


@dataclass(frozen=True)
class SwitchCheck:
    """One fused switch on one runtime; accuracies and agreement are parts of 1.

    Attributes:
      agreement: on how many images the class is that of Keras.
      float_accuracy: accuracy of Keras.
      accuracy: accuracy of the files.
    """

    switch: str
    precision: str
    runtime: str
    images: int
    agreement: float
    float_accuracy: float
    accuracy: float


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle, and what is wrong with it, one sentence each."""

    slices: tuple[SliceCheck, ...]
    switches: tuple[SwitchCheck, ...]
    faults: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "slices": [asdict(check) for check in self.slices],
            "switches": [asdict(check) for check in self.switches],
            "faults": list(self.faults),
        }

    def accuracies(self, part: str) -> dict[str, dict[str, Any]]:
        """The manifest's `accuracy` of each switch, from the reference runtime."""
        found: dict[str, dict[str, Any]] = {}
        for check in self.switches:
            if check.runtime.startswith(engines.REFERENCE.runtime):
                entry = found.setdefault(
                    check.switch,
                    {"part": part, "images": check.images, "float": check.float_accuracy, "exported": {}},
                )
                entry["exported"][check.precision] = check.accuracy
        return found


def verify(
    bundle: Bundle,
    model: Supernet,
    part: Part,
    max_drop: float,
    report: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Runs Keras, tflite-runtime and, where it is installed, ai-edge-litert over a part of a dataset.

    Args:
      bundle: the bundle.
      model: the supernet it was cut from.
      part: the images to compare on.
      max_drop: how much accuracy a fused switch may lose against Keras, as a part of 1.
      report: is told what is being done.

    A fault is: an int8 slice on which the runtimes' built-in kernels differ by more than one quantum; a float32 slice
    that differs from Keras by more than 1e-3; a switch that loses more than `max_drop` anywhere. XNNPACK rounds int8
    otherwise than the built-in kernels in every layer, which adds up to several quanta; it is held to the last alone.

    Raises:
      UserError: the bundle was cut from another network, or a runtime could not run a file.
    """
    found = model.model_id()
    if found != bundle.model_id:
        raise UserError(
            f"bundle {bundle.folder} has model id {bundle.model_id[:12]}..., and the run's model has "
            f"{found[:12]}...; convert the run again."
        )
    outputs = []
    for engine in engines.installed():
        report(f"running all slices on {engine.runtime}{'' if engine.delegates else ', built-in kernels'}")
        outputs.append(engines.ask(bundle, engine, part.images))
    slices: list[SliceCheck] = []
    switches: list[SwitchCheck] = []
    for entry in bundle.switches:
        report(f"comparing switch {entry.switch}")
        partial = partial_logits(model, Switch.parse(entry.switch, model.grid), part.images)
        for precision in bundle.precisions:
            for answers in outputs:
                slices += _check_slices(entry, precision, partial, answers, outputs[0])
                switches.append(_check_switch(entry, precision, partial, answers, part.labels))
    return Verification(tuple(slices), tuple(switches), tuple(_faults(slices, switches, max_drop)))


def partial_logits(model: Supernet, switch: Switch, images: np.ndarray) -> list[np.ndarray]:
    """What Keras gives for each device of a switch, float32 (n, classes)."""
    batches = np.split(images, range(_BATCH, len(images), _BATCH))
    return [
        np.concatenate([model.call_slice(batch, switch, device).prediction.numpy() for batch in batches])
        for device in range(switch.devices)
    ]


def _check_slices(
    entry: SwitchEntry, precision: str, partial: Sequence[np.ndarray], answers: Answers, reference: Answers
) -> list[SliceCheck]:
    checks = []
    for slice, logits, real in zip(entry.slices, partial, answers.real(entry, precision), strict=True):
        key, scale = f"{slice.model}/{precision}", slice.files[precision].output.scale
        error = float(np.abs(real - logits).max())
        apart = np.abs(answers.stored[key].astype(np.float64) - reference.stored[key].astype(np.float64))
        checks.append(
            SliceCheck(
                entry.switch,
                slice.device,
                precision,
                answers.name,
                answers.engine.delegates,
                error,
                error / scale if scale else None,
                float(apart.max()),
            )
        )
    return checks


def _check_switch(
    entry: SwitchEntry, precision: str, partial: Sequence[np.ndarray], answers: Answers, labels: np.ndarray
) -> SwitchCheck:
    classes = answers.fused(entry, precision).argmax(axis=1)
    wanted = fuse.fuse([logits.astype(np.float64) for logits in partial]).argmax(axis=1)
    return SwitchCheck(
        entry.switch,
        precision,
        answers.name,
        len(labels),
        float((classes == wanted).mean()),
        float((wanted == labels).mean()),
        float((classes == labels).mean()),
    )


def _faults(slices: Sequence[SliceCheck], switches: Sequence[SwitchCheck], max_drop: float) -> list[str]:
    faults = []
    for one in slices:
        where = f"switch '{one.switch}', device {one.device}, {one.precision} on {one.runtime}"
        if one.quanta is not None and one.runtime_quanta > 1 and (not one.delegates):
            faults.append(
                f"{where}: differs from {engines.REFERENCE.runtime} by {one.runtime_quanta:g} quanta, legal 1."
            )
        if one.quanta is None and one.error > _FLOAT_TOLERANCE:
            faults.append(f"{where}: differs from Keras by {one.error:g}, legal {_FLOAT_TOLERANCE:g}.")
    for switch in switches:
        # Of accuracies that are whole images the difference itself is not exact.
        if switch.float_accuracy - switch.accuracy > max_drop + _ROUNDING:
            faults.append(
                f"switch '{switch.switch}', {switch.precision} on {switch.runtime}: accuracy "
                f"{100 * switch.accuracy:.2f} %, in float {100 * switch.float_accuracy:.2f} %; it may lose "
                f"{100 * max_drop:g} percentage points."
            )
    return faults
