"""Times one joint training step over all switches against a step of each switch as a stock Keras model of its own.

    python -m benchmarks.training_step --csv=benchmarks/results/training_step_4cores.csv

The joint step is the supernet's under `compile`; the others are what a user without this project would build: for each
switch the same parallel slices from stock layers, logits added, trained alone on hard labels. Both sides run in turn
in one process, so that a busy machine weighs on both. See METHODOLOGY.md.
"""

from __future__ import annotations

import csv
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from export.fusion.program import UserError
from paradis_tf import program, table

_WIDTH = flags.DEFINE_float("width_multiplier", 0.5, "Base width of MobileNet v1, 32x32 form.")
_BATCH = flags.DEFINE_integer("batch_size", 128, "Images per step.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed rounds; each times every model once, after one untimed round.")
_CSV = flags.DEFINE_string("csv", "", "File to write the medians to.")

_SWITCHES = ("1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25")
_SIDE, _CLASSES = 32, 10


def main(argv: list[str]) -> None:
    if _ROUNDS.value < 1 or _BATCH.value < 1:
        raise UserError(f"--rounds={_ROUNDS.value} and --batch_size={_BATCH.value}; both are at least 1.")
    with program.quiet():
        import keras
        import numpy as np

        from paradis_tf.supernet import Supernet

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_BATCH.value, _SIDE, _SIDE, 3), dtype=np.uint8)
    labels = rng.integers(0, _CLASSES, _BATCH.value)
    architecture = {
        "name": "mobilenet_v1",
        "image_shape": (_SIDE, _SIDE, 3),
        "classes": _CLASSES,
        "width_multiplier": _WIDTH.value,
        "form": "32",
    }
    supernet = Supernet(architecture, _SWITCHES)
    models = {"joint": _joint(supernet, keras), **_apart(supernet, keras)}
    steps: dict[str, Callable[[], Any]] = {
        name: functools.partial(model.train_on_batch, images, labels) for name, model in models.items()
    }
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        print(f"{name}: traced and run once in {time.perf_counter() - started:.1f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(_ROUNDS.value):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - started))
        print(f"round {number + 1}/{_ROUNDS.value}", flush=True)
    _report(times)


def _optimizer(keras: Any) -> Any:
    return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)


def _joint(supernet: Any, keras: Any) -> Any:
    from paradis_tf.methods import Paradis

    supernet.compile(_optimizer(keras), method=Paradis(), weight_decay=1e-4)
    return supernet


def _apart(supernet: Any, keras: Any) -> dict[str, Any]:
    from paradis_tf.builders.static import extract

    found = {}
    for switch in supernet.switches:
        image = keras.Input(supernet.architecture.image_shape, name="image")
        parts = [extract(supernet, switch, device)(image) for device in range(switch.devices)]
        model = keras.Model(image, keras.layers.Add()(parts) if len(parts) > 1 else parts[0])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(_optimizer(keras), loss, metrics=["accuracy"], jit_compile=False)
        found[str(switch)] = model
    return found


def _report(times: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in times.items()}
    apart = sum(value for name, value in medians.items() if name != "joint")
    joint = [values[0] for values in zip(times["joint"], strict=True)]
    sums = [sum(values) for values in zip(*(v for n, v in times.items() if n != "joint"), strict=True)]
    ratio = statistics.median(mine / theirs for mine, theirs in zip(joint, sums, strict=True))
    rows = [
        (name, f"{value:.0f}", f"{min(times[name]):.0f}", f"{max(times[name]):.0f}") for name, value in medians.items()
    ]
    print("\n" + table.render(("step", "median (ms)", "min", "max"), rows))
    print(f"apart, together {apart:.0f} ms; joint / apart {ratio:.2f} (median over the rounds)")
    print(f"{_conditions()}, width {_WIDTH.value}, batch {_BATCH.value}")
    if not _CSV.value:
        return
    path = Path(_CSV.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "median_ms", "min_ms", "max_ms", "width_multiplier", "batch_size", "conditions"))
        conditions = (_WIDTH.value, _BATCH.value, _conditions())
        for name, value in medians.items():
            extremes = (round(min(times[name]), 1), round(max(times[name]), 1))
            writer.writerow((name, round(value, 1), *extremes, *conditions))
        writer.writerow(("joint/apart", round(ratio, 3), "", "", *conditions))


def _conditions() -> str:
    from paradis_tf.workdir import package_versions

    versions = package_versions()
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores {platform.machine()}, tensorflow {versions['tensorflow']}, keras {versions['keras']}"


if __name__ == "__main__":
    program.run(main)
