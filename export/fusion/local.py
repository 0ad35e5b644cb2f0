"""Runs a switch on this machine, one worker process per slice and a coordinator, and evaluates it.

  python -m export.fusion.local --bundle=build/digits --switch=4x0.25 --data=test.npz
  python -m fusion.local --switch=4x0.25         (inside a bundle: checks its samples)

--data is an .npz file with x_test, uint8 (N, height, width, channels), and y_test, (N,) class
indices. Without it the bundle's samples are sent and the answers compared with those the bundle
expects; the exit status is 1 if one differs. The times are those of this machine, with all workers
on it: they say nothing about a cluster of boards.
"""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import flags

from . import images, manifest, runtime
from .evaluation import LocalResult, evaluate
from .files import write_json
from .local_cluster import LocalCluster
from .manifest import Bundle, SwitchEntry
from .program import UserError, run

_BUNDLE = flags.DEFINE_string("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_SWITCH = flags.DEFINE_string("switch", None, "The switch to run, e.g. 4x0.25.")
_DATA = flags.DEFINE_string("data", None, ".npz file with x_test and y_test; default: the samples.")
_LIMIT = flags.DEFINE_integer("limit", None, "Sends only the first this many images.", 1)
_PRECISION = flags.DEFINE_string("precision", "int8", "Which files of the bundle to run.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of each worker's invocations.", 1)
_STARTUP_TIMEOUT_S = flags.DEFINE_float("startup_timeout_s", 60, "Seconds that starting all processes may take.", 0.001)
_JSON = flags.DEFINE_string("json", None, "Also writes the result to this file.")

# A runtime may round one value of a quantized network to the neighbouring step.
_STEPS = 2
_FLOAT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Inputs:
    """What to send: uint8 images (N, height, width, channels) and their class indices (N,); for
    samples also the expected fused logits (N, K) and how far an answer may be from them."""

    images: np.ndarray
    labels: np.ndarray
    expected: np.ndarray | None = None
    tolerance: float = 0.0


def read_data(path: str, classes: int, limit: int | None) -> Inputs:
    """The first `limit` test images of an .npz file.

    Raises `UserError` when the file is missing, is no .npz or lacks x_test or y_test, and when
    y_test is not one class index, 0 to `classes` - 1, per image.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = [data[key] for key in ("x_test", "y_test")]
    except FileNotFoundError as error:
        raise UserError(f"data file {path!r} does not exist.") from error
    except KeyError as error:
        raise UserError(f"data file {path!r} has no array {error}; legal: x_test, y_test.") from error
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"data file {path!r} is not an .npz file without pickles.") from error
    images_, labels = (array[:limit] for array in arrays)
    fits = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == len(images_)
    if not fits or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
        raise UserError(
            f"y_test of data file {path!r} is {labels.dtype} {list(labels.shape)}; legal: "
            f"{len(images_)} "
            f"class indices from 0 to {classes - 1}."
        )
    return Inputs(images_, labels)


def read_samples(bundle: Bundle, entry: SwitchEntry, precision: str, limit: int | None) -> Inputs:
    """The first `limit` of the bundle's samples that have an expected answer for this switch and
    precision.

    The tolerance is two quantization steps of each slice's output, and 1e-4 of the largest logit
    for a float file. Raises `UserError` when there is no such sample or an image cannot be read.
    """
    samples = [s for s in bundle.samples if precision in s.expected.get(entry.switch, {})][:limit]
    if not samples:
        raise UserError(
            f"bundle {str(bundle.folder)!r} has no sample for switch {entry.switch!r} and "
            "precision "
            f"{precision!r}; legal: give images with --data."
        )
    expected = np.array([s.expected[entry.switch][precision] for s in samples], np.float32)
    scales = [slice_.files[precision].output.scale for slice_ in entry.slices]
    tolerance = sum(_STEPS * scale for scale in scales if scale is not None)
    return Inputs(
        np.stack([images.read(bundle.path(s.file), bundle.shape) for s in samples]),
        np.array([s.label for s in samples]),
        expected,
        tolerance + _FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max())),
    )


def _summary(entry: SwitchEntry, inputs: Inputs, result: LocalResult) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "switch": entry.switch,
        "precision": _PRECISION.value,
        "runtime": str(runtime.choose(_RUNTIME.value)),
        "threads": _THREADS.value,
        "images": len(inputs.images),
        "accuracy": result.accuracy,
        "median_ms": result.median_ms,
        "p95_ms": result.p95_ms,
        "invoke_ms": dict(result.invoke_ms),
        "timeline": dict(result.timeline),
    }
    if inputs.expected is not None:
        apart = float(np.abs(result.logits - inputs.expected).max())
        summary |= {"largest_difference": apart, "tolerance": inputs.tolerance}
    return summary


def _print(entry: SwitchEntry, summary: dict[str, Any]) -> None:
    print(
        f"switch {entry.switch}, {summary['precision']}, {summary['runtime']}, threads per worker: {summary['threads']}"
    )
    print(f"images    {summary['images']}")
    print(f"accuracy  {summary['accuracy']:.2%}")
    print(f"latency   median {summary['median_ms']:.2f} ms, p95 {summary['p95_ms']:.2f} ms")
    for slice_, (device, ms) in zip(entry.slices, summary["invoke_ms"].items(), strict=True):
        print(f"{device}  slice [{slice_.start}, {slice_.stop}), median invocation {ms:.3f} ms")
    if "tolerance" in summary:
        print(
            f"samples   logits within {summary['largest_difference']:.4g} of the expected; "
            f"legal: {summary['tolerance']:.4g}"
        )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 10 == 0 or done == total):
        print(
            f"\r{done}/{total} images",
            end="\n" if done == total else "",
            file=sys.stderr,
            flush=True,
        )
    elif done % -(-total // 10) == 0:
        print(f"{done}/{total} images", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Runs the cluster and prints what it made of the images; returns the exit status."""
    if _BUNDLE.value is None:
        raise UserError("--bundle is missing; legal: the folder of a bundle.")
    bundle = manifest.load(_BUNDLE.value)
    if _SWITCH.value is None:
        legal = ", ".join(entry.switch for entry in bundle.switches)
        raise UserError(f"--switch is missing; legal: {legal}.")
    entry = bundle.find_switch(_SWITCH.value)
    precision = bundle.check_precision(_PRECISION.value)
    runtime.choose(_RUNTIME.value)
    if _DATA.value is None:
        inputs = read_samples(bundle, entry, precision, _LIMIT.value)
    else:
        inputs = read_data(_DATA.value, len(bundle.labels), _LIMIT.value)
    print(f"starting {len(entry.slices)} workers and a coordinator", file=sys.stderr, flush=True)
    with LocalCluster(
        bundle,
        entry.switch,
        precision,
        _RUNTIME.value,
        _THREADS.value,
        _STARTUP_TIMEOUT_S.value,
    ) as cluster:
        result = evaluate(cluster.url, inputs.images, inputs.labels, _progress)
    summary = _summary(entry, inputs, result)
    _print(entry, summary)
    if _JSON.value is not None:
        write_json(_JSON.value, summary)
    if inputs.expected is not None and summary["largest_difference"] > inputs.tolerance:
        print("error: the answers are not those that the bundle expects.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run(main)
