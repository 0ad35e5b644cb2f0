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

from .base import columns
from .base.files import check_json_target, write_json
from .base.program import UserError, run
from .bundle import manifest
from .bundle.contents import Bundle, SliceFile, SliceModel, SwitchEntry
from .rules import sum as fuse
from .runtime import choosing as runtime
from .runtime import machine, memory, timing
from .runtime.choosing import Runtime
from .runtime.interpreters import SliceInterpreter, TailInterpreter

_BUNDLE = flags.DEFINE_string("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_SWITCH = flags.DEFINE_list("switch", None, "Only these switches, e.g. 4x0.25; all by default.")
_PRECISION = flags.DEFINE_list("precision", None, "Only these precisions; all by default.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of one invocation.", 1, runtime.MAX_THREADS)
_MAX_QUANTA = flags.DEFINE_integer(
    "max_quanta", 1, "How many quanta an int8 slice may be off on the built-in kernels.", 0
)
_RUNS = flags.DEFINE_integer("runs", 50, "Timed invocations of each slice; 0 leaves the timing out.", 0, 1_000_000)
_JSON = flags.DEFINE_string("json", None, "Also writes the result to this file.")

# How far float outputs may be from those of another machine, as a part of their range: by rounding alone, or, where
# activations are quantized, by a step or two of theirs in each layer.
_FLOAT_TOLERANCES = {"float32": 1e-4, "float16": 1e-4, "dynamic": 0.05, "int8": 0.02}
# What a fused answer that is an image may be off by, in grey levels.
_LEVELS = 16.0


@dataclass(frozen=True)
class SliceResult:
    """What became of one slice file.

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


def main(arguments: list[str]) -> int:
    """Runs the checks, prints what was found, and returns the exit status."""
    check_json_target(_JSON.value)
    if _BUNDLE.value is None:
        raise UserError("--bundle is missing; legal: the folder of a bundle.")
    bundle = manifest.load(_BUNDLE.value)
    entries = [bundle.find_switch(text) for text in _SWITCH.value or [entry.switch for entry in bundle.switches]]
    precisions = [bundle.check_precision(precision) for precision in _PRECISION.value or bundle.precisions]
    chosen = runtime.choose(_RUNTIME.value)
    host = machine.describe(runtime.available_cores())
    print(_headline(bundle, chosen, host), flush=True)
    for file in bundle.files():
        bundle.read(file)
    images, outputs = bundle.read_samples()
    print(f"files     {len(bundle.files())} as the manifest says", flush=True)
    results, faults = [], []
    for entry in entries:
        for precision in precisions:
            given = []
            for part in entry.slices:
                key = f"{part.model}/{precision}"
                wanted = [outputs[key], *([outputs[f"{key}/arm"]] if precision == "int8" else [])]
                try:
                    result, answers = _check_slice(bundle, entry, part, precision, images, wanted, chosen)
                except UserError as error:
                    # One that does not fit here or cannot be run; the others may be what this machine is for.
                    faults.append(f"{_where(entry.switch, part.device, precision)}: {error}")
                    continue
                results.append(result)
                faults += _slice_faults(result)
                given.append(answers)
            if len(given) == len(entry.slices):
                faults += _fused_faults(bundle, entry, precision, images, outputs, given, chosen)
            print(f"checked   switch {entry.switch}, {precision}", flush=True)
    after = machine.describe(host.cores)
    print(f"\n{_table(results)}\n")
    print(_footline(after))
    if _JSON.value:
        written = {
            "model_id": bundle.model_id,
            "runtime": str(chosen),
            "threads": _THREADS.value,
            "machine": asdict(after),
            "peak_memory_bytes": memory.peak(),
            "slices": [_row(result) for result in results],
            "faults": faults,
        }
        write_json(_JSON.value, written)
    for fault in faults:
        print(f"fault: {fault}")
    count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    print(count if faults else f"passed: {len(results)} slice files, {len(bundle.samples)} samples")
    return 1 if faults else 0


def _check_slice(
    bundle: Bundle,
    entry: SwitchEntry,
    part: SliceModel,
    precision: str,
    images: np.ndarray,
    wanted: Sequence[np.ndarray],
    chosen: Runtime,
) -> tuple[SliceResult, np.ndarray]:
    """What became of a slice, and what it gave for the samples as the runtime comes, dequantized."""
    file = part.files[precision]
    strict = _outputs_of(SliceInterpreter(bundle, file, chosen, _THREADS.value, delegates=False), images)
    slice_ = SliceInterpreter(bundle, file, chosen, _THREADS.value)
    given = _outputs_of(slice_, images)
    result = SliceResult(
        switch=entry.switch,
        device=part.device,
        precision=precision,
        bytes=file.bytes,
        quantized=file.output.scale is not None,
        apart=min(_apart(strict, one, file) for one in wanted),
        delegates_apart=min(_apart(given, one, file) for one in wanted),
        timing=timing.measure(lambda: slice_(images[0]), _RUNS.value) if _RUNS.value else None,
    )
    return result, fuse.dequantize(given, file.output.scale, file.output.zero_point)


def _where(switch: str, device: int, precision: str) -> str:
    return f"switch '{switch}', device {device}, {precision}"


def _row(result: SliceResult) -> dict[str, Any]:
    """A result for JSON, which has no number for what outputs that are not finite are off by."""
    row = asdict(result)
    return row | {key: row[key] if math.isfinite(row[key]) else None for key in ("apart", "delegates_apart")}


def _outputs_of(slice_: SliceInterpreter, images: np.ndarray) -> np.ndarray:
    return np.stack([slice_(image) for image in images])


def _apart(given: np.ndarray, wanted: np.ndarray, file: SliceFile) -> float:
    apart = float(np.abs(given.astype(np.float64) - wanted.astype(np.float64)).max())
    return apart if file.output.scale is not None else apart / max(float(np.ptp(wanted)), 1e-9)


def _slice_faults(result: SliceResult) -> list[str]:
    where = _where(result.switch, result.device, result.precision)
    legal = _MAX_QUANTA.value if result.quantized else _FLOAT_TOLERANCES[result.precision]
    unit = "quanta" if result.quantized else "of their range"
    if result.apart <= legal:
        return []
    return [f"{where}: its outputs for the samples are off by {result.apart:.2g} {unit}, legal {legal:g}."]


def _fused_faults(
    bundle: Bundle,
    entry: SwitchEntry,
    precision: str,
    images: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    given: Sequence[np.ndarray],
    chosen: Runtime,
) -> list[str]:
    wanted = []
    for part in entry.slices:
        output = part.files[precision].output
        wanted.append(fuse.dequantize(outputs[f"{part.model}/{precision}"], output.scale, output.zero_point))
    expected, found = fuse.fuse(wanted), fuse.fuse(given)
    where = f"switch '{entry.switch}', {precision}"
    if bundle.task.has_classes:
        # Where two classes are as good as equal, rounding may choose either.
        near = 0.1 * np.ptp(expected, axis=1)
        best = expected.max(axis=1)
        taken = np.take_along_axis(expected, found.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
        # Not `>`, which holds of no NaN.
        wrong = np.flatnonzero(~(best - taken <= near))
        return [f"{where}: sample {one} has another class than expected." for one in wrong]
    tail = TailInterpreter(bundle, chosen, _THREADS.value)
    apart = max(
        float(np.abs(tail(image, one).astype(float) - tail(image, two)).max())
        for image, one, two in zip(images, expected, found, strict=True)
    )
    return [f"{where}: its answers are off by {apart:g} grey levels, legal {_LEVELS:g}."] if apart > _LEVELS else []


def _headline(bundle: Bundle, chosen: Runtime, host: machine.Machine) -> str:
    left = memory.available()
    lines = [
        f"bundle    {bundle.name}, model id {bundle.model_id[:12]}",
        f"machine   {host.model}, {host.architecture}, cores: {host.cores}, Python {host.python}",
        f"runtime   {chosen}, threads: {_THREADS.value}",
    ]
    return "\n".join(lines + ([] if left is None else [f"memory    {left / 1e6:.0f} MB available"]))


def _table(results: Sequence[SliceResult]) -> str:
    header = ["slice", "precision", "bytes", "off", "as it comes"]
    timed = any(result.timing for result in results)
    header += ["count", "first", "min", "max", "avg", "std", "p50", "p95", "p99"] if timed else []
    rows = []
    for result in results:
        apart = [
            f"{one:.0f} quanta" if result.quantized else f"{one:.1e}" for one in (result.apart, result.delegates_apart)
        ]
        row = [f"{result.switch} / {result.device}", result.precision, f"{result.bytes:,}", *apart]
        if result.timing:
            figures = asdict(result.timing)
            row += [str(figures.pop("count")), *(f"{figure:.0f}" for figure in figures.values())]
        rows.append(row)
    said = (
        "off: largest difference from the expected outputs on the built-in kernels, in quanta (steps of the output)\n"
        "or as a part of their range; as it comes: the same with XNNPACK, where the runtime has it; times in us"
    )
    return f"{said}\n{columns.render(header, rows)}"


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
