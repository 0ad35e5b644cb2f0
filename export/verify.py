"""Proves a bundle against the run it was cut from: Keras, tflite-runtime and ai-edge-litert, per slice and fused.

    python -m export.verify --workdir=runs/digits --bundle=build/digits

Runs the test part, prints a table, writes each switch's accuracies (PSNR, of super-resolution), also with devices
missing, into the bundle's manifest, and exits 1 if a file needs what tflite-runtime 2.14.0 does not have, the runtimes'
built-in kernels differ by more than one step of an int8 slice's output, a float slice is not that of Keras, or a fused
switch loses more than --max_drop on any runtime, against Keras or, with --baseline, against an earlier verification.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from export.bundles import archive, manifest_update
from export.proof import baseline
from fusion.base import columns
from fusion.base.files import check_json_target, results, write_json
from fusion.base.paths import define_path
from fusion.base.program import define_float
from fusion.base.streams import say
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

if TYPE_CHECKING:
    from export.proof.records import Verification

_WORKDIR = define_path("workdir", None, "The run folder that the bundle was cut from.", required=True)
_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_MAX_DROP = define_float(
    "max_drop",
    None,
    "What a fused switch may lose: percentage points of accuracy, 1 by default, or dB of PSNR-Y, 0.1 by default.",
    0,
    100,
)
_BASELINE = define_path("baseline", "", "JSON of an earlier verification that no switch may fall behind.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Only so many test images; 0 takes all. A part leaves the manifest alone.", 0)
_DATA_DIR = define_path("data_dir", None, "Folder of the dataset, as for training.")
_SLICES = flags.DEFINE_bool("slices", False, "Also print every slice on every runtime.")
_ARCHIVE = define_path("archive", "", "Also write the bundle, if it passes, to this .zip file.")
_JSON = define_path("json", "", "File to write the checks to as JSON.")


def main(argv: list[str]) -> int:
    check_json_target(_JSON.value)
    archive.check_target(_ARCHIVE.value, _BUNDLE.value)
    bundle = manifest.load(_BUNDLE.value)
    manifest_before = manifest_update.read(bundle)
    earlier = baseline.read(_BASELINE.value, bundle) if _BASELINE.value else None
    if not _LIMIT.value:
        check_json_target(bundle.folder / "manifest.json")
    for file in bundle.files():
        bundle.read(file)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.loading():
        from export.proof import checks, judges, tables
        from paradis_tf.training import run as training
    say(f"loading {workdir.path} and its images")
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    checks.require_same_model(bundle, model)
    judge = judges.of(bundle, _limited(dataset.test, _LIMIT.value))
    if earlier is not None:
        earlier.require_images(judge.count)
    max_drop = judge.most_lost if _MAX_DROP.value is None else _MAX_DROP.value / judge.per_unit
    verification = checks.verify(bundle, model, judge, max_drop, say)
    faults = list(verification.faults)
    if earlier is not None:
        faults += baseline.regressions(verification.switches, earlier, max_drop, judge.per_unit, judge.unit)
    with results() as write:
        if not _LIMIT.value:
            write(_write_accuracies, bundle, manifest_before, verification)
        if _JSON.value:
            write(write_json, _JSON.value, verification.as_json())
        print(tables.render(verification, judge, _SLICES.value))
        _print_faults(faults)
        if faults and _LIMIT.value and _LIMIT.value < len(dataset.test):
            print(f"{_LIMIT.value} images tell {judge.metric} roughly; without --limit all {len(dataset.test):,} do")
    if faults:
        return 1
    say(f"passed: {', '.join(_passed(verification, f'{judge.per_unit * max_drop:g} {judge.unit}'))}")
    if _ARCHIVE.value:
        archive.write(Path(_BUNDLE.value), Path(_ARCHIVE.value))
        print(f"wrote {_ARCHIVE.value}")
    return 0


def _write_accuracies(bundle: Bundle, manifest_before: bytes, verification: Verification) -> None:
    accuracies = verification.accuracies("test")
    with manifest_update.updated(bundle, manifest_before, "verify") as written:
        for entry in written["switches"]:
            entry["accuracy"] = accuracies[entry["switch"]]


def _print_faults(faults: list[str]) -> None:
    for fault in faults:
        print(f"fault: {fault}")
    if faults:
        print(columns.counted(len(faults), "fault"))


def _limited(part: Any, limit: int) -> Any:
    from paradis_tf.data.parts import Part

    if not limit:
        return part
    if isinstance(part, Part):
        return Part(part.images[:limit], part.labels[:limit])
    return part.select(range(min(limit, len(part))))


def _passed(verification: Verification, legal_loss: str) -> list[str]:
    quantized = any(check.quanta is not None for check in verification.slices)
    precisions = {check.precision for check in verification.slices}
    floats = [precision for precision in ("float32", "float16") if precision in precisions]
    return [
        "every operator is one of tflite-runtime 2.14.0",
        *(["built-in kernels agree within one step of an int8 output"] if quantized else []),
        *([f"{' and '.join(floats)} are near Keras"] if floats else []),
        f"no switch loses more than {legal_loss} anywhere",
    ]


if __name__ == "__main__":
    program.run(main)
