"""What a bundle can do, shown on this machine: tables for the terminal, and pictures.

    python -m export.demo --workdir=runs/demo --bundle=build/demo --large_bundle=build/demo_224

Serves every switch of the bundle, a process for each slice and a coordinator, and sends the test images through them:
accuracy.png. With --large_bundle, a bundle of a network of real size with the switches 1.0, 0.5+0.25+0.25 and 4x0.25,
trained or not, it also times the largest slice of each of its switches alone, speed.png, and runs a cluster of it for a
minute in which a device dies and comes back, life.png. All pictures are also written as SVG, and the figures as
summary.json, into the run folder. `make demo` ends with it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from export.demo import accuracy, figures, life, speed
from fusion.base import program
from fusion.base.files import results, write_json
from fusion.base.paths import define_path
from fusion.base.streams import say
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from fusion.runtime import choosing as runtime
from paradis_tf.base.program import loading
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "Run folder, trained and evaluated.", required=True)
_BUNDLE = define_path("bundle", None, "The bundle cut from it.", required=True)
_LARGE_BUNDLE = define_path("large_bundle", None, "A bundle of a network of real size, trained or not.")
_PRECISION = flags.DEFINE_string("precision", "int8", "The precision to serve.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "The runtime of the workers.")
_DATA_DIR = define_path("data_dir", None, "Folder with <dataset>.npz files.")
_LIMIT = flags.DEFINE_integer("limit", 1000, "At most so many test images.", 1)

# What the cluster runs while all its devices are there.
_LIFE_SWITCH = "0.5+0.25+0.25"


def main(argv: list[str]) -> None:
    workdir = Workdir.open(_WORKDIR.value)
    bundles = [manifest.load(folder) for folder in (_BUNDLE.value, _LARGE_BUNDLE.value) if folder]
    for bundle in bundles:
        bundle.check_precision(_PRECISION.value)
    chosen = runtime.choose(_RUNTIME.value)
    summary: dict[str, Any] = {"precision": _PRECISION.value, "runtime": str(chosen)}
    pictures = [_show_accuracy(workdir, bundles[0], summary)]
    for large in bundles[1:]:
        large.find_switch(_LIFE_SWITCH)
        pictures += [_show_speed(workdir, large, summary), _show_life(workdir, large, summary)]
    with results() as write:
        write(write_json, workdir.path / "summary.json", summary)
        print(_closing(bundles, workdir.path, pictures))


def _show_accuracy(workdir: Workdir, bundle: Bundle, summary: dict[str, Any]) -> Path:
    with loading():
        from paradis_tf.data import datasets
    config = workdir.config()
    dataset = datasets.load(**config["dataset"], data_dir=_DATA_DIR.value, seed=config["seed"])
    images, labels = dataset.test.images[: _LIMIT.value], dataset.test.labels[: _LIMIT.value]
    floats = accuracy.float_accuracies(workdir, bundle)
    rows = accuracy.measure(bundle, _PRECISION.value, _RUNTIME.value, floats, images, labels)
    say(f"\nOne training, cut in {len(rows)} ways: {len(images)} test images, {_PRECISION.value}, a process per slice")
    if len(images) < len(dataset.test):
        say(f"(float accuracy is of all {len(dataset.test)} test images)")
    say(accuracy.table(rows))
    say("(one device dead: what the others then answer rightly without it, in the mean over which one it is)")
    summary["accuracy"] = rows
    figures.draw_accuracy(rows, len(images), workdir.path / "accuracy")
    return workdir.path / "accuracy.png"


def _show_speed(workdir: Workdir, bundle: Bundle, summary: dict[str, Any]) -> Path:
    say(f"\nWhat slices buy: {_described(bundle)} on {summary['runtime']}, one thread")
    say("(each switch's largest slice alone, all in turn, median; untrained is as fast as trained)")
    rows = speed.measure(bundle, _PRECISION.value, _RUNTIME.value)
    say(speed.table(rows))
    summary["speed"] = rows
    figures.draw_speed(rows, _described(bundle), workdir.path / "speed")
    return workdir.path / "speed.png"


def _show_life(workdir: Workdir, bundle: Bundle, summary: dict[str, Any]) -> Path:
    script = life.Script()
    say(f"\nA minute of a cluster's life, of the same network: {script.rate:g} requests a second")
    seen = life.watch(bundle, _LIFE_SWITCH, _PRECISION.value, _RUNTIME.value, script, say)
    say(seen.summary())
    summary["life"] = dataclasses.asdict(seen)
    figures.draw_life(seen, _described(bundle), workdir.path / "life")
    return workdir.path / "life.png"


def _described(bundle: Bundle) -> str:
    height, width, _ = bundle.shape
    return f"{bundle.name}, {height}x{width} pixels, {_PRECISION.value}"


def _closing(bundles: list[Bundle], folder: Path, pictures: list[Path]) -> str:
    widest = max(bundles[0].switches, key=lambda entry: len(entry.slices))
    return f"""
table      {folder / "summary.json"}
pictures   {", ".join(map(str, pictures))}
bundle     {", ".join(str(bundle.folder) for bundle in bundles)}

To run it on boards, copy the bundle's folder to each of them, nothing else:
    rsync -a {_BUNDLE.value.rstrip("/")}/ pi@BOARD:bundle/
and type there:
    cd bundle && python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    .venv/bin/python -m fusion.worker --bundle=. --host=0.0.0.0 --port=8001 --token_file=token.txt
The bundle's README.md says how to make token.txt and cluster.toml,
and how to start the coordinator of, say, {widest.switch}."""


if __name__ == "__main__":
    program.run(main)
