"""Times one joint training step over all switches against a step of each switch as a stock Keras model of its own, and
against itself with sets of live devices; and a step of four levels against that of the full width alone.

    python -m benchmarks.training_step --csv=benchmarks/results/training_step_4cores.csv
    python -m benchmarks.training_step --model=resnet --depth=50 --rounds=5 \
        --csv=benchmarks/results/training_step_resnet50_4cores.csv

The joint step is the supernet's under `compile`, once as method `paradis` makes it without sets of live devices and
once with the sets that it has by default; the others are what a user without this project would build: for each
switch the same parallel slices from stock layers, logits added, trained alone on hard labels. Levels are trained by the
method `anytime` in a triangular network, and by `nested` in a dense one; the full width alone by `individual`. All run
in turn in one process, so that a busy machine weighs on both. See METHODOLOGY.md.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks import kernels
from benchmarks.conditions import describe, write_csv
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program

_MODEL = flags.DEFINE_enum("model", "mobilenet_v1", ["mobilenet_v1", "resnet"], "Architecture, in its 32x32 form.")
_DEPTH = flags.DEFINE_enum("depth", "10", ["10", "14", "18", "26", "50"], "Depth of the ResNet.")
_WIDTH = flags.DEFINE_float(
    "width_multiplier", 0.5, "Base width; a ResNet's is at least 0.5, see METHODOLOGY.md.", lower_bound=0.0
)
_BATCH = flags.DEFINE_integer("batch_size", 128, "Images per step.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed rounds; each times every model once, after one untimed round.")
_CSV = define_path("csv", "", "File to write the medians to.")
_PROFILE = flags.DEFINE_bool(
    "profile",
    False,
    "After the timed rounds trace every model's step, and tell which kernels took the time; with --csv=NAME.csv also "
    "in NAME_profile.csv.",
)

_SWITCHES = ("1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25")
_SIDE, _CLASSES = 32, 10
# The joint step as `paradis` makes it by default, and without what live devices learn.
_JOINT, _WITHOUT = "joint", "joint, no live sets"
# Networks of levels, and what they are held against: the full width alone, by the same code.
_TRIANGULAR, _NESTED, _ALONE = "triangular levels", "nested levels", "full width alone"
_LEVELS = 4
# Each traces every model once.
_TRACED_ROUNDS = 3
# Of a strided 1x1 convolution; with fewer, oneDNN's gradient of the stock layer writes past its buffer.
_FEWEST_CHANNELS = 8


class Times(NamedTuple):
    """What a step took: seconds to trace it and run it once, then milliseconds in each round."""

    traced_s: float
    steps_ms: list[float]


def main(argv: list[str]) -> None:
    if _ROUNDS.value < 1 or _BATCH.value < 1:
        raise UserError(f"--rounds={_ROUNDS.value} and --batch_size={_BATCH.value}; both are at least 1.")
    with program.loading():
        import keras
        import numpy as np

        from paradis_tf.methods import Anytime, Individual, Nested
        from paradis_tf.training.step import TrainableSupernet

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_BATCH.value, _SIDE, _SIDE, 3), dtype=np.uint8)
    labels = rng.integers(0, _CLASSES, _BATCH.value)
    supernet, without = (TrainableSupernet(_architecture(), _SWITCHES) for _ in range(2))
    models = {
        _JOINT: _joint(supernet, keras),
        _WITHOUT: _joint(without, keras, live_weight=0.0, final_live_weight=0.0),
        _ALONE: _trained(keras, Individual(), switches=("1.0",)),
        _TRIANGULAR: _trained(keras, Anytime(), levels=_LEVELS, connectivity="triangular"),
        _NESTED: _trained(keras, Nested(), levels=_LEVELS),
        **_apart(supernet, keras),
    }
    steps: dict[str, Callable[[], Any]] = {
        name: functools.partial(model.train_on_batch, images, labels) for name, model in models.items()
    }
    times = {}
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        times[name] = Times(time.perf_counter() - started, [])
        say(f"{name}: traced and run once in {times[name].traced_s:.1f} s")
    for number in range(_ROUNDS.value):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].steps_ms.append(1e3 * (time.perf_counter() - started))
        say(f"round {number + 1}/{_ROUNDS.value}")
    _report(times)
    if _PROFILE.value:
        _report_kernels(_trace(steps))


def _architecture() -> dict[str, Any]:
    return {
        "name": _MODEL.value,
        "image_shape": (_SIDE, _SIDE, 3),
        "classes": _CLASSES,
        "width_multiplier": _WIDTH.value,
        "form": "32",
        **({"depth": int(_DEPTH.value)} if _MODEL.value == "resnet" else {}),
    }


def _optimizer(keras: Any) -> Any:
    return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, name=kernels.OPTIMIZER)


def _joint(supernet: Any, keras: Any, **options: Any) -> Any:
    from paradis_tf.methods import Paradis

    supernet.compile(_optimizer(keras), method=Paradis(**options), weight_decay=1e-4)
    return supernet


def _trained(keras: Any, method: Any, **paths: Any) -> Any:
    from paradis_tf.training.step import TrainableSupernet

    network = TrainableSupernet(_architecture(), **paths)
    network.compile(_optimizer(keras), method=method, weight_decay=1e-4)
    return network


def _apart(supernet: Any, keras: Any) -> dict[str, Any]:
    from paradis_tf.builders.static import extract

    models = {}
    for switch in supernet.switches:
        image = keras.Input(supernet.architecture.image_shape, name="image")
        slices = [extract(supernet, cut) for cut in switch.cuts]
        for model in slices:
            _check_strides(model, keras)
        logits = [model(image) for model in slices]
        model = keras.Model(image, keras.layers.Add()(logits) if len(logits) > 1 else logits[0])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(_optimizer(keras), loss, metrics=["accuracy"], jit_compile=False)
        models[str(switch)] = model
    return models


def _check_strides(model: Any, keras: Any) -> None:
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.strides != (1, 1):
            channels = layer.input.shape[-1]
            if channels < _FEWEST_CHANNELS:
                raise UserError(
                    f"--width_multiplier={_WIDTH.value}: {layer.name!r} of the narrowest slice has {channels} input "
                    f"channels; a stock strided 1x1 convolution trains right from {_FEWEST_CHANNELS}, at a width of "
                    f"{_WIDTH.value * _FEWEST_CHANNELS / channels:g}."
                )


def _report(times: dict[str, Times]) -> None:
    medians = {name: statistics.median(each.steps_ms) for name, each in times.items()}
    apart = [name for name in times if name in _SWITCHES]
    sums = [sum(steps) for steps in zip(*(times[name].steps_ms for name in apart), strict=True)]
    ratio = _median_ratio(times[_JOINT].steps_ms, sums)
    live = _median_ratio(times[_JOINT].steps_ms, times[_WITHOUT].steps_ms)
    of_levels = {name: _median_ratio(times[name].steps_ms, times[_ALONE].steps_ms) for name in (_TRIANGULAR, _NESTED)}
    live_traced = times[_JOINT].traced_s / times[_WITHOUT].traced_s
    figures = {
        name: (medians[name], min(each.steps_ms), max(each.steps_ms), each.traced_s) for name, each in times.items()
    }
    lines: list[Sequence[Any]] = [(name, *(round(value, 1) for value in values)) for name, values in figures.items()]
    lines += [("joint/apart", round(ratio, 3), "", "", ""), (f"{_JOINT}/{_WITHOUT}", round(live, 3), "", "", "")]
    lines += [(f"{name}/{_ALONE}", round(value, 3), "", "", "") for name, value in of_levels.items()]
    with results() as write:
        if _CSV.value:
            write(_write, Path(_CSV.value), ("step", "median_ms", "min_ms", "max_ms", "traced_s"), lines)
        rows = [(name, *(f"{ms:.0f}" for ms in steps_ms), f"{s:.1f}") for name, (*steps_ms, s) in figures.items()]
        print("\n" + columns.render(("step", "median (ms)", "min", "max", "traced in (s)"), rows))
        together = sum(medians[name] for name in apart)
        print(f"apart, together {together:.0f} ms; joint / apart {ratio:.2f} (median over the rounds)")
        print(f"with sets of live devices / without: {live:.2f} (median over the rounds), tracing {live_traced:.2f}")
        for name, value in of_levels.items():
            print(f"{name} / {_ALONE}: {value:.2f} (median over the rounds)")
        print(f"{_model()}, width {_WIDTH.value}, batch {_BATCH.value}, {describe()}")


def _median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def _trace(steps: dict[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by category of its kernels, the mean over the traced rounds."""
    rounds = [{name: kernels.measure(step) for name, step in steps.items()} for _ in range(_TRACED_ROUNDS)]
    return {
        name: {kind: statistics.mean(round_[name][kind] for round_ in rounds) for kind in kernels.CATEGORIES}
        for name in steps
    }


