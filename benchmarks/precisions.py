"""What every precision of verified bundles costs and gives: a row per switch and precision.

    python -m benchmarks.precisions --bundle=build/cifar10 --csv=benchmarks/results/precisions_cifar10.csv

Reads the manifest alone: accuracies are those that `export.verify` wrote into it, on tflite-runtime. Several bundles
may be given.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.conditions import write_csv
from fusion.base import columns
from fusion.base.program import UserError
from fusion.bundle import manifest
from paradis_tf.base import program

_BUNDLE = flags.DEFINE_multi_string("bundle", None, "A bundle's folder; may be given several times.", required=True)
_CSV = flags.DEFINE_string("csv", "", "File to write the table to.")

_HEADER = (
    "bundle",
    "switch",
    "precision",
    "quantization",
    "metric",
    "images",
    "float",
    "exported",
    "lost",
    "largest_file_bytes",
    "largest_compressed_bytes",
    "all_files_bytes",
    "madds",
    "largest_madds",
)


def main(argv: list[str]) -> None:
    rows = [row for bundle in _BUNDLE.value for row in _rows(Path(bundle))]
    header = (
        "bundle",
        "switch",
        "precision",
        "made by",
        "Keras",
        "exported",
        "lost",
        "largest file (kB)",
        "compressed",
    )
    shown = []
    for row in rows:
        found = dict(zip(_HEADER, row, strict=True))
        shown.append(
            (
                found["bundle"],
                found["switch"],
                found["precision"],
                found["quantization"],
                *(f"{found[key]:.2f}" for key in ("float", "exported", "lost")),
                *(f"{found[key] / 1e3:.0f}" for key in ("largest_file_bytes", "largest_compressed_bytes")),
                f"{found['madds'] / 1e6:.2f}",
            )
        )
    print("accuracy in % or PSNR-Y in dB on the test part, files on tflite-runtime")
    print(columns.render((*header, "MAdds (M)"), shown))
    if _CSV.value:
        write_csv(Path(_CSV.value), _HEADER, rows)


def _rows(folder: Path) -> list[tuple[Any, ...]]:
    bundle = manifest.load(folder)
    written = json.loads((folder / "manifest.json").read_text())
    rows: list[tuple[Any, ...]] = []
    for entry in written["switches"]:
        found = entry["accuracy"]
        if found is None:
            raise UserError(f"switch {entry['switch']!r} of bundle {str(folder)!r} is not verified; run export.verify.")
        per_unit = 100 if found["metric"] == "accuracy" else 1
        for precision in bundle.precisions:
            files = [part["files"][precision] for part in entry["slices"]]
            lost = per_unit * (found["float"] - found["exported"][precision])
            rows.append(
                (
                    bundle.name,
                    entry["switch"],
                    precision,
                    files[0]["quantization"] or "",
                    found["metric"],
                    found["images"],
                    round(per_unit * found["float"], 4),
                    round(per_unit * found["exported"][precision], 4),
                    round(lost, 4),
                    max(file["bytes"] for file in files),
                    max(file["compressed_bytes"] for file in files),
                    sum(file["bytes"] for file in files),
                    entry["madds"],
                    max(part["madds"] for part in entry["slices"]),
                )
            )
    return rows


if __name__ == "__main__":
    program.run(main)
