"""The picture of early answers: accuracy against latency, a line per switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D

from export.early_curve import BOUND, CALIBRATED, CONFIDENCE, FULL, Point
from paradis_tf.pictures.style import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION, Labels, plt, save

_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_PANELS = (("mean_ms", "mean latency (ms)"), ("p95_ms", "latency that 95 % of the requests stay within (ms)"))
_MARKS = {
    FULL: ("s", "all slices waited for"),
    BOUND: ("^", "early where the rest cannot matter (bound)"),
    CALIBRATED: ("o", "early where confident, as calibrated"),
}


def draw(curves: Mapping[str, Sequence[Point]], title: str, conditions: str, stem: Path) -> None:
    """Writes the picture as `stem`.png and `stem`.svg.

    Args:
      curves: by switch, its points.
      title: of the picture.
      conditions: whose latencies these are, and of what images the accuracy is.
      stem: the pictures' path without suffix.
    """
    with matplotlib.rc_context({"font.size": 11, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK}):
        figure, axes = plt.subplots(1, 2, figsize=(13, 5.8), sharey=True, layout="constrained")
        colors = {switch: _COLORS[place % len(_COLORS)] for place, switch in enumerate(curves)}
        for axis, (latency, text) in zip(axes, _PANELS, strict=True):
            for switch, points in curves.items():
                _draw_curve(axis, points, latency, colors[switch])
            axis.set_xlabel(text)
            axis.margins(x=0.06, y=0.08)
            axis.set_xlim(left=0)
            axis.grid(color=GRID, lw=0.8)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("accuracy (%)")
        figure.suptitle(f"{title}\n{conditions}", x=0.01, ha="left", fontsize=11)
        handles = [
            Line2D([], [], marker=marker, ls="none", ms=8, mec=INK, mfc="none" if kind == FULL else INK, label=label)
            for kind, (marker, label) in _MARKS.items()
        ]
        handles.append(Line2D([], [], color=INK, lw=1.6, label="as the needed confidence falls"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        # The layout moves the panels when it is first drawn; labels are placed in what it has come to.
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axis, (latency, _) in zip(axes, _PANELS, strict=True):
            _label(axis, curves, latency, colors)
        save(figure, stem)


def _of(points: Sequence[Point], kind: str, latency: str) -> tuple[list[float], list[float]]:
    chosen = [point for point in points if point.answers == kind]
    return [getattr(point, latency) for point in chosen], [100 * point.accuracy for point in chosen]


def _draw_curve(axis: Any, points: Sequence[Point], latency: str, color: str) -> None:
    x, y = _of(points, CONFIDENCE, latency)
    axis.plot(x, y, color=color, lw=1.6, zorder=3)
    for kind, (marker, _) in _MARKS.items():
        filled = {"mfc": "white", "mew": 2.0} if kind == FULL else {}
        axis.plot(*_of(points, kind, latency), marker, color=color, ms=8, zorder=3 + (kind != FULL), **filled)


def _label(axis: Any, curves: Mapping[str, Sequence[Point]], latency: str, colors: Mapping[str, str]) -> None:
    labels = Labels(axis)
    for points in curves.values():
        labels.avoid(*_of(points, CONFIDENCE, latency), size=(3.0, 3.0), joined=True)
        for kind in _MARKS:
            labels.avoid(*_of(points, kind, latency))
    for switch, points in curves.items():
        ends = [*zip(*_of(points, FULL, latency), strict=True), *zip(*_of(points, CONFIDENCE, latency), strict=True)]
        labels.place(switch, ends, color=colors[switch], weight="bold")