def _report_kernels(spent: dict[str, dict[str, float]]) -> None:
    joint = spent[_JOINT]
    names = [name for name in spent if name in _SWITCHES]
    apart = {kind: sum(spent[name][kind] for name in names) for kind in kernels.CATEGORIES}
    rows = []
    for kind, joint_ms, apart_ms in [
        *((kind, joint[kind], apart[kind]) for kind in kernels.CATEGORIES),
        ("together", sum(joint.values()), sum(apart.values())),
    ]:
        share = f"{100 * joint_ms / sum(joint.values()):.0f}%"
        ratio = f"{joint_ms / apart_ms:.2f}" if apart_ms else "-"
        rows.append((kind, f"{joint_ms:.1f}", share, f"{apart_ms:.1f}", ratio))
    with results() as write:
        if _CSV.value:
            path = Path(_CSV.value)
            lines = [(name, kind, round(value, 2)) for name, kinds in spent.items() for kind, value in kinds.items()]
            write(_write, path.with_name(f"{path.stem}_profile.csv"), ("step", "kernels", "mean_ms"), lines)
        print("\n" + columns.render(("kernels", "joint (ms)", "share", "apart (ms)", "joint / apart"), rows))
        print(f"kernels run side by side: their sum may exceed the step (means of {_TRACED_ROUNDS} traced rounds)")


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    options = {"model": _model(), "width_multiplier": _WIDTH.value, "batch_size": _BATCH.value}
    write_csv(path, header, rows, options)


def _model() -> str:
    return f"resnet{_DEPTH.value}" if _MODEL.value == "resnet" else _MODEL.value


if __name__ == "__main__":
    program.run(main)
