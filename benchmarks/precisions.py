"""What every precision of verified bundles costs and gives: a row per switch and precision.

    python -m benchmarks.precisions --bundle=build/cifar10 --csv=benchmarks/results/precisions_cifar10.csv

Reads the manifest alone: accuracies are those that `export.verify` wrote into it, on tflite-runtime. Several bundles
may be given.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.conditions import write_csv
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path, define_paths
from fusion.base.program import UserError
from fusion.bundle import manifest
from paradis_tf.base import program

_BUNDLE = define_paths("bundle", None, "A bundle's folder; may be given several times.", required=True)
_CSV = define_path("csv", "", "File to write the table to.")

_SHOWN = ("bundle", "switch", "precision", "quantization", "float", "exported", "lost")


def main(argv: list[str]) -> None:
    records = [record for bundle in _BUNDLE.value for record in _records(Path(bundle))]
    rows = [
        (
            *(record[key] for key in _SHOWN[:4]),
            *(f"{record[key]:.2f}" for key in _SHOWN[4:]),
            *(f"{record[key] / 1e3:.0f}" for key in ("largest_file_bytes", "largest_compressed_bytes")),
            f"{record['madds'] / 1e6:.2f}",
        )
        for record in records
    ]
    with results() as write:
        if _CSV.value:
            write(write_csv, Path(_CSV.value), list(records[0]), [list(record.values()) for record in records])
        print("accuracy in % or PSNR-Y in dB on the test part, files on tflite-runtime")
        print(columns.render((*_SHOWN, "largest file (kB)", "compressed", "MAdds (M)"), rows))


def _records(folder: Path) -> list[dict[str, Any]]:
    """A record per switch and precision of a bundle."""
    bundle = manifest.load(folder)
    records = []
    for entry in json.loads((folder / "manifest.json").read_bytes())["switches"]:
        accuracy = entry["accuracy"]
        if accuracy is None:
            raise UserError(f"switch {entry['switch']!r} of bundle {str(folder)!r} is not verified; run export.verify.")
        for precision in bundle.precisions:
            files = [slice_["files"][precision] for slice_ in entry["slices"]]
            trained, exported = (
                bundle.task.accuracy_scale * value for value in (accuracy["float"], accuracy["exported"][precision])
            )
            records.append(
                {
                    "bundle": bundle.name,
                    "switch": entry["switch"],
                    "precision": precision,
                    "quantization": files[0]["quantization"] or "",
                    "metric": accuracy["metric"],
                    "images": accuracy["images"],
                    "float": round(trained, 4),
                    "exported": round(exported, 4),
                    "lost": round(trained - exported, 4),
                    "largest_file_bytes": max(file["bytes"] for file in files),
                    "largest_compressed_bytes": max(file["compressed_bytes"] for file in files),
                    "all_files_bytes": sum(file["bytes"] for file in files),
                    "madds": entry["madds"],
                    "largest_madds": max(slice_["madds"] for slice_ in entry["slices"]),
                }
            )
    return records


if __name__ == "__main__":
    program.run(main)
