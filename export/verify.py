"""Proves a bundle against the run it was cut from: Keras, tflite-runtime and ai-edge-litert, per slice and fused.

    python -m export.verify --workdir=runs/digits --bundle=build/digits

Runs the test part, prints a table, writes each switch's accuracies into the bundle's manifest, and exits 1 if the
runtimes' built-in kernels differ by more than one step of an int8 slice's output, a float32 slice differs from Keras by
more than 1e-3, or a fused switch loses more than --max_drop on any runtime.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from export.fusion import manifest
from export.fusion.files import check_json_target, write_json
from export.fusion.program import UserError
from paradis_tf import program, table
from paradis_tf.records.workdir import Workdir

if TYPE_CHECKING:
    from export.verification import Verification

_WORKDIR = flags.DEFINE_string("workdir", None, "The run folder that the bundle was cut from.", required=True)
_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle's folder.", required=True)
_MAX_DROP = flags.DEFINE_float("max_drop", 1.0, "Points of accuracy that a fused switch may lose against Keras.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Only so many test images; 0 takes all. A part leaves the manifest alone.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with <dataset>.npz files.")
_SLICES = flags.DEFINE_bool("slices", False, "Also print every slice on every runtime.")
_JSON = flags.DEFINE_string("json", "", "File to write the checks to as JSON.")


def main(argv: list[str]) -> int:
    if _LIMIT.value < 0 or not 0 <= _MAX_DROP.value <= 100:
        raise UserError(
            f"--limit={_LIMIT.value} and --max_drop={_MAX_DROP.value}; the first is 0 or more, the second 0 to 100."
        )
    check_json_target(_JSON.value)
    bundle = manifest.load(_BUNDLE.value)
    for entry in bundle.switches:
        for one in entry.slices:
            for file in one.files.values():
                bundle.read_slice_file(file)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.quiet():
        from export import verification
        from paradis_tf import training
        from paradis_tf.data.datasets import Part
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    part = dataset.test
    if _LIMIT.value:
        part = Part(part.images[: _LIMIT.value], part.labels[: _LIMIT.value])
    found = verification.verify(bundle, model, part, _MAX_DROP.value / 100, lambda text: print(text, flush=True))
    _print(found, len(part))
    if not _LIMIT.value:
        _record(Path(_BUNDLE.value) / "manifest.json", found.accuracies("test"))
    if _JSON.value:
        write_json(_JSON.value, found.as_json())
    for fault in found.faults:
        print(f"fault: {fault}")
    if found.faults:
        print(f"{len(found.faults)} fault{'s' if len(found.faults) > 1 else ''}")
    else:
        floats = any(one.quanta is None for one in found.slices)
        whole = any(one.quanta is not None for one in found.slices)
        proved = [
            *(["built-in kernels agree within one step of an int8 output"] if whole else []),
            *(["float32 is within 1e-3 of Keras"] if floats else []),
            f"no switch loses more than {_MAX_DROP.value:g} percentage points anywhere",
        ]
        print(f"passed: {', '.join(proved)}")
    return 1 if found.faults else 0


def _print(found: Verification, images: int) -> None:
    slices = [
        (
            check.switch,
            check.device,
            check.precision,
            check.runtime,
            f"{check.error:.2g}",
            "" if check.quanta is None else f"{check.quanta:.1f}",
            f"{check.runtime_quanta:.2g}",
        )
        for check in found.slices
    ]
    header = ("switch", "device", "precision", "runtime", "error", "in quanta", "from tflite-runtime")
    if _SLICES.value:
        print(
            f"\nslices, {images} test images: largest difference of a partial logit from Keras, as a value and in "
            f"steps of the file's output, and from tflite-runtime, in steps\n{table.render(header, slices)}"
        )
    switches = [
        (
            check.switch,
            check.precision,
            check.runtime,
            f"{100 * check.agreement:.2f}",
            f"{100 * check.float_accuracy:.2f}",
            f"{100 * check.accuracy:.2f}",
        )
        for check in found.switches
    ]
    columns = ("switch", "precision", "runtime", "same class (%)", "Keras accuracy (%)", "accuracy (%)")
    print(f"\nfused switches, {images} test images\n{table.render(columns, switches)}\n")


def _record(file: Path, accuracies: dict[str, dict]) -> None:
    written = json.loads(file.read_text())
    for entry in written["switches"]:
        entry["accuracy"] = accuracies[entry["switch"]]
    write_json(file, written)


if __name__ == "__main__":
    program.run(main)
