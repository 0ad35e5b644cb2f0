"""The report's picture: every line against the multiply-adds of all devices and of the largest one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D

from paradis_tf.figure_style import COLORS, GRID, INK, Labels, plt, save
from paradis_tf.figure_style import madds_axis as set_madds_axis
from paradis_tf.metrics import Metric
from paradis_tf.reports.lines import Line, Point

_MARKERS = {"individual": "D", "slimmable": "o", "us_slimmable": "^"}
_JUDGED_MARKERS = ("s", "P", "X", "v")
PANELS = (("madds_total", "multiply-adds of all devices"), ("madds_largest", "multiply-adds of the largest device"))


def draw(lines: Sequence[Line], metric: Metric, title: str, stem: Path) -> None:
    """Writes the picture as `stem`.png and `stem`.svg.

    Error bars are the sample standard deviation over seeds, where there is more than one.
    """
    with matplotlib.rc_context({"font.size": 11, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK}):
        figure, axes = plt.subplots(1, 2, figsize=(13, 5.6), sharey=True, layout="constrained")
        styles = _styles(lines)
        for axis, (cost, axis_title) in zip(axes, PANELS, strict=True):
            for line, style in zip(lines, styles, strict=True):
                _draw_line(axis, line, style, cost, metric)
            set_madds_axis(axis, [getattr(point, cost) for line in lines for point in line.points], axis_title)
            axis.margins(y=0.12)
            axis.grid(color=GRID, lw=0.8)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.yaxis.set_tick_params(labelleft=True)
        axes[0].set_ylabel(metric.heading)
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        handles = [Line2D([], [], label=line.label, **style) for line, style in zip(lines, styles, strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(lines)), frameon=False)
        # The layout moves the panels when it is first drawn; labels are placed in what it has come to.
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axis, (cost, _) in zip(axes, PANELS, strict=True):
            _label(axis, lines, styles, cost, metric)
        save(figure, stem)


def _styles(lines: Sequence[Line]) -> list[dict[str, Any]]:
    styles: list[dict[str, Any]] = []
    colors, markers = 0, 0
    for line in lines:
        if line.method == "individual":
            style = {"color": "#555555", "marker": "D", "ls": ":", "mfc": "white", "ms": 6.5}
        else:
            style = {"color": COLORS[colors % len(COLORS)], "ms": 7}
            colors += 1
            if line.is_reference:
                style |= {"marker": _MARKERS[line.method], "ls": "-"}
            else:
                style |= {"marker": _JUDGED_MARKERS[markers % len(_JUDGED_MARKERS)], "ls": "none", "ms": 9}
                markers += 1
        styles.append({"lw": 1.5, "mew": 1.4, **style})
    return styles


def _ordered(line: Line, cost: str) -> list[Point]:
    return sorted(line.points, key=lambda point: (getattr(point, cost), point.value.mean))


def _draw_line(axis: Any, line: Line, style: dict[str, Any], cost: str, metric: Metric) -> None:
    points = _ordered(line, cost)
    # Switches of an equal largest device stand above each other there; a line through them would mislead.
    joined = style if cost == "madds_total" or all(p.devices == 1 for p in points) else {**style, "ls": "none"}
    axis.errorbar(
        [getattr(point, cost) / 1e6 for point in points],
        [metric.scale * point.value.mean for point in points],
        yerr=[metric.scale * (point.value.spread or 0.0) for point in points] if _has_spread(line) else None,
        capsize=3,
        elinewidth=1.2,
        zorder=3 if line.is_reference else 4,
        **joined,
    )


def _has_spread(line: Line) -> bool:
    return any(point.value.spread is not None for point in line.points)


def _label(axis: Any, lines: Sequence[Line], styles: Sequence[dict[str, Any]], cost: str, metric: Metric) -> None:
    labels = Labels(axis)
    for line, style in zip(lines, styles, strict=True):
        points = _ordered(line, cost)
        x = [getattr(point, cost) / 1e6 for point in points]
        y = [metric.scale * point.value.mean for point in points]
        joined = style["ls"] != "none" and (cost == "madds_total" or all(p.devices == 1 for p in points))
        labels.avoid(x, y, joined=joined)
        for place, value, point in zip(x, y, points, strict=True):
            reach = metric.scale * (point.value.spread or 0.0)
            labels.avoid([place, place], [value - reach, value + reach], size=5, joined=True)
    judged = [pair for pair in zip(lines, styles, strict=True) if not pair[0].is_reference]
    for line, style in judged or list(zip(lines, styles, strict=True))[:1]:
        for point in sorted(line.points, key=lambda one: one.value.mean):
            text = point.switch
            labels.place(
                text, getattr(point, cost) / 1e6, metric.scale * point.value.mean, color=style["color"], fontsize=10
            )
    for line, style in zip(lines, styles, strict=True):
        # The name stands at an end of its line, where there is room; the legend has it in any case.
        points = _ordered(line, cost)
        for point in (points[-1], points[0], *points[1:-1]):
            x, y = getattr(point, cost) / 1e6, metric.scale * point.value.mean
            if labels.place(line.label, x, y, color=style["color"], fontsize=10, weight="bold"):
                break
