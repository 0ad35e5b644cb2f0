"""What the steps of an anytime network take, invoked one by one with tensors handed from file to file, against its last
level in one file and the dense network.

    python -m benchmarks.steps --form=32 --width_multiplier=0.5 --csv=build/steps_32.csv
    python -m benchmarks.steps --form=224 --csv=build/steps_224.csv

Its last level is timed `straight`, slice by slice as the steps do and in one file, and `masked`, as one convolution per
layer whose kernel has zeros for what is not read. The network is MobileNet v1 with weights at random, which times and
sizes do not depend on. Milliseconds are of the processor, on one thread, in a process that holds one runtime alone. See
METHODOLOGY.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.conditions import describe, write_csv
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program

_FORM = flags.DEFINE_enum("form", "32", ["32", "224"], "MobileNet v1 for 32x32 or for 224x224 pixels.")
_WIDTH = flags.DEFINE_float("width_multiplier", 1.0, "Base width.", lower_bound=0.0)
_LEVELS = flags.DEFINE_integer("levels", 4, "Levels.", 2, 16)
_PRECISION = flags.DEFINE_enum("precision", "int8", ["int8", "float32"], "Of all files.")
_RUNTIME = flags.DEFINE_enum("runtime", "ai_edge_litert", ["ai_edge_litert", "tflite_runtime"], "The runtime.")
_RUNS = flags.DEFINE_integer("runs", 100, "Runs of each file, of which the median counts.", 3)
_CSV = define_path("csv", "", "File to write the table to.")

_CLASSES = {"32": 10, "224": 1000}
# As of the config of CIFAR-10.
_STRIDES = {"32": (2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1), "224": ()}
_CALIBRATION_IMAGES = 8


def main(argv: list[str]) -> None:
    with program.loading():
        from fusion.runtime import choosing

        choosing.choose(_RUNTIME.value)
    with tempfile.TemporaryDirectory() as folder:
        files = _write_files(Path(folder))
        say(f"timing {len(files)} files on {_RUNTIME.value}")
        command = [sys.executable, "-m", "benchmarks.steps_alone", folder, _RUNTIME.value, str(_RUNS.value)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"the files could not be run: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    _report(files, json.loads(done.stdout))


def _write_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Writes the files; bytes and multiply-adds by name."""
    with program.loading():
        import numpy as np

        from export.conversion.converter import hushed
        from export.conversion.job import StepFile
        from export.conversion.ranges import calibrate, pin
        from export.conversion.steps import convert_step
        from export.tflite import graph
        from paradis_tf.builders.static import extract, unpinned
        from paradis_tf.builders.steps import extract_step
        from paradis_tf.supernet import Supernet

    side = int(_FORM.value)
    architecture = {
        "name": "mobilenet_v1",
        "image_shape": (side, side, 3),
        "classes": _CLASSES[_FORM.value],
        "width_multiplier": _WIDTH.value,
        "form": _FORM.value,
        "strides": _STRIDES[_FORM.value],
    }
    images = np.random.default_rng(0).integers(0, 256, (_CALIBRATION_IMAGES, side, side, 3), dtype=np.uint8)
    network, dense = (
        Supernet(architecture, levels=_LEVELS.value, connectivity=kind) for kind in ("triangular", "dense")
    )
    ranges = calibrate(network, images) if _PRECISION.value == "int8" else None
    made: dict[str, bytes] = {}
    for number, step in enumerate(network.steps, 1):
        say(f"converting step {number} of {_LEVELS.value}")
        made[f"step_{number}"], _ = convert_step(network, StepFile(step, _PRECISION.value), images, ranges)
    say("converting the last level and the dense network")

    def pin_of(cut: Any) -> Any:
        return unpinned if ranges is None else pin(network.architecture, cut, ranges)

    last, of_dense = network.paths[-1].cuts[0], dense.paths[-1].cuts[0]
    with hushed():
        steps = [extract_step(network, step, normalized_input=True, pin=pin_of(step)) for step in network.steps]
        made["straight"] = _convert(_joined(steps), None)
        made["masked"] = _convert(extract(network, last, normalized_input=True, pin=pin_of(last)), None)
        made["dense"] = _convert(extract(dense, of_dense, normalized_input=True), images)
    for name, data in made.items():
        (folder / f"{name}.tflite").write_bytes(data)
    return {name: (len(data), graph.read(data).madds) for name, data in made.items()}


def _joined(steps: Sequence[Any]) -> Any:
    """All steps in one model, which gives the last answer."""
    import keras

    image = keras.Input(steps[0].model.inputs[0].shape[1:])
    made: dict[str, Any] = {}
    for step in steps:
        made = step.model([image, *(made[name] for name in step.handed)])
    return keras.Model(image, made["prediction"])


def _convert(model: Any, images: Any) -> bytes:
    """The file of a network in one piece, whose ranges images set, or which has them."""
    from export.conversion.slices import float_converter, int8_converter

    shape = model.inputs[0].shape[1:]
    if _PRECISION.value == "int8":
        return bytes(int8_converter(model, images, shape, "logits").convert())
    return bytes(float_converter(model, _PRECISION.value, shape, "logits").convert())


def _report(files: dict[str, tuple[int, int]], ms: dict[str, float]) -> None:
    steps = [name for name in files if name.startswith("step_")]
    all_bytes, all_madds = (sum(files[name][place] for name in steps) for place in (0, 1))
    rows: list[Sequence[Any]] = [(name, ms[name], *files[name]) for name in steps]
    rows += [
        ("steps, invocations", ms["invocations"], all_bytes, all_madds),
        ("steps, handing over", ms["handing"], all_bytes, all_madds),
        *((name, ms[name], *files[name]) for name in ("straight", "masked", "dense")),
    ]
    lines = [(name, round(value, 4), *rest) for name, value, *rest in rows]
    ratios = {
        "invocations / straight": ms["invocations"] / ms["straight"],
        "handing over / straight": ms["handing"] / ms["straight"],
        "invocations / masked": ms["invocations"] / ms["masked"],
        "straight / dense": ms["straight"] / ms["dense"],
        "bytes of steps / straight": all_bytes / files["straight"][0],
        "bytes of steps / masked": all_bytes / files["masked"][0],
    }
    lines += [(name, round(value, 3), "", "") for name, value in ratios.items()]
    options = {
        "form": _FORM.value,
        "width_multiplier": _WIDTH.value,
        "levels": _LEVELS.value,
        "precision": _PRECISION.value,
        "runtime": _RUNTIME.value,
        "runs": _RUNS.value,
    }
    with results() as write:
        if _CSV.value:
            write(write_csv, Path(_CSV.value), ("of", "cpu_ms", "bytes", "madds"), lines, options)
        shown = [(name, f"{value:.3f}", f"{size:,}", f"{madds:,}") for name, value, size, madds in rows]
        print("\n" + columns.render(("of", "CPU ms", "bytes", "MAdds"), shown))
        for name, value in ratios.items():
            print(f"{name}: {value:.2f}")
        print(f"MobileNet v1 {_FORM.value}, width {_WIDTH.value}, {_PRECISION.value} on {_RUNTIME.value}, {describe()}")


if __name__ == "__main__":
    program.run(main)
