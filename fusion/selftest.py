"""Checks a bundle on the machine that is to run it, and times its slices.

  python -m fusion.selftest                        (inside a bundle: all of it)
  python -m fusion.selftest --bundle=build/digits --switch=4x0.25 --precision=int8

Checks the runtime, the hash of every file, that each slice fits into memory and gives for the bundle's samples what it
gave when the bundle was made, and that the fused answers are the same. On the built-in kernels an int8 slice may be off
by --max_quanta, steps of its output, from what those of x86 gave or from what those of ARM give, whichever is nearer;
what XNNPACK, if it runs, makes of int8 is printed, and held to the fused answers.
Times are of single invocations in microseconds, like those of TFLite's benchmark tool. Exit status 1: a fault, each of
which is named. It needs no network, no other machine and no image library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from absl import flags

from .base import columns, files
from .base.paths import define_path
from .base.program import UserError, run
from .base.streams import say
from .bundle import manifest
from .bundle.contents import Bundle, SliceFile, SliceModel, SwitchEntry
from .rules.sum import Sum
from .runtime import choosing, machine, memory, timing
from .runtime.choosing import Runtime
from .runtime.interpreters import SliceInterpreter, TailInterpreter

_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_SWITCH = flags.DEFINE_list("switch", None, "Only these switches, e.g. 4x0.25; all by default.")
_PRECISION = flags.DEFINE_list("precision", None, "Only these precisions; all by default.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", choosing.RUNTIMES, "What runs the slice models.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of one invocation.", 1, choosing.MAX_THREADS)
_MAX_QUANTA = flags.DEFINE_integer(
    "max_quanta", 1, "How many quanta an int8 slice may be off on the built-in kernels.", 0
)
_RUNS = flags.DEFINE_integer("runs", 50, "Timed invocations of each slice; 0 leaves the timing out.", 0, 1_000_000)
_JSON = define_path("json", None, "Also writes the result to this file.")

# How far float outputs may be from those of another machine, as a part of their range: by rounding alone, or, where
# activations are quantized, by a step or two of theirs in each layer.
_FLOAT_TOLERANCES = {"float32": 1e-4, "float16": 1e-4, "dynamic": 0.05, "int8": 0.02}
# What a fused answer that is an image may be off by, in grey levels.
_LEVELS = 16.0


@dataclass(frozen=True)
class SliceResult:
    """The result of one slice file.

    Attributes:
      quantized: whether its output is.
      apart: largest difference from the expected outputs on the built-in kernels, in quanta, or for float outputs as a
        part of their range; of int8 files from those of x86 or those of ARM, whichever are nearer.
      delegates_apart: the same as the runtime comes, with XNNPACK where it takes part.
      timing: as the runtime comes; None where it was left out.
    """

    switch: str
    device: int
    precision: str
    bytes: int
    quantized: bool
    apart: float
    delegates_apart: float
    timing: timing.Timing | None


@dataclass(frozen=True)
class _Samples:
    """A bundle's samples, and what runs its files for them: see `Bundle.read_samples`."""

    bundle: Bundle
    runtime: Runtime
    images: np.ndarray
    outputs: Mapping[str, np.ndarray]

    def slice_outputs(self, file: SliceFile, **options: bool) -> tuple[SliceInterpreter, np.ndarray]:
        """The interpreter of a file, with these options, and its outputs for the samples."""
        interpreter = SliceInterpreter(self.bundle, file, self.runtime, _THREADS.value, **options)
        return interpreter, np.stack([interpreter(image) for image in self.images])


def main(arguments: list[str]) -> int:
    """Runs the checks, prints their results, and returns the exit status."""
    files.check_json_target(_JSON.value)
    bundle = manifest.load(_BUNDLE.value)
    entries = [bundle.find_switch(text) for text in _SWITCH.value or [entry.switch for entry in bundle.switches]]
    precisions = [bundle.check_precision(precision) for precision in _PRECISION.value or bundle.precisions]
    runtime = choosing.choose(_RUNTIME.value)
    say(_headline(bundle, runtime, machine.describe()))
    for file in bundle.files():
        bundle.read(file)
    samples = _Samples(bundle, runtime, *bundle.read_samples())
    say(f"files     {len(bundle.files())} as the manifest says")
    results: list[SliceResult] = []
    faults: list[str] = []
    for entry in entries:
        for precision in precisions:
            faults += _check_switch(samples, entry, precision, results)
            say(f"checked   switch {entry.switch}, {precision}")
    _report(samples, results, faults)
    return 1 if faults else 0


def _report(samples: _Samples, results: Sequence[SliceResult], faults: Sequence[str]) -> None:
    """Prints and writes the results."""
    host = machine.describe()
    with files.results() as write:
        if _JSON.value:
            written = {
                "model_id": samples.bundle.model_id,
                "runtime": str(samples.runtime),
                "threads": _THREADS.value,
                "machine": asdict(host),
                "peak_memory_bytes": memory.peak(),
                "slices": [_row(result) for result in results],
                "faults": faults,
            }
            write(files.write_json, _JSON.value, written)
        print(f"\n{_table(results)}\n")
        print(_footline(host))
        for fault in faults:
            print(f"fault: {fault}")
    passed = f"passed: {len(results)} slice files, {len(samples.images)} samples"
    print(columns.counted(len(faults), "fault") if faults else passed)


