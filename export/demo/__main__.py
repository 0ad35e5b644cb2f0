"""Serves every switch of a bundle on this machine, one process per slice, and tables and draws what it costs.

    python -m export.demo --workdir=runs/demo --bundle=build/demo

For each switch it starts that many workers and a coordinator, sends the test images through them over HTTP, and
writes summary.json, accuracy.png and timeline.png (also as SVG) into the run folder. `make demo` ends with it.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from export.demo import figures as demo_figures
from fusion.base import columns, program
from fusion.base.files import write_json
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.local.cluster import LocalCluster
from fusion.local.evaluation import LocalResult, evaluate
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import SliceInterpreter
from paradis_tf.base.program import quiet
from paradis_tf.data import datasets
from paradis_tf.records.workdir import Workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder, trained and evaluated.", required=True)
_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle cut from it.", required=True)
_PRECISION = flags.DEFINE_string("precision", "int8", "The precision to serve.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "The runtime of the workers.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with <dataset>.npz files.")
_LIMIT = flags.DEFINE_integer("limit", 1000, "At most so many test images.", 1)

_ALONE_RUNS = 200


def main(argv: list[str]) -> None:
    workdir = Workdir.open(_WORKDIR.value)
    config = workdir.config()
    dataset = datasets.load(**config["dataset"], data_dir=_DATA_DIR.value, seed=config["seed"])
    images, labels = dataset.test.images[: _LIMIT.value], dataset.test.labels[: _LIMIT.value]
    bundle = manifest.load(_BUNDLE.value)
    bundle.check_precision(_PRECISION.value)
    floats = _float_accuracies(workdir, bundle)
    summary, results = [], {}
    for entry in bundle.switches:
        if entry.switch not in floats:
            raise UserError(f"{workdir.evaluation_file} lacks switch '{entry.switch}'; run paradis_tf.evaluate.")
        alone = _slice_alone_ms(bundle, entry, images)
        print(f"switch {entry.switch}: starting {len(entry.slices)} workers and a coordinator", flush=True)
        with LocalCluster(bundle, entry.switch, _PRECISION.value, _RUNTIME.value, threads=1) as cluster:
            results[entry.switch] = evaluate(cluster.url, images, labels, _progress)
        summary.append(_row(entry, floats[entry.switch], results[entry.switch], alone))
    write_json(workdir.path / "summary.json", summary)
    demo_figures.accuracy(summary, len(images), workdir.path / "accuracy")
    demo_figures.timeline({s: result.timeline for s, result in results.items()}, workdir.path / "timeline")
    chosen = runtime.choose(_RUNTIME.value)
    print(f"\n{len(images)} test images, {_PRECISION.value} on {chosen}, one thread per worker, one machine")
    if len(images) < len(dataset.test):
        print(f"(float accuracy is of all {len(dataset.test)} test images)")
    print(_table(summary))
    print(_closing(bundle, workdir.path))


def _float_accuracies(workdir: Workdir, bundle: manifest.Bundle) -> dict[str, float]:
    rows = workdir.evaluation()
    for row in rows:
        if row["model_id"] != bundle.model_id:
            raise UserError(
                f"{workdir.evaluation_file} is of model {row['model_id'][:12]}..., and bundle {bundle.folder} of "
                f"{bundle.model_id[:12]}...; evaluate and convert the same run."
            )
    return {row["switch"]: row["accuracy"] for row in rows}


def _slice_alone_ms(bundle: manifest.Bundle, entry: manifest.SwitchEntry, images: np.ndarray) -> float:
    """Median time of one invocation of the switch's largest slice, with nothing else running."""
    largest = max(entry.slices, key=lambda part: part.madds)
    file = largest.files[_PRECISION.value]
    chosen = runtime.choose(_RUNTIME.value)
    with quiet():
        run = SliceInterpreter(bundle, file, chosen, threads=1)
    times = []
    for number in range(_ALONE_RUNS):
        image = images[number % len(images)]
        started = time.perf_counter()
        run(image)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def _row(entry: manifest.SwitchEntry, float_accuracy: float, result: LocalResult, slice_ms: float) -> dict[str, Any]:
    return {
        "switch": entry.switch,
        "devices": len(entry.slices),
        "madds_total": entry.madds,
        "madds_largest": max(part.madds for part in entry.slices),
        "bytes_largest": max(part.files[_PRECISION.value].bytes for part in entry.slices),
        "float_accuracy": float_accuracy,
        "served_accuracy": result.accuracy,
        "latency_ms": result.median_ms,
        "slice_ms": slice_ms,
    }


def _table(summary: list[dict[str, Any]]) -> str:
    header = (
        *("switch", "devices", "MAdds total (M)", "largest (M)", "largest file (kB)"),
        *("float (%)", "served (%)", "latency (ms)", "slice alone (ms)"),
    )
    rows = [
        (
            row["switch"],
            row["devices"],
            f"{row['madds_total'] / 1e6:.2f}",
            f"{row['madds_largest'] / 1e6:.2f}",
            f"{row['bytes_largest'] / 1e3:.0f}",
            f"{100 * row['float_accuracy']:.2f}",
            f"{100 * row['served_accuracy']:.2f}",
            f"{row['latency_ms']:.2f}",
            f"{row['slice_ms']:.2f}",
        )
        for row in summary
    ]
    return columns.render(header, rows)


def _progress(done: int, total: int) -> None:
    if sys.stdout.isatty():
        print(f"\r{done}/{total} images", end="\n" if done == total else "", flush=True)
    elif done == total:
        print(f"{done} images answered", flush=True)


def _closing(bundle: manifest.Bundle, folder: Path) -> str:
    widest = max(bundle.switches, key=lambda entry: len(entry.slices))
    return f"""
table      {folder / "summary.json"}
pictures   {folder / "accuracy.png"}, {folder / "timeline.png"}
bundle     {_BUNDLE.value}

To run it on boards, copy the bundle's folder to each of them, nothing else:
    rsync -a {_BUNDLE.value.rstrip("/")}/ pi@BOARD:bundle/
and type there:
    cd bundle && python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    .venv/bin/python -m fusion.worker --bundle=. --host=0.0.0.0 --port=8001 --token_file=token.txt
The bundle's README.md says how to make token.txt and cluster.toml,
and how to start the coordinator of, say, {widest.switch}."""


if __name__ == "__main__":
    program.run(main)
