"""Tables how far the runtimes of this machine and of emulated boards agree on a bundle.

    python -m export.agreement --bundle=build/digits --data=digits.npz --limit=1000

Runs every slice file on tflite-runtime on this machine, which is the reference, on ai-edge-litert (built-in kernels and
XNNPACK) and on tflite-runtime on each emulated board, which is set up where it is not there yet. Exits 1 if anything
but XNNPACK on int8 differs from the reference in a fused class, by more than --max_quanta steps of an int8 output, or
by more than 1e-4 of the largest value of a float output.

Without ReLU6 an int8 convolution's ties are rounded otherwise on ARM than on x86, so that architectures with linear
convolutions, such as ResNets, differ by a step or two there; MobileNet v1 does not differ at all.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np
from absl import flags

from export import engines
from export.emulation.boards import ARCHITECTURES
from export.emulation.installation import DEFAULT_CACHE, set_up
from export.engines import Answers, Asked, Engine
from export.fusion import inputs, manifest, program
from export.fusion.files import check_json_target, write_json
from export.fusion.manifest import Bundle, SwitchEntry
from paradis_tf import table
from paradis_tf.progress import duration

_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle's folder.", required=True)
_DATA = flags.DEFINE_string("data", None, "An .npz file with x_test and y_test.", required=True)
_LIMIT = flags.DEFINE_integer("limit", 1000, "At most so many images.", 1)
_BOARDS = flags.DEFINE_list("boards", list(ARCHITECTURES), "The emulated boards; empty for this machine alone.")
_CACHE = flags.DEFINE_string("cache", DEFAULT_CACHE, "The folder that boards are set up in.")
_MAX_QUANTA = flags.DEFINE_integer("max_quanta", 1, "How many steps of an int8 output are no fault.", 0, 255)
_JSON = flags.DEFINE_string("json", "", "File to write the table to as JSON.")

_FLOAT_TOLERANCE = 1e-4
_REPORT_S = 10.0


@dataclass(frozen=True)
class Agreement:
    """One fused switch on one engine, against the reference on the same images.

    Attributes:
      machine: this machine's processor, or the emulated board.
      runtime: the runtime's name, version and what runs int8 operations.
      images: how many.
      same_class: on how many images the fused class is the reference's, a part of 1.
      quanta: largest difference of a slice's output, in steps of it; None for float outputs.
      relative: largest difference of a slice's output, as a part of the reference's largest absolute value; None for
        quantized outputs.
      accuracy: of the fused switch, a part of 1.
      held: whether a difference is a fault.
    """

    switch: str
    precision: str
    machine: str
    runtime: str
    images: int
    same_class: float
    quanta: int | None
    relative: float | None
    accuracy: float
    held: bool

    def fault(self, max_quanta: int) -> str | None:
        """What is wrong, one sentence, or None; so many steps of an int8 output are legal."""
        if not self.held:
            return None
        where = f"switch '{self.switch}', {self.precision} on {self.runtime}, {self.machine}"
        if self.quanta is not None and self.quanta > max_quanta:
            return f"{where}: a slice's output differs by {self.quanta} quanta, legal {max_quanta}."
        if self.relative is not None and not self.relative <= _FLOAT_TOLERANCE:
            return f"{where}: a slice's output differs by {self.relative:.2g} of its range, legal {_FLOAT_TOLERANCE:g}."
        if self.same_class < 1:
            return (
                f"{where}: {round((1 - self.same_class) * self.images)} of {self.images} images are of another class."
            )
        return None


def main(arguments: list[str]) -> int:
    check_json_target(_JSON.value)
    bundle = manifest.load(_BUNDLE.value)
    data = inputs.read_data(_DATA.value, bundle, _LIMIT.value)
    boards = set_up(_BOARDS.value, _CACHE.value, report=_report) if _BOARDS.value else []
    asked = [*engines.installed(), *(Engine(engines.REFERENCE.runtime, board=board) for board in boards)]
    found = compare(bundle, ask_all(bundle, asked, data.images), data.labels)
    print(f"\n{_table(found)}\n")
    if _JSON.value:
        write_json(_JSON.value, [asdict(one) for one in found])
    faults = [fault for one in found if (fault := one.fault(_MAX_QUANTA.value))]
    for fault in faults:
        print(f"fault: {fault}")
    if not faults:
        print("passed: all but XNNPACK on int8 agree with the reference")
    return 1 if faults else 0


def ask_all(bundle: Bundle, asked: Sequence[Engine], images: np.ndarray) -> list[Answers]:
    """Runs a bundle on several engines at once, and tells how far they are.

    Args:
      bundle: the bundle.
      asked: the engines.
      images: uint8 (n, height, width, 3).

    Raises:
      UserError: an engine could not run a file; the others are ended.
    """
    files = sum(len(part.files) for entry in bundle.switches for part in entry.slices)
    with ExitStack() as stack:
        processes = [stack.enter_context(Asked(bundle, engine, images)) for engine in asked]
        began = reported = time.monotonic()
        while any(process.running for process in processes):
            time.sleep(0.1)
            # One that failed says so at once, whatever the others are still doing.
            for process in processes:
                if not process.running and process.done < files:
                    process.answers()
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                states = [f"{_machine(one.engine)} {one.done}" for one in processes if one.running]
                _report(f"{duration(reported - began)}, of {files} files: {', '.join(states)}")
        return [process.answers() for process in processes]


def compare(bundle: Bundle, outputs: Sequence[Answers], labels: np.ndarray) -> list[Agreement]:
    """Compares every fused switch and its slices' outputs with those of the first engine.

    Args:
      bundle: the bundle.
      outputs: what the engines gave, the reference first.
      labels: the images' class indices, int (n,).
    """
    return [
        _compare_switch(entry, precision, answers, outputs[0], labels)
        for entry in bundle.switches
        for precision in bundle.precisions
        for answers in outputs
    ]


def _compare_switch(
    entry: SwitchEntry, precision: str, answers: Answers, reference: Answers, labels: np.ndarray
) -> Agreement:
    quanta: list[int] = []
    relative: list[float] = []
    for part in entry.slices:
        key = f"{part.model}/{precision}"
        wanted = reference.stored[key].astype(np.float64)
        apart = float(np.abs(answers.stored[key] - wanted).max())
        if part.files[precision].output.scale is None:
            relative.append(apart / float(np.abs(wanted).max() or 1))
        else:
            quanta.append(round(apart))
    classes = answers.fused(entry, precision).argmax(axis=1)
    return Agreement(
        switch=entry.switch,
        precision=precision,
        machine=_machine(answers.engine),
        runtime=answers.name,
        images=len(labels),
        same_class=float((classes == reference.fused(entry, precision).argmax(axis=1)).mean()),
        quanta=max(quanta) if quanta else None,
        relative=max(relative) if relative else None,
        accuracy=float((classes == labels).mean()),
        held=not quanta or answers.engine.kernels != "XNNPACK",
    )


def _machine(engine: Engine) -> str:
    return f"{engine.board.name} (emulated)" if engine.board else platform.machine()


def _table(found: Sequence[Agreement]) -> str:
    header = ("switch", "precision", "machine", "runtime", "same class (%)", "quanta", "relative", "accuracy (%)")
    rows = [
        (
            one.switch,
            one.precision,
            one.machine,
            one.runtime,
            f"{100 * one.same_class:.2f}",
            "" if one.quanta is None else one.quanta,
            "" if one.relative is None else f"{one.relative:.1e}",
            f"{100 * one.accuracy:.2f}",
        )
        for one in found
    ]
    return (
        f"{found[0].images} images: the fused class against {found[0].runtime} on {found[0].machine},\n"
        "and the largest difference of a slice's output, in steps of it or as a part of the largest value\n\n"
        f"{table.render(header, rows)}"
    )


def _report(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    program.run(main)