def _check_switch(samples: _Samples, entry: SwitchEntry, precision: str, results: list[SliceResult]) -> list[str]:
    """Adds a result for each slice to `results`, and returns the faults."""
    faults, answers = [], []
    for slice_ in entry.slices:
        where = f"switch '{entry.switch}', device {slice_.device}, {precision}"
        try:
            result, answer = _check_slice(samples, entry, slice_, precision)
        except UserError as error:
            # One that does not fit here or cannot be run; the others may be what this machine is for.
            faults.append(f"{where}: {error}")
            continue
        results.append(result)
        answers.append(answer)
        legal = _MAX_QUANTA.value if result.quantized else _FLOAT_TOLERANCES[precision]
        # Not `>`, which holds of no NaN.
        if not result.apart <= legal:
            unit = "quanta" if result.quantized else "of their range"
            faults.append(
                f"{where}: its outputs for the samples are off by {result.apart:.2g} {unit}, legal {legal:g}."
            )
    complete = len(answers) == len(entry.slices)
    return faults + (_fused_faults(samples, entry, precision, answers) if complete else [])


def _check_slice(
    samples: _Samples, entry: SwitchEntry, slice_: SliceModel, precision: str
) -> tuple[SliceResult, np.ndarray]:
    """The result of a slice, and its outputs for the samples as the runtime comes, dequantized."""
    file = slice_.files[precision]
    key = f"{slice_.model}/{precision}"
    expected = [samples.outputs[key], *([samples.outputs[f"{key}/arm"]] if precision == "int8" else [])]
    _, strict = samples.slice_outputs(file, delegates=False)
    interpreter, outputs = samples.slice_outputs(file)
    result = SliceResult(
        switch=entry.switch,
        device=slice_.device,
        precision=precision,
        bytes=file.bytes,
        quantized=file.output.scale is not None,
        apart=min(_apart(strict, array, file) for array in expected),
        delegates_apart=min(_apart(outputs, array, file) for array in expected),
        timing=timing.measure(lambda: interpreter(samples.images[0]), _RUNS.value) if _RUNS.value else None,
    )
    return result, Sum().contribution(file.output, outputs)


def _row(result: SliceResult) -> dict[str, Any]:
    """A result for JSON, which has no number for what outputs that are not finite are off by."""
    row = asdict(result)
    return row | {key: row[key] if math.isfinite(row[key]) else None for key in ("apart", "delegates_apart")}


def _apart(outputs: np.ndarray, expected: np.ndarray, file: SliceFile) -> float:
    apart = float(np.abs(outputs.astype(np.float64) - expected.astype(np.float64)).max())
    return apart if file.output.scale is not None else apart / max(float(np.ptp(expected)), 1e-9)


def _fused_faults(samples: _Samples, entry: SwitchEntry, precision: str, answers: Sequence[np.ndarray]) -> list[str]:
    bundle, addends = samples.bundle, []
    for slice_ in entry.slices:
        output = slice_.files[precision].output
        stored = samples.outputs[f"{slice_.model}/{precision}"]
        addends.append(Sum().contribution(output, stored))
    expected, fused = Sum().fuse(addends), Sum().fuse(answers)
    where = f"switch '{entry.switch}', {precision}"
    if bundle.task.has_classes:
        # Where two classes are as good as equal, rounding may choose either.
        near = 0.1 * np.ptp(expected, axis=1)
        best = expected.max(axis=1)
        taken = np.take_along_axis(expected, fused.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
        # Not `>`, which holds of no NaN.
        wrong = np.flatnonzero(~(best - taken <= near))
        return [f"{where}: sample {number} has another class than expected." for number in wrong]
    tail = TailInterpreter(bundle, samples.runtime, _THREADS.value)
    apart = max(
        float(np.abs(tail(image, first).astype(float) - tail(image, second)).max())
        for image, first, second in zip(samples.images, expected, fused, strict=True)
    )
    return [f"{where}: its answers are off by {apart:g} grey levels, legal {_LEVELS:g}."] if apart > _LEVELS else []


def _headline(bundle: Bundle, runtime: Runtime, host: machine.Machine) -> str:
    left = memory.available()
    lines = [
        f"bundle    {bundle.name}, model id {bundle.model_id[:12]}",
        f"machine   {host.model}, {host.architecture}, cores: {host.cores}, Python {host.python}",
        f"runtime   {runtime}, threads: {_THREADS.value}",
    ]
    return "\n".join(lines + ([] if left is None else [f"memory    {left / 1e6:.0f} MB available"]))


def _table(results: Sequence[SliceResult]) -> str:
    header = ["slice", "precision", "bytes", "off", "as it comes"]
    timed = any(result.timing for result in results)
    header += ["count", "first", "min", "max", "avg", "std", "p50", "p95", "p99"] if timed else []
    rows = []
    for result in results:
        apart = [
            f"{off:.0f} quanta" if result.quantized else f"{off:.1e}" for off in (result.apart, result.delegates_apart)
        ]
        row = [f"{result.switch} / {result.device}", result.precision, f"{result.bytes:,}", *apart]
        if result.timing:
            figures = asdict(result.timing)
            row += [str(figures.pop("count")), *(f"{figure:.0f}" for figure in figures.values())]
        rows.append(row)
    legend = (
        "off: largest difference from the expected outputs on the built-in kernels, in quanta (steps of the output)\n"
        "or as a part of their range; as it comes: the same with XNNPACK, where the runtime has it; times in us"
    )
    return f"{legend}\n{columns.render(header, rows)}"


def _footline(host: machine.Machine) -> str:
    peak = memory.peak()
    lines = [] if peak is None else [f"memory    {peak / 1e6:.0f} MB at most, of this process"]
    if host.celsius is not None:
        lines.append(f"heat      {host.celsius:.1f} degrees Celsius")
    if host.throttling is not None:
        lines.append(f"throttled {', '.join(host.throttling) or 'never since the start'}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
