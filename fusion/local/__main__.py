"""Runs a switch on this machine, one worker process per slice and a coordinator, and evaluates it.

  python -m fusion.local --bundle=build/digits --switch=4x0.25 --data=test.npz
  python -m fusion.local --switch=4x0.25         (inside a bundle: checks its samples)

--data is an .npz file with x_test, uint8 (N, height, width, channels), and y_test, (N,) or (N, 1) class indices; grey
images, (N, height, width) or (N, height, width, 1), are repeated to RGB. Without it the bundle's samples are sent and
the answers compared with those the bundle expects; the exit status is 1 if one differs. The times are those of this
machine, with all workers on it: they say nothing about a cluster of boards.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from absl import flags

from ..base.files import check_json_target, results, write_json
from ..base.paths import define_path
from ..base.program import UserError, run
from ..bundle import manifest
from ..bundle.contents import SwitchEntry
from ..runtime import choosing as runtime
from .cluster import LocalCluster
from .evaluation import evaluate
from .inputs import read_data, read_samples

_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_SWITCH = flags.DEFINE_string("switch", None, "The switch to run, e.g. 4x0.25.")
_DATA = define_path("data", None, ".npz file with x_test and y_test; default: the samples.")
_LIMIT = flags.DEFINE_integer("limit", None, "Sends only the first this many images.", 1)
_PRECISION = flags.DEFINE_string("precision", None, "Which of the bundle's files to run; by default its first.")
_RUNTIME = flags.DEFINE_enum("runtime", "auto", runtime.RUNTIMES, "What runs the slice models.")
_JSON = define_path("json", None, "Also writes the result to this file.")


def _print(entry: SwitchEntry, summary: dict[str, Any]) -> None:
    print(f"switch {entry.switch}, {summary['precision']}, {summary['runtime']}, one thread per worker")
    print(f"images    {summary['images']}")
    if summary["accuracy"] is not None:
        print(f"accuracy  {summary['accuracy']:.2%}")
    print(f"latency   median {summary['median_ms']:.2f} ms, p95 {summary['p95_ms']:.2f} ms")
    for slice_, (device, ms) in zip(entry.slices, summary["invoke_ms"].items(), strict=True):
        print(f"{device}  slice [{slice_.start}, {slice_.stop}), median invocation {ms:.3f} ms")
    if "tolerance" in summary:
        print(
            f"samples   answers within {summary['largest_difference']:.4g} of the expected; "
            f"legal: {summary['tolerance']:.4g}"
        )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 10 == 0 or done == total):
        print(f"\r{done}/{total} images", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done % -(-total // 10) == 0:
        print(f"{done}/{total} images", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Runs the cluster and prints what it made of the images; returns the exit status."""
    check_json_target(_JSON.value)
    bundle = manifest.load(_BUNDLE.value)
    if _SWITCH.value is None:
        legal = ", ".join(entry.switch for entry in bundle.switches)
        raise UserError(f"--switch is missing; legal: {legal}.")
    entry = bundle.find_switch(_SWITCH.value)
    precision = bundle.check_precision(_PRECISION.value)
    chosen = runtime.choose(_RUNTIME.value)
    if _DATA.value is None:
        inputs = read_samples(bundle, entry, precision, chosen.name, _LIMIT.value)
    else:
        inputs = read_data(_DATA.value, bundle, _LIMIT.value)
    print(f"starting {len(entry.slices)} workers and a coordinator", file=sys.stderr, flush=True)
    with LocalCluster(bundle, entry.switch, precision, _RUNTIME.value) as cluster:
        result = evaluate(cluster.url, inputs.images, inputs.labels, _progress)
    summary = {"switch": entry.switch, "precision": precision, "runtime": str(chosen), "images": len(inputs.images)}
    summary |= {key: value for key, value in vars(result).items() if key != "answers"}
    difference = 0.0
    if inputs.expected is not None:
        difference = float(np.abs(result.answers.astype(np.float64) - inputs.expected).max())
        summary |= {"largest_difference": difference, "tolerance": inputs.tolerance}
    with results() as write:
        if _JSON.value:
            write(write_json, _JSON.value, summary)
        _print(entry, summary)
    if not difference <= inputs.tolerance:  # which holds of no NaN
        print("error: the answers are not those that the bundle expects.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run(main)
