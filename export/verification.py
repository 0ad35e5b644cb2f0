"""Compares the files of a bundle with the network they were cut from."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import model_id
from export.fusion import fuse
from export.fusion.manifest import Bundle, SliceFile, SwitchEntry
from export.fusion.program import UserError
from paradis_tf.data.datasets import Part
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

# The reference runtime first: it is the one every file must run on.
_RUNTIMES = ("tflite_runtime", "ai_edge_litert")
_FLOAT_TOLERANCE = 1e-3
_BATCH = 256


@dataclass(frozen=True)
class SliceCheck:
    """One slice file on one runtime.

    Attributes:
      error: largest absolute difference of a partial logit from Keras.
      quanta: that difference in steps of the file's output (None for float files).
      runtime_quanta: largest difference from the reference runtime, in steps (int8) or as a value (float).
    """

    switch: str
    device: int
    precision: str
    runtime: str
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
            if check.runtime.startswith(_RUNTIMES[0]):
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

    A fault is: a slice whose runtimes differ by more than one quantum (int8) or 1e-3 (float32); a float32 slice that
    differs from Keras by more than 1e-3; a switch that loses more than `max_drop`.

    Raises:
      UserError: the bundle was cut from another network, or a runtime could not run a file.
    """
    found = model_id(model)
    if found != bundle.model_id:
        raise UserError(
            f"bundle {bundle.folder} has model id {bundle.model_id[:12]}..., and the run's model has "
            f"{found[:12]}...; convert the run again."
        )
    runtimes = [name for name in _RUNTIMES if importlib.util.find_spec(name)]
    outputs = []
    for name in runtimes:
        report(f"running all slices on {name}")
        outputs.append(run_files(bundle, name, part.images))
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


def run_files(bundle: Bundle, runtime: str, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """The stored outputs (n, classes) of every file on a runtime, by `model/precision`, from a process of its own.

    The key `version` holds the runtime's name and version.
    """
    with tempfile.TemporaryDirectory() as folder:
        taken, given = Path(folder) / "images.npy", Path(folder) / "outputs.npz"
        np.save(taken, images)
        done = subprocess.run(
            [sys.executable, "-m", "export.slice_outputs", f"--bundle={bundle.folder}", f"--runtime={runtime}"]
            + [f"--images={taken}", f"--outputs={given}"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UserError(f"runtime {runtime} could not run the bundle: {last}")
        with np.load(given, allow_pickle=False) as file:
            return dict(file)


def partial_logits(model: Supernet, switch: Switch, images: np.ndarray) -> list[np.ndarray]:
    """What Keras gives for each device of a switch, float32 (n, classes)."""
    batches = np.split(images, range(_BATCH, len(images), _BATCH))
    return [
        np.concatenate([model.call_slice(batch, switch, device).logits.numpy() for batch in batches])
        for device in range(switch.devices)
    ]


def _real(answers: Mapping[str, np.ndarray], model: str, precision: str, file: SliceFile) -> np.ndarray:
    return fuse.dequantize(answers[f"{model}/{precision}"], file.output.scale, file.output.zero_point)


def _check_slices(
    entry: SwitchEntry,
    precision: str,
    partial: Sequence[np.ndarray],
    answers: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
) -> list[SliceCheck]:
    checks = []
    for slice, logits in zip(entry.slices, partial, strict=True):
        file = slice.files[precision]
        key = f"{slice.model}/{precision}"
        error = float(np.abs(_real(answers, slice.model, precision, file) - logits).max())
        stored, wanted = answers[key].astype(np.float64), reference[key].astype(np.float64)
        checks.append(
            SliceCheck(
                entry.switch,
                slice.device,
                precision,
                str(answers["version"]),
                error,
                error / file.output.scale if file.output.scale else None,
                float(np.abs(stored - wanted).max()),
            )
        )
    return checks


def _check_switch(
    entry: SwitchEntry,
    precision: str,
    partial: Sequence[np.ndarray],
    answers: Mapping[str, np.ndarray],
    labels: np.ndarray,
) -> SwitchCheck:
    fused = fuse.fuse([_real(answers, s.model, precision, s.files[precision]) for s in entry.slices])
    classes, wanted = fused.argmax(axis=1), fuse.fuse([p.astype(np.float64) for p in partial]).argmax(axis=1)
    return SwitchCheck(
        entry.switch,
        precision,
        str(answers["version"]),
        len(labels),
        float((classes == wanted).mean()),
        float((wanted == labels).mean()),
        float((classes == labels).mean()),
    )


def _faults(slices: Sequence[SliceCheck], switches: Sequence[SwitchCheck], max_drop: float) -> list[str]:
    faults = []
    for one in slices:
        where = f"switch '{one.switch}', device {one.device}, {one.precision} on {one.runtime}"
        limit = 1.0 if one.quanta is not None else _FLOAT_TOLERANCE
        if one.runtime_quanta > limit:
            faults.append(f"{where}: differs from the reference runtime by {one.runtime_quanta:g}, legal {limit:g}.")
        if one.quanta is None and one.error > _FLOAT_TOLERANCE:
            faults.append(f"{where}: differs from Keras by {one.error:g}, legal {_FLOAT_TOLERANCE:g}.")
    for switch in switches:
        if switch.float_accuracy - switch.accuracy > max_drop:
            faults.append(
                f"switch '{switch.switch}', {switch.precision} on {switch.runtime}: accuracy "
                f"{100 * switch.accuracy:.2f} %, in float {100 * switch.float_accuracy:.2f} %; it may lose "
                f"{100 * max_drop:g} points."
            )
    return faults
