"""How accurate every switch of a trained run is, served by processes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusion.base import columns
from fusion.base.program import UserError
from fusion.base.streams import say
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.local.cluster import LocalCluster
from fusion.local.evaluation import evaluate
from paradis_tf.evaluation.live_subsets import means_by_left
from paradis_tf.records.workdir import Workdir


def float_accuracies(workdir: Workdir, bundle: Bundle) -> dict[str, float]:
    """By switch, what `paradis_tf.evaluate` measured. Raises `UserError` where that is of another model than the
    bundle, or lacks one of its switches."""
    rows = workdir.evaluation()
    for row in rows:
        if row["model_id"] != bundle.model_id:
            raise UserError(
                f"{workdir.evaluation_file} is of model {row['model_id'][:12]}..., and bundle {bundle.folder} of "
                f"{bundle.model_id[:12]}...; evaluate and convert the same run."
            )
    accuracies = {row["switch"]: row["accuracy"] for row in rows}
    for entry in bundle.switches:
        if entry.switch not in accuracies:
            raise UserError(f"{workdir.evaluation_file} lacks switch '{entry.switch}'; run paradis_tf.evaluate.")
    return accuracies


def measure(
    bundle: Bundle,
    precision: str,
    runtime: str,
    floats: Mapping[str, float],
    images: np.ndarray,
    labels: np.ndarray,
) -> list[dict[str, Any]]:
    """Serves each switch by a worker for each slice and a coordinator, sends the images, and gives a row for each.

    Args:
      bundle, precision, runtime: what is served, and on what.
      floats: by switch, the accuracy of the trained network itself.
      images: uint8 (n, height, width, 3).
      labels: (n,) class indices.
    """
    rows = []
    for entry in bundle.switches:
        say(f"switch {entry.switch}: starting {len(entry.slices)} workers and a coordinator")
        with LocalCluster(bundle, entry.switch, precision, runtime) as cluster:
            result = evaluate(cluster.url, images, labels, _show_progress)
        rows.append(
            {
                "switch": entry.switch,
                "devices": len(entry.slices),
                "madds_total": entry.madds,
                "madds_largest": max(slice_.madds for slice_ in entry.slices),
                "bytes_largest": max(slice_.files[precision].bytes for slice_ in entry.slices),
                "float_accuracy": floats[entry.switch],
                "accuracy_without_one": without_one(entry, precision),
                "served_accuracy": result.accuracy,
            }
        )
    return rows


def without_one(entry: SwitchEntry, precision: str) -> float | None:
    """How accurate a switch is, by the bundle's verification, while one of its devices is dead: the mean over which one
    that is. None of a switch of one device, and where the bundle was not verified."""
    devices = len(entry.slices)
    return means_by_left(entry.accuracies(precision), devices).get(devices - 1)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for the terminal."""
    header = (
        *("switch", "devices", "MAdds total (M)", "largest slice (M)", "its file (kB)"),
        *("float (%)", "served (%)", "one device dead (%)"),
    )
    lines = [
        (
            row["switch"],
            row["devices"],
            f"{row['madds_total'] / 1e6:.2f}",
            f"{row['madds_largest'] / 1e6:.2f}",
            f"{row['bytes_largest'] / 1e3:.0f}",
            f"{100 * row['float_accuracy']:.2f}",
            f"{100 * row['served_accuracy']:.2f}",
            "-" if row["accuracy_without_one"] is None else f"{100 * row['accuracy_without_one']:.2f}",
        )
        for row in rows
    ]
    return columns.render(header, lines)


def _show_progress(done: int, total: int) -> None:
    if sys.stdout.isatty():
        say(f"\r{done}/{total} images", end="\n" if done == total else "")
    elif done == total:
        say(f"{done} images answered")
