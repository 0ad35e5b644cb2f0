"""The demonstration's pictures, each as PNG and SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from export.demo.life import KILLED, STARTED, Life
from paradis_tf.pictures.style import (
    BLUE,
    GREEN,
    GRID,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Labels,
    madds_axis,
    plt,
    save,
)

_FLOAT, _SERVED = BLUE, VERMILION
_SWITCHES = (BLUE, ORANGE, GREEN, PURPLE, SKY)
_MUTED = "#777777"
# Of a cluster's life, the part that a switch has to run for its name to be written.
_LEAST_NAMED = 0.15


def draw_accuracy(rows: Sequence[Mapping[str, Any]], images: int, stem: Path) -> None:
    """Accuracy against the multiply-adds of the largest device, float and as served.

    Args:
      rows: of `accuracy.measure`.
      images: how many images the accuracies are of.
      stem: the picture's path without suffix.
    """
    served = [100 * row["served_accuracy"] for row in rows]
    figure, axis = _slide(
        f"One training, {len(rows)} ways to cut it: {min(served):.1f} to {max(served):.1f} % right",
        f"{images} test images, one is {100 / images:.2f} points; a switch like 0.5+0.25+0.25 runs on 3 devices",
    )
    x = [row["madds_largest"] / 1e6 for row in rows]
    floats = [100 * row["float_accuracy"] for row in rows]
    axis.vlines(x, np.minimum(floats, served), np.maximum(floats, served), color="#999999", lw=1, zorder=0)
    axis.plot(x, floats, "o", color=_FLOAT, label="trained network, float", ms=11)
    axis.plot(x, served, "s", color=_SERVED, label="served, one process per slice", ms=8)
    madds_axis(axis, [row["madds_largest"] for row in rows], "multiply-adds of the busiest device")
    axis.margins(y=0.25)
    axis.set_ylabel("accuracy (%)")
    axis.legend(loc="lower right")
    figure.canvas.draw()
    figure.set_layout_engine("none")
    labels = Labels(axis)
    for place, low, high in zip(x, floats, served, strict=True):
        labels.avoid([place] * 2, [low, high], (18, 18), joined=True)
    for row, place, low, high in zip(rows, x, floats, served, strict=True):
        labels.place(row["switch"], [(place, (low + high) / 2)], fontsize=13)
    save(figure, stem)


def draw_speed(rows: Sequence[Mapping[str, Any]], network: str, stem: Path) -> None:
    """Milliseconds of each switch's largest slice, with its speed-up and memory.

    Args:
      rows: of `speed.measure`.
      network: what it is a network of.
      stem: the picture's path without suffix.
    """
    best = max(rows, key=lambda row: row["speedup"])
    figure, axis = _slide(
        f"Cut for {best['devices']} devices, the network computes {best['speedup']:.1f} times as fast",
        f"{network}: each switch's largest slice alone, on one thread; sending the image comes on top",
    )
    times = [row["slice_ms"] for row in rows]
    axis.barh(range(len(rows)), times, color=[_MUTED if row["speedup"] == 1 else BLUE for row in rows], height=0.62)
    for place, row in enumerate(rows):
        speedup = "" if row["speedup"] == 1 else f", {row['speedup']:.1f}x"
        memory = "" if row["memory_bytes"] is None else f", {row['memory_bytes'] / 1e6:.0f} MB of memory"
        axis.annotate(
            f"{row['slice_ms']:.0f} ms{speedup}" if row["slice_ms"] >= 10 else f"{row['slice_ms']:.1f} ms{speedup}",
            (row["slice_ms"], place),
            xytext=(8, 6),
            textcoords="offset points",
            va="center",
            fontsize=15,
            weight="bold",
        )
        axis.annotate(
            f"{row['bytes_largest'] / 1e6:.1f} MB file{memory}",
            (row["slice_ms"], place),
            xytext=(8, -12),
            textcoords="offset points",
            va="center",
            fontsize=11,
            color=_MUTED,
        )
    names = [f"{row['switch']}\n{row['devices']} device{'s' * (row['devices'] > 1)}" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=13)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.32 * max(times))
    axis.set_xlabel("milliseconds of one image on one device")
    axis.grid(visible=False, axis="y")
    save(figure, stem)


def draw_life(life: Life, network: str, stem: Path) -> None:
    """Answers per second, how long each took, and which devices worked for which switch, over time.

    Args:
      life: what was seen.
      network: what it is a network of.
      stem: the picture's path without suffix.
    """
    lost = len(life.requests) - len(life.answers)
    figure, (rates, times, devices) = _slide(
        f"A device dies, another cut of the same weights takes over: {lost or 'no'} request{'s' * (lost > 1)} lost",
        f"{network}; {life.summary()}",
        height_ratios=(3, 3, 2.6),
    )
    colors = dict(zip(dict.fromkeys(answer.switch for answer in life.answers), _SWITCHES, strict=False))
    _draw_rates(rates, life, colors)
    _draw_times(times, life, colors)
    _draw_devices(devices, life, colors)
    for event in life.events:
        color = {KILLED: VERMILION, STARTED: GREEN}.get(event.text)
        if color is None:
            continue
        for axis in (rates, times, devices):
            axis.axvline(event.at_s, color=color, lw=2)
        side, aside = ("right", -6) if event.text == KILLED else ("left", 6)
        place = dict(xytext=(aside, -6), textcoords="offset points", xycoords=("data", "axes fraction"), va="top")
        rates.annotate(event.text, (event.at_s, 1), color=color, weight="bold", fontsize=13, ha=side, **place)
    devices.set_xlim(0, max(1, math.floor(life.seconds)))
    devices.set_xlabel("seconds")
    save(figure, stem)


def _draw_rates(axis: Any, life: Life, colors: Mapping[str, str]) -> None:
    # Whole seconds: of the last one a part would look like fewer answers.
    seconds = np.arange(max(1, math.floor(life.seconds)) + 1)
    below = np.zeros(len(seconds) - 1)
    for switch, color in colors.items():
        for degraded in (False, True):
            ends = [a.at_s + a.ms / 1e3 for a in life.answers if (a.switch, a.degraded) == (switch, degraded)]
            counts = np.histogram(ends, seconds)[0]
            hatch = "////" if degraded else None
            axis.bar(seconds[:-1] + 0.5, counts, 0.92, below, color=color, hatch=hatch, edgecolor="white", lw=0)
            below += counts
    for switch, run in itertools.groupby(life.answers, lambda answer: answer.switch):
        times = [answer.at_s for answer in run]
        if times[-1] - times[0] > _LEAST_NAMED * life.seconds:
            middle = (times[0] + times[-1]) / 2
            style = dict(color=colors[switch], fontsize=15, weight="bold", ha="center")
            axis.annotate(switch, (middle, below.max()), xytext=(0, 5), textcoords="offset points", **style)
    axis.set_ylim(0, 1.7 * max(1, below.max()))
    axis.set_ylabel("answers\nper second")


def _draw_times(axis: Any, life: Life, colors: Mapping[str, str]) -> None:
    whole, degraded = ([a for a in life.answers if a.degraded is flag] for flag in (False, True))
    axis.scatter([a.at_s for a in whole], [a.ms for a in whole], 12, [colors[a.switch] for a in whole])
    if degraded:
        at, ms = [a.at_s for a in degraded], [a.ms for a in degraded]
        axis.scatter(at, ms, 60, VERMILION, marker="X", label="slices missing", zorder=3)
        axis.legend(loc="upper right", fontsize=11)
    axis.set_ylim(0, 1.2 * max((answer.ms for answer in life.answers), default=1.0))
    axis.set_ylabel("ms until\nthe answer")


def _draw_devices(axis: Any, life: Life, colors: Mapping[str, str]) -> None:
    """A mark for each answer that a device had a slice in."""
    for row, device in enumerate(life.memory_bytes):
        answers = [answer for answer in life.answers if device in answer.devices]
        at = [answer.at_s for answer in answers]
        axis.vlines(at, row - 0.36, row + 0.36, color=[colors[answer.switch] for answer in answers], lw=1)
    names = [f"{device} ({size / 1e6:.0f} MB)" for device, size in life.memory_bytes.items()]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def _slide(title: str, subtitle: str, height_ratios: Sequence[float] = (1,)) -> tuple[Figure, Any]:
    """A figure with its point on top, and its axes, one or an array of them under each other."""
    figure, axes = plt.subplots(
        *(len(height_ratios), 1),
        figsize=(12, 6.75),
        sharex=True,
        height_ratios=height_ratios,
        layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.08),
    )
    figure.suptitle(title, x=0.012, ha="left", fontsize=18, weight="bold")
    for axis in np.atleast_1d(axes):
        axis.tick_params(labelsize=12)
        axis.xaxis.label.set_size(13)
        axis.yaxis.label.set_size(13)
        axis.grid(color=GRID)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].set_title(subtitle, loc="left", fontsize=12, color=_MUTED)
    return figure, axes
