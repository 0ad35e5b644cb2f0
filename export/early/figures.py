"""The picture of early answers: accuracy against latency, a line per switch, and what little of it costs little."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D

from export.early.curve import BOUND, CALIBRATED, CONFIDENCE, FULL, Point
from paradis_tf.pictures.style import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION, Labels, plt, save

_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
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
        figure, axes = plt.subplots(1, 2, figsize=(13, 5.8), layout="constrained")
        compared = {switch: _compared(points) for switch, points in curves.items()}
        panels: list[Mapping[str, Sequence[Point]]] = [curves, compared]
        colors = {switch: _COLORS[place % len(_COLORS)] for place, switch in enumerate(curves)}
        for axis, panel in zip(axes, panels, strict=True):
            for switch, points in panel.items():
                _draw_curve(axis, points, colors[switch])
            axis.grid(color=GRID, lw=0.8)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_xlabel("mean latency (ms)")
        axes[0].set_ylabel("accuracy (%)")
        axes[0].margins(x=0.06, y=0.08)
        axes[0].set_xlim(left=0)
        axes[1].set_xlabel("mean latency, of that of waiting for all slices (%)")
        axes[1].set_ylabel("accuracy against that of all slices (points)")
        _near(axes[1], compared)
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
        for axis, panel in zip(axes, panels, strict=True):
            _label(axis, panel, colors)
        save(figure, stem)


def _compared(points: Sequence[Point]) -> list[Point]:
    """The points as differences of accuracy and parts of latency from waiting for all slices."""
    (full,) = [point for point in points if point.answers == FULL]
    # A latency of nothing at all cannot be shortened.
    return [
        dataclasses.replace(
            point,
            accuracy=point.accuracy - full.accuracy,
            mean_ms=100 * (point.mean_ms / full.mean_ms if full.mean_ms else 1.0),
        )
        for point in points
    ]


def _near(axis: Any, curves: Mapping[str, Sequence[Point]]) -> None:
    """Shows of the lines what loses little: to some way below the marks."""
    marks = [point for points in curves.values() for point in points if point.answers in _MARKS]
    lowest = -max(1.0, -300 * min(point.accuracy for point in marks))
    shown = [point for points in curves.values() for point in points if 100 * point.accuracy >= lowest]
    left, right = min(point.mean_ms for point in shown), max(point.mean_ms for point in shown)
    space = 0.06 * max(right - left, 1.0)
    axis.set_xlim(left - space, right + space)
    axis.set_ylim(lowest, max(100 * point.accuracy for point in shown) - 0.1 * lowest)


def _of(points: Sequence[Point], kind: str) -> tuple[list[float], list[float]]:
    chosen = [point for point in points if point.answers == kind]
    return [point.mean_ms for point in chosen], [100 * point.accuracy for point in chosen]


def _line(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Where so much confidence is needed that none has it, all slices are waited for: there the line begins."""
    (x, y), (xs, ys) = _of(points, FULL), _of(points, CONFIDENCE)
    return x + xs, y + ys


def _draw_curve(axis: Any, points: Sequence[Point], color: str) -> None:
    axis.plot(*_line(points), color=color, lw=1.6, zorder=3)
    for kind, (marker, _) in _MARKS.items():
        filled = {"mfc": "white", "mew": 2.0} if kind == FULL else {}
        axis.plot(*_of(points, kind), marker, color=color, ms=8, zorder=3 + (kind != FULL), **filled)


def _label(axis: Any, curves: Mapping[str, Sequence[Point]], colors: Mapping[str, str]) -> None:
    labels = Labels(axis)
    for points in curves.values():
        labels.avoid(*_line(points), size=(3.0, 3.0), joined=True)
        for kind in _MARKS:
            labels.avoid(*_of(points, kind))
    low, high = axis.get_ylim()
    for switch, points in curves.items():
        places = [place for kind in (CALIBRATED, CONFIDENCE, FULL) for place in zip(*_of(points, kind), strict=True)]
        inside = [place for place in places if low <= place[1] <= high]
        labels.place(switch, inside, color=colors[switch], weight="bold")
