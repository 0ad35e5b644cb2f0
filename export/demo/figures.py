"""The demonstration's two pictures, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paradis_tf.pictures.style import BLUE, GRID, ORANGE, VERMILION, Labels, madds_axis, plt, save

_FLOAT, _SERVED = BLUE, VERMILION
_WIRE, _QUEUE, _INVOKE, _OWN = "#c7d3e3", ORANGE, VERMILION, BLUE


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
        madds_axis(axis, [row[key] for row in summary], f"multiply-adds, {title}")
        axis.margins(y=0.2)
        axis.grid(color=GRID)
        axis.set_axisbelow(True)
    axes[0].set_ylabel("accuracy on the test part (%)")
    axes[0].legend(loc="lower right")
    figure.suptitle(f"Every switch of one weight set ({images} test images; one image is {100 / images:.2f} points)")
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for axis, key in zip(axes, ("madds_total", "madds_largest"), strict=True):
        labels = Labels(axis)
        for row in summary:
            labels.avoid([row[key] / 1e6] * 2, [100 * row["float_accuracy"], 100 * row["served_accuracy"]], joined=True)
        for row in summary:
            middle = 50 * (row["float_accuracy"] + row["served_accuracy"])
            labels.place(row["switch"], [(row[key] / 1e6, middle)], fontsize=9)
    save(figure, stem)


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
        figsize=(9.5, 0.42 * sum(heights) + 0.7 * len(requests) + 1.7),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for axis, (switch, line) in zip(axes[:, 0], requests.items(), strict=True):
        _draw_request(axis, line)
        devices = len(line["devices"])
        axis.set_title(f"switch {switch}: {devices} worker{'s' * (devices > 1)}", loc="left", fontsize=10)
    axes[-1, 0].set_xlabel(
        "ms since the image reached the coordinator\n"
        "Workers tell how long they waited and computed, not when: both are drawn in the middle of the time away.",
        fontsize=9,
    )
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in (_OWN, _WIRE, _QUEUE, _INVOKE)]
    names = [
        "coordinator: decodes the image; at the end adds the outputs",
        "wire and HTTP: the image to the worker, its output back",
        "queue: the worker has the image and does not compute yet",
        "slice: the worker computes its part of the network",
    ]
    figure.legend(
        handles,
        names,
        title="Where the time of one image goes: for each switch, the test image of median latency",
        title_fontproperties={"weight": "bold", "size": 11},
        alignment="left",
        loc="outside upper left",
        ncols=2,
        fontsize=8.5,
        frameon=False,
    )
    save(figure, stem)


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
