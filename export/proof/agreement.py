"""How far the runtimes of this machine and of emulated boards agree on a bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from export.proof import engines
from export.proof.engines import EngineOutputs, machine
from fusion.bundle.contents import Bundle, SwitchEntry

# Of float outputs, as a fraction of the largest: rounding, or, where all before them is int8, some steps of it.
_TOLERANCES = {"float32": 1e-4, "float16": 1e-4, "int8": 0.02}
# Precision and kernels that are not held to any others.
_OWN_ROUNDING = {("int8", "XNNPACK"), ("int8", "reference kernels")}


@dataclass(frozen=True)
class Agreement:
    """One fused switch on one engine, against the reference on the same images.

    Attributes:
      machine: this machine's processor, or the emulated board.
      runtime: the runtime's name, version and what runs int8 operations.
      images: how many.
      same_class: on how many images the fused class is the reference's, 0..1.
      same_class_here: the same against the first engine; of boards' int8 files, whose reference is another, it is no
        fault if they differ.
      quanta: largest difference of a slice's output, in steps of it; None for float outputs.
      relative: largest difference of a slice's output, as a fraction of the reference's largest absolute value; None
        for quantized outputs.
      accuracy: of the fused switch, 0..1.
      held: whether a difference is a fault; not of XNNPACK and the reference kernels on int8, which round in their own
        ways, and not of `dynamic`, whose activations each runtime quantizes in its own way.
    """

    switch: str
    precision: str
    machine: str
    runtime: str
    images: int
    same_class: float
    same_class_here: float
    quanta: int | None
    relative: float | None
    accuracy: float
    held: bool

    def as_json(self) -> dict[str, Any]:
        """The attributes, with null for a difference that is no number."""
        finite = self.relative is not None and math.isfinite(self.relative)
        return asdict(self) | {"relative": self.relative if finite else None}

    def fault(self, max_quanta: int) -> str | None:
        """What is wrong, one sentence, or None; so many steps of an int8 output are legal."""
        if not self.held:
            return None
        where = f"switch '{self.switch}', {self.precision} on {self.runtime}, {self.machine}"
        if self.quanta is not None and self.quanta > max_quanta:
            return f"{where}: a slice's output differs by {self.quanta} quanta, legal {max_quanta}."
        if self.relative is not None and not self.relative <= _TOLERANCES[self.precision]:
            legal = f"legal {_TOLERANCES[self.precision]:g}"
            return f"{where}: a slice's output differs by {self.relative:.2g} of its largest value, {legal}."
        if self.same_class < 1:
            return (
                f"{where}: {round((1 - self.same_class) * self.images)} of {self.images} images are of another class."
            )
        return None


def compare(bundle: Bundle, outputs: Sequence[EngineOutputs], labels: np.ndarray) -> list[Agreement]:
    """Compares every fused switch and its slices' outputs with those of the first engine; int8 of boards with those of
    `engines.LIKE_ARM`, where it is among them.

    Args:
      bundle: the bundle.
      outputs: what the engines gave, the reference first.
      labels: the images' class indices, int (n,).
    """
    first = outputs[0]
    like_arm = next((one for one in outputs if one.engine == engines.LIKE_ARM), first)
    rows = []
    for entry in bundle.switches:
        for precision in bundle.precisions:
            for compared in outputs:
                if f"{entry.slices[0].model}/{precision}" in compared.stored:
                    reference = like_arm if compared.engine.board and precision == "int8" else first
                    rows.append(_compare_switch(entry, precision, compared, first, reference, labels))
    return rows


def other_classes(rows: Sequence[Agreement]) -> str:
    """On how many images at most boards give another class than this machine, one sentence; empty for none."""
    worst = min((row for row in rows if row.held), key=lambda row: row.same_class_here, default=None)
    if worst is None or worst.same_class_here == 1:
        return ""
    count = round((1 - worst.same_class_here) * worst.images)
    return (
        f"{count} of {worst.images} images are of another class on {worst.machine} than here, switch '{worst.switch}', "
        f"{worst.precision}: kernels of ARM round otherwise, see --help"
    )


def _compare_switch(
    entry: SwitchEntry,
    precision: str,
    outputs: EngineOutputs,
    first: EngineOutputs,
    reference: EngineOutputs,
    labels: np.ndarray,
) -> Agreement:
    quanta: list[int] = []
    relative: list[float] = []
    for slice_ in entry.slices:
        key = f"{slice_.model}/{precision}"
        expected = reference.stored[key].astype(np.float64)
        apart = float(np.abs(outputs.stored[key] - expected).max())
        if slice_.files[precision].output.scale is None:
            relative.append(apart / float(np.abs(expected).max() or 1))
        else:
            quanta.append(round(apart))
    classes = outputs.fused(entry, precision).argmax(axis=1)

    def same(other: EngineOutputs) -> float:
        return float((classes == other.fused(entry, precision).argmax(axis=1)).mean())

    return Agreement(
        switch=entry.switch,
        precision=precision,
        machine=machine(outputs.engine),
        runtime=outputs.name,
        images=len(labels),
        same_class=same(reference),
        same_class_here=same(first),
        quanta=max(quanta) if quanta else None,
        relative=max(relative) if relative else None,
        accuracy=float((classes == labels).mean()),
        held=precision in _TOLERANCES and (precision, outputs.engine.kernels) not in _OWN_ROUNDING,
    )
