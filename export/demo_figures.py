"""The demonstration's two pictures, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  the backend is chosen first
from matplotlib.figure import Figure  # noqa: E402

_FLOAT, _SERVED = "#4c72b0", "#dd8452"
_WIRE, _QUEUE, _INVOKE, _OWN = "#c7d3e3", "#f2c48d", "#dd8452", "#4c72b0"


def accuracy(summary: Sequence[Mapping[str, Any]], images: int, stem: Path) -> None:
    """Accuracy against multiply-adds, in all and of the largest device, float and as served.

    Args:
      summary: the rows of summary.json.
      images: how many images the accuracies are of.
      stem: the pictures' path without suffix.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, key, title in (
        (axes[0], "madds_total", "all devices together"),
        (axes[1], "madds_largest", "largest device"),
    ):
        x = [row[key] / 1e6 for row in summary]
        pairs = [(100 * row["float_accuracy"], 100 * row["served_accuracy"]) for row in summary]
        axis.vlines(x, [min(pair) for pair in pairs], [max(pair) for pair in pairs], color="#999999", lw=1, zorder=0)
        axis.plot(x, [pair[0] for pair in pairs], "o", color=_FLOAT, label="float", ms=7)
        axis.plot(x, [pair[1] for pair in pairs], "s", color=_SERVED, label="as served", ms=6)
        _label_switches(axis, x, [sum(pair) / 2 for pair in pairs], [row["switch"] for row in summary])
        axis.set_xscale("log")
        axis.margins(x=0.3, y=0.2)
        axis.set_xticks(sorted(set(x)), [f"{value:.3g}" for value in sorted(set(x))])
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.set_xlabel(f"multiply-adds of one image, {title} (millions, log scale)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on the test part (%)")
    axes[0].legend(loc="lower right")
    figure.suptitle(f"Every switch of one weight set ({images} test images; one image is {100 / images:.2f} points)")
    _save(figure, stem)


def _label_switches(axis: Any, x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> None:
    for number, (place, height, name) in enumerate(zip(x, y, names, strict=True)):
        # Switches with an equal largest device share an x; their labels stand on either side of it.
        left = place in x[:number]
        side = {"ha": "right", "xytext": (-8, 0)} if left else {"ha": "left", "xytext": (8, 0)}
        axis.annotate(name, (place, height), textcoords="offset points", va="center", fontsize=8, **side)


def timeline(requests: Mapping[str, Mapping[str, Any]], stem: Path) -> None:
    """What each device did during one fused request, a panel per switch.

    Args:
      requests: by switch, the coordinator's timeline of its median request.
      stem: the pictures' path without suffix.
    """
    heights = [len(line["devices"]) + 1 for line in requests.values()]
    figure, axes = plt.subplots(
        len(requests),
        1,
        figsize=(9, 0.42 * sum(heights) + 0.7 * len(requests) + 0.6),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for axis, (switch, line) in zip(axes[:, 0], requests.items(), strict=True):
        _draw_request(axis, line)
        axis.set_title(f"switch {switch}", loc="left", fontsize=10)
    axes[-1, 0].set_xlabel(
        "ms since the request reached the coordinator (queue and slice are drawn amid wire and HTTP)"
    )
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in (_OWN, _WIRE, _QUEUE, _INVOKE)]
    names = ["coordinator: decode, fuse", "wire and HTTP", "queue", "slice"]
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    _save(figure, stem)


def _draw_request(axis: Any, line: Mapping[str, Any]) -> None:
    names = ["coordinator", *(device["device"] for device in line["devices"])]
    last = max(device["received_ms"] for device in line["devices"])
    axis.barh(0, line["decode_ms"], color=_OWN)
    axis.barh(0, line["fuse_ms"], left=last, color=_OWN)
    for row, device in enumerate(line["devices"], 1):
        sent, received = device["sent_ms"], device["received_ms"]
        axis.barh(row, received - sent, left=sent, color=_WIRE)
        # Workers tell durations and not clock times; what is neither queue nor slice is split evenly.
        busy = device["queue_ms"] + device["invoke_ms"]
        start = sent + max(0.0, received - sent - busy) / 2
        axis.barh(row, device["queue_ms"], left=start, color=_QUEUE)
        axis.barh(row, device["invoke_ms"], left=start + device["queue_ms"], color=_INVOKE)
        axis.text(received, row, f" slice {device['invoke_ms']:.2f} ms", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.grid(axis="x", alpha=0.3)


def _save(figure: Figure, stem: Path) -> None:
    for suffix in (".png", ".svg"):
        figure.savefig(stem.with_suffix(suffix), dpi=130)
    plt.close(figure)
