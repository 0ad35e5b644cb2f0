"""Finds when some slices of a switch may answer without the others, and tables and draws what that costs and gains.

    python -m export.calibrate --workdir=runs/digits --bundle=build/digits --target=build/early

Runs the bundle's files on the validation part and finds, for every switch and each set of slices that may have arrived,
how far the leading class of their sum has to be ahead for the answer to be given without the rest, so that in no order
of arrival more than --max_drop of the images are lost by it. Writes that into the bundle's manifest, where the
coordinator finds it, and prints what comes of it on the test part, with a warning where more is lost there, beside what
is settled by the bound alone: where the rest cannot matter, whatever it is. A calibration is of one precision and of
the very files: a bundle that is converted again has none.

With --target it also draws accuracy against latency, from the slices' latencies on this machine (one thread, one slice
at a time, median) or from given ones, as the confidence that is needed falls.

    python -m export.calibrate ... --target=build/early --latencies_ms=5,9,30,30 --straggler=0.1,10
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from export.bundles import manifest_update
from export.early import curve as early_curve
from export.early import latencies as early_latencies
from export.early import record as early_record
from export.early import tables as early_tables
from export.early.calibration import Outcomes, calibrate, outcomes
from export.early.tables import Calibrated
from export.proof import engines
from fusion.base.files import check_json_target, write_json, write_text
from fusion.base.program import UserError, define_float
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.rules.early import EarlyAnswer, require_classifier
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "The run folder that the bundle was cut from.", required=True)
_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle's folder; its manifest gets the calibration.", required=True)
_MAX_DROP = define_float(
    "max_drop", 0.5, "Percentage points of accuracy that early answers may lose on the validation part.", 0, 100
)
_PRECISION = flags.DEFINE_string("precision", None, "Which files to calibrate; by default the first of the bundle.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the dataset, as for training.")
_TARGET = flags.DEFINE_string("target", "", "Folder for early.csv, early.png and early.svg; made if it is not there.")
_LATENCIES_MS = flags.DEFINE_list(
    "latencies_ms", [], "For --target: ms that each slice takes to arrive, in slice order, of the switches of so many."
)
_STRAGGLER = flags.DEFINE_list(
    "straggler", [], "For --target: PROBABILITY,FACTOR; so often a slice takes that many times as long."
)
_JSON = flags.DEFINE_string("json", "", "File to write the tables, and with --target the curves, to as JSON.")

# Of so few validation images a drop is hardly measured.
_FEW = 10


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    asked = early_latencies.parse(_LATENCIES_MS.value, _STRAGGLER.value)
    if (_LATENCIES_MS.value or _STRAGGLER.value) and not _TARGET.value:
        raise UserError("--latencies_ms and --straggler are of the picture; give a folder for it by --target.")
    bundle = manifest.load(_BUNDLE.value)
    require_classifier(bundle)
    precision = bundle.check_precision(_PRECISION.value)
    entries = [entry for entry in bundle.switches if len(entry.slices) > 1]
    if not entries:
        raise UserError(
            f"bundle {str(bundle.folder)!r} has no switch of several slices; legal: one, since one slice is the answer."
        )
    drawn = asked.switches(entries) if _TARGET.value else []
    target = _folder(_TARGET.value) if _TARGET.value else None
    check_json_target(bundle.folder / "manifest.json")
    before = manifest_update.read(bundle)
    validation, test = _outcomes(bundle, entries, precision)
    max_drop = _MAX_DROP.value / 100
    found = [_calibrated(bundle, entry, precision, max_drop, validation, test) for entry in entries]
    print(early_tables.render(found))
    images = len(found[0].validation.full)
    allowed = int(max_drop * images)
    if allowed < _FEW:
        print(f"note: --max_drop is {allowed} of {images} validation images; more images would say it more surely")
    for text in early_tables.broken(found, max_drop):
        print(f"warning: {text}")
    early_record.write(bundle, before, precision, max_drop, found)
    print(f"wrote {bundle.folder / 'manifest.json'}")
    written: dict[str, Any] = {
        "model_id": bundle.model_id,
        "precision": precision,
        "max_drop": max_drop,
        "validation_images": images,
        "test_images": len(found[0].test.full),
        "switches": [one.as_json() for one in found],
    }
    if target is not None:
        written["curves"] = _draw(bundle, drawn, precision, max_drop, found, asked, target)
        print(f"wrote {target / 'early.csv'}, {target / 'early.png'} and {target / 'early.svg'}")
    if _JSON.value:
        write_json(_JSON.value, written)


def _outcomes(
    bundle: Bundle, entries: Sequence[SwitchEntry], precision: str
) -> tuple[dict[str, Outcomes], dict[str, Outcomes]]:
    """By switch, what its files make of the validation and of the test part of the run's dataset."""
    for file in bundle.files():
        bundle.read(file)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.quiet():
        from export.proof import checks as verification
        from paradis_tf.training import run as training
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    verification.require_same_model(bundle, model)
    found = []
    for name, part in (("validation", dataset.validation), ("test", dataset.test)):
        print(f"running all slices on the {len(part)} images of the {name} part", flush=True)
        (answers,) = engines.ask_all(bundle, [engines.REFERENCE], part.images[:], _report)
        found.append({entry.switch: outcomes(answers.real(entry, precision), part.labels) for entry in entries})
    return found[0], found[1]


def _calibrated(
    bundle: Bundle,
    entry: SwitchEntry,
    precision: str,
    max_drop: float,
    validation: dict[str, Outcomes],
    test: dict[str, Outcomes],
) -> Calibrated:
    margins = calibrate(validation[entry.switch], max_drop)
    proof = EarlyAnswer(bundle, entry, precision, "bound")
    bound = {arrived: proof.needed_margin(arrived) for arrived in margins}
    return Calibrated(entry.switch, margins, bound, validation[entry.switch], test[entry.switch])


def _draw(
    bundle: Bundle,
    entries: Sequence[SwitchEntry],
    precision: str,
    max_drop: float,
    found: Sequence[Calibrated],
    asked: early_latencies.Asked,
    target: Path,
) -> list[dict[str, Any]]:
    """Writes CSV and picture; returns the rows."""
    from export.early import figures as early_figures

    measured: dict[str, list[float]] = {}
    runtime = ""
    if not asked.slice_ms:
        print("timing the slices", flush=True)
        measured, runtime = early_latencies.measure(bundle, entries, precision)
    rows: list[dict[str, Any]] = []
    curves = {}
    for one in found:
        if one.switch not in [entry.switch for entry in entries]:
            continue
        latencies = asked.of(measured.get(one.switch, []))
        points = early_curve.curve(one.validation, one.test, one.bound, one.margins, max_drop, latencies)
        rows += early_curve.rows(one.switch, precision, latencies, len(one.test.full), points)
        curves[one.switch] = points
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(target / "early.csv", text.getvalue())
    title = f"Early answers of {bundle.name}, {precision}"
    conditions = f"{asked}{f' ({runtime})' if runtime else ''}; {len(found[0].test.full)} test images"
    early_figures.draw(curves, title, conditions, target / "early")
    return rows


def _folder(path: str) -> Path:
    target = Path(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--target={path} cannot be made: {error.strerror}.") from None
    check_json_target(target / "early.csv")
    return target


def _report(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    program.run(main)
