"""Finds when some slices of a switch may answer without the others, and tables what that costs and gains.

    python -m export.calibrate --workdir=runs/digits --bundle=build/digits

Runs the bundle's files on the validation part and finds, for every switch and each set of slices that may have arrived,
how far the leading class of their sum has to be ahead for the answer to be given without the rest, so that in no order
of arrival more than --max_drop of the images are lost by it. Writes that into the bundle's manifest, where the
coordinator finds it, and prints what comes of it on the test part, with a warning where more is lost there, beside what
is settled by the bound alone: where the rest cannot matter, whatever it is. A calibration is of one precision and of
the very files: a bundle that is converted again has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from export.bundles import manifest_update
from export.early import calibration, record, tables
from export.early.calibration import Outcomes
from export.early.tables import CalibratedSwitch
from export.proof import engines
from fusion.base.files import check_json_target, results, write_json
from fusion.base.paths import define_path
from fusion.base.program import UserError, define_float
from fusion.base.streams import say
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.rules.early import EarlyAnswer, require_classifier
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

if TYPE_CHECKING:
    from paradis_tf.data.parts import Part

_WORKDIR = define_path("workdir", None, "The run folder that the bundle was cut from.", required=True)
_BUNDLE = define_path("bundle", None, "The bundle's folder; its manifest gets the calibration.", required=True)
_MAX_DROP = define_float(
    "max_drop", 0.5, "Percentage points of accuracy that early answers may lose on the validation part.", 0, 100
)
_PRECISION = flags.DEFINE_string("precision", None, "Which files to calibrate; by default the first of the bundle.")
_DATA_DIR = define_path("data_dir", None, "Folder of the dataset, as for training.")
_JSON = define_path("json", "", "File to write the table to as JSON.")

# Of so few validation images a drop is hardly measured.
_FEW = 10


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    bundle = manifest.load(_BUNDLE.value)
    require_classifier(bundle)
    precision = bundle.check_precision(_PRECISION.value)
    entries = [entry for entry in bundle.switches if len(entry.slices) > 1]
    if not entries:
        raise UserError(
            f"bundle {str(bundle.folder)!r} has no switch of several slices; legal: one, since one slice is the answer."
        )
    check_json_target(bundle.folder / "manifest.json")
    before = manifest_update.read(bundle)
    validation, test = _outcomes(bundle, entries, precision)
    max_drop = (_MAX_DROP.value or 0.0) / 100
    switches = [_calibrate(bundle, entry, precision, max_drop, validation, test) for entry in entries]
    images = len(switches[0].validation.full)
    with results() as write:
        write(record.write, bundle, before, precision, max_drop, switches)
        if _JSON.value:
            written = {
                "model_id": bundle.model_id,
                "precision": precision,
                "max_drop": max_drop,
                "validation_images": images,
                "test_images": len(switches[0].test.full),
                "switches": [switch.as_json() for switch in switches],
            }
            write(write_json, _JSON.value, written)
        print(tables.render(switches))
        allowed = int(max_drop * images)
        if allowed < _FEW:
            print(f"note: --max_drop is {allowed} of {images} validation images; more images would say it more surely")
        for sentence in tables.broken_promises(switches, max_drop):
            print(f"warning: {sentence}")
    print(f"wrote {bundle.folder / 'manifest.json'}")


def _outcomes(
    bundle: Bundle, entries: Sequence[SwitchEntry], precision: str
) -> tuple[dict[str, Outcomes], dict[str, Outcomes]]:
    """By switch, what its files make of the validation and of the test part of the run's dataset."""
    for file in bundle.files():
        bundle.read(file)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.loading():
        from export.proof import checks
        from paradis_tf.training import run as training
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    checks.require_same_model(bundle, model)

    def measure(name: str, part: Part) -> dict[str, Outcomes]:
        say(f"running all slices on the {len(part)} images of the {name} part")
        (outputs,) = engines.run_all(bundle, [engines.REFERENCE], part.images[:], say)
        return {entry.switch: calibration.measure(outputs.real(entry, precision), part.labels) for entry in entries}

    return measure("validation", dataset.validation), measure("test", dataset.test)


def _calibrate(
    bundle: Bundle,
    entry: SwitchEntry,
    precision: str,
    max_drop: float,
    validation: dict[str, Outcomes],
    test: dict[str, Outcomes],
) -> CalibratedSwitch:
    margins = calibration.calibrate(validation[entry.switch], max_drop)
    proof = EarlyAnswer(bundle, entry, precision, "bound")
    bound = {arrived: proof.needed_margin(arrived) for arrived in margins}
    return CalibratedSwitch(entry.switch, margins, bound, validation[entry.switch], test[entry.switch])


if __name__ == "__main__":
    program.run(main)
