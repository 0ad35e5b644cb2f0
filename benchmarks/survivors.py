"""How right a cluster is of which one worker is always dead: the accuracy of its answers beside the bundle's table.

    python -m benchmarks.survivors --workdir=runs/digits --bundle=build/digits --csv=build/survivors.csv

Each worker serves one slice of one switch, so without it no other plan is possible, whatever the deadline. One after
the other is killed, and stopped so that it takes requests and never answers; each time the test images are asked for.
Exits 1 if a request was answered wrongly, late or not at all, if `export.verify` has not measured the slices that an
answer is of, or if the answers are more than three standard errors from what it has. See METHODOLOGY.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import survival
from benchmarks.conditions import write_csv
from benchmarks.survival import Survival
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import UserError, define_float
from fusion.bundle import manifest
from fusion.bundle.contents import SwitchEntry
from fusion.runtime import choosing as runtime
from paradis_tf.base import program
from paradis_tf.evaluation.live_subsets import text_form
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "The run folder that the bundle was cut from, whose test images are asked for.")
_BUNDLE = define_path("bundle", None, "The bundle's folder, verified.", required=True)
_SWITCH = flags.DEFINE_string("switch", "4x0.25", "The one switch that runs.")
_PRECISION = flags.DEFINE_string("precision", None, "One of the bundle's; by default its first.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_DEADLINE_MS = define_float("deadline_ms", 300, "The coordinator's deadline.", 1, 1e6)
_LIMIT = flags.DEFINE_integer("limit", 1000, "At most so many test images.", 1)
_DATA_DIR = define_path("data_dir", None, "Folder of the dataset, as for training.")
_CSV = define_path("csv", "", "File to write the table to.")
flags.mark_flag_as_required("workdir")

_HEADER = (
    *("worker", "was", "images", "answered", "bad", "answers of"),
    *("right (%)", "table (%)", "apart", "std. error", "p50 (ms)"),
)


def main(argv: list[str]) -> int:
    bundle = manifest.load(_BUNDLE.value)
    precision = bundle.check_precision(_PRECISION.value)
    entry = bundle.find_switch(_SWITCH.value)
    if not bundle.task.has_classes or not entry.accuracies(precision) or len(entry.slices) < 2:
        raise UserError(
            f"switch {entry.switch!r} of bundle {str(bundle.folder)!r} has nothing to lose; legal: a classifier's "
            "switch of several slices, measured by export.verify."
        )
    chosen = runtime.choose(_RUNTIME.value)
    images, labels = _test_images()
    rows = survival.measure(bundle, entry, precision, chosen, images, labels, _DEADLINE_MS.value or 0.0)
    rows.append(survival.together(rows, len(images)))
    with results() as write:
        if _CSV.value:
            said = {"served": f"{bundle.name} {precision}, {chosen}", "switch": entry.switch}
            write(write_csv, Path(_CSV.value), _HEADER, [_row(row, entry) for row in rows], said)
        print(columns.render(_HEADER, [_row(row, entry) for row in rows], left=(0, 1, 5)))
        for row in rows[:-1]:
            for sentence in row.bad[:3]:
                print(f"bad: worker {row.worker} {row.was}: {sentence}")
        print("good" if _is_good(rows) else "not good")
    return 0 if _is_good(rows) else 1


def _test_images() -> tuple[np.ndarray, np.ndarray]:
    workdir = Workdir.open(_WORKDIR.value)
    with program.loading():
        from paradis_tf.data import datasets
    config = workdir.config()
    test = datasets.load(**config["dataset"], data_dir=_DATA_DIR.value, seed=config["seed"]).test
    return test.images[: _LIMIT.value], test.labels[: _LIMIT.value]


def _is_good(rows: Sequence[Survival]) -> bool:
    return all(row.is_as_expected and not row.bad for row in rows)


def _row(row: Survival, entry: SwitchEntry) -> tuple[object, ...]:
    of = "; ".join(f"{text_form(live, len(entry.slices))}: {count}" for live, count in sorted(row.sets.items()))
    percents = (row.right, row.table, row.right - row.table, row.error)
    worker = "each" if row.worker is None else row.worker
    shown = (*(f"{100 * value:.2f}" for value in percents), f"{row.median_ms:.1f}")
    return worker, row.was, row.asked, row.answered, len(row.bad), of, *shown


if __name__ == "__main__":
    program.run(main)
