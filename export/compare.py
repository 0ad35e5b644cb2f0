"""Tables how far the runtimes of this machine and of emulated boards agree on a bundle.

    python -m export.compare --bundle=build/digits --data=digits.npz --limit=1000

Runs every slice file on tflite-runtime on this machine, which is the reference, on ai-edge-litert (built-in kernels and
XNNPACK) and on tflite-runtime on each emulated board, which is set up where it is not there yet. Exits 1 if anything
differs from its reference in a fused class, by more than --max_quanta steps of an int8 output, or by more than 1e-4 of
the largest value of a float output (2e-2 where an int8 file gives float). XNNPACK and the reference kernels on
int8 and the precision `dynamic`, which runtimes quantize in their own ways, are shown and no more. For classifiers.

The kernels of ARM round halves below zero, of an int8 convolution, down, and those of x86 up. MobileNet v1 has none
behind its ReLU6, so that it does not differ at all; networks with linear convolutions, such as ResNets, do, and what is
one step in one layer becomes several in the layers after it, and an image in some hundreds of another class. TFLite's
reference kernels round as ARM does: boards are held to what these give for int8 on this machine, and a note says on how
many images their class is not that of this machine's built-in kernels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from absl import flags

from export.emulation.boards import PROCESSORS
from export.emulation.installation import DEFAULT_CACHE, set_up
from export.proof import engines
from export.proof.agreement import Agreement, compare, other_classes
from export.proof.engines import Engine
from fusion.base import columns, program
from fusion.base.files import check_json_target, results, write_json, write_text
from fusion.base.paths import define_path
from fusion.base.streams import say
from fusion.bundle import manifest
from fusion.local import inputs

_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_DATA = define_path("data", None, "An .npz file with x_test and y_test.", required=True)
_LIMIT = flags.DEFINE_integer("limit", 1000, "At most so many images.", 1)
_BOARDS = flags.DEFINE_list("boards", list(PROCESSORS), "The emulated boards; empty for this machine alone.")
_CACHE = define_path("cache", DEFAULT_CACHE, "The folder that boards are set up in.")
_MAX_QUANTA = flags.DEFINE_integer("max_quanta", 1, "How many steps of an int8 output are no fault.", 0, 255)
_JSON = define_path("json", "", "File to write the table to as JSON.")
_CSV = define_path("csv", "", "File to write the table to as CSV.")


def main(arguments: list[str]) -> int:
    check_json_target(_JSON.value)
    check_json_target(_CSV.value)
    bundle = manifest.load(_BUNDLE.value)
    data = inputs.read_data(_DATA.value, bundle, _LIMIT.value)
    boards = set_up(_BOARDS.value, _CACHE.value, report=_report) if _BOARDS.value else []
    compared = engines.installed()
    if boards:
        compared += [engines.LIKE_ARM, *(Engine(engines.REFERENCE.runtime, board=board) for board in boards)]
    # Data for a bundle is of a classifier, so it has labels.
    rows = compare(bundle, engines.run_all(bundle, compared, data.images, _report), np.asarray(data.labels))
    faults = [fault for row in rows if (fault := row.fault(_MAX_QUANTA.value))]
    with results() as write:
        if _JSON.value:
            write(write_json, _JSON.value, {"switches": [row.as_json() for row in rows], "faults": faults})
        if _CSV.value:
            write(_write_csv, _CSV.value, rows)
        print(f"\n{_table(rows)}\n")
        note = other_classes(rows)
        if note:
            print(f"note: {note}")
        for fault in faults:
            print(f"fault: {fault}")
    if not faults:
        print("passed: what is to agree with the reference does")
    return 1 if faults else 0


def _write_csv(path: str, rows: Sequence[Agreement]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0].as_json()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_json() for row in rows)
    write_text(path, text.getvalue())


def _table(rows: Sequence[Agreement]) -> str:
    header = ["switch", "precision", "machine", "runtime"]
    header += ["same class (%)", "as here (%)", "quanta", "relative", "accuracy (%)"]
    cells = [
        (
            row.switch,
            row.precision,
            row.machine,
            row.runtime,
            f"{100 * row.same_class:.2f}",
            f"{100 * row.same_class_here:.2f}",
            "" if row.quanta is None else row.quanta,
            "" if row.relative is None else f"{row.relative:.1e}",
            f"{100 * row.accuracy:.2f}",
        )
        for row in rows
    ]
    return (
        f"{rows[0].images} images: the fused class against {rows[0].runtime} on {rows[0].machine},\n"
        "and the largest difference of a slice's output, in steps of it or as a fraction of the largest value; int8\n"
        "of boards against the reference kernels, and 'as here' their class against the former all the same\n\n"
        f"{columns.render(header, cells)}"
    )


def _report(text: str) -> None:
    say(text)


if __name__ == "__main__":
    program.run(main)
