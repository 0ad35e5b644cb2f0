"""The report's picture: every line against the multiply-adds of all devices and of the largest one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paradis_tf.pictures.style import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION, Labels, plt, save
from paradis_tf.pictures.style import madds_axis as set_madds_axis
from paradis_tf.reports.image_sets import ImageSet
from paradis_tf.reports.lines import Line, Point
from paradis_tf.tasks.metrics import Metric

_STYLES: dict[str, list[dict[str, Any]]] = {
    # A wide tick, which shows beside the marker of the switch that it is the reference of; see `_draw_line`.
    "individual": [
        {"color": color, "marker": "_", "ls": ":", "ms": 24.0, "mew": 2.2} for color in ("#444444", "#999999")
    ],
    "slimmable": [{"color": color, "marker": "o"} for color in (BLUE, SKY)],
    "us_slimmable": [{"color": color, "marker": "^"} for color in (GREEN, "#7fbf3f")],
}
_JUDGED: list[dict[str, Any]] = [
    {"color": color, "marker": marker, "ls": "none", "ms": 9.0}
    for color, marker in ((VERMILION, "s"), (PURPLE, "P"), (ORANGE, "X"), ("#7a3b00", "v"), ("#5b2a86", "*"))
]
_NAMED_LINES = 5
_BICUBIC = "#777777"
PANELS = (("madds_total", "multiply-adds of all devices"), ("madds_largest", "multiply-adds of the largest device"))


def draw(of_set: ImageSet, metric: Metric, title: str, stem: Path) -> None:
    """Writes the picture of a set of test images as `stem`.png and `stem`.svg.

    Error bars are the sample standard deviation over seeds, where there is more than one. Up to five lines are named
    where they run; more, or those that find no room there, in a legend.
    """
    with matplotlib.rc_context({"font.size": 11, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK}):
        many = len(of_set.lines) > _NAMED_LINES
        figure, named = _compose(of_set, metric, title, legend=many)
        if not named:
            plt.close(figure)
            figure, _ = _compose(of_set, metric, title, legend=True)
        save(figure, stem)


def _compose(of_set: ImageSet, metric: Metric, title: str, legend: bool) -> tuple[Figure, bool]:
    """The figure, and whether every line is named in one of the panels at least."""
    lines = of_set.lines
    values = [metric.scale * point.value.mean for line in lines for point in line.points]
    bicubic = None if of_set.bicubic is None else metric.scale * of_set.bicubic
    # Far below it would press the lines together, so it has a strip of its own there.
    strip = bicubic is not None and min(values) - bicubic > max(values) - min(values)
    figure, grid = plt.subplots(
        *(1 + strip, 2),
        figsize=(13, 5.6),
        sharex="col",
        sharey="row",
        squeeze=False,
        height_ratios=(9, 1) if strip else (1,),
        layout="constrained",
    )
    axes = grid[0]
    styles = _styles(lines)
    for place, (axis, (cost, axis_title)) in enumerate(zip(axes, PANELS, strict=True)):
        for line, style in zip(lines, styles, strict=True):
            _draw_line(axis, line, style, cost, metric)
        bottom = grid[-1, place]
        set_madds_axis(bottom, [getattr(point, cost) for line in lines for point in line.points], axis_title)
        axis.margins(y=0.12)
        axis.grid(color=GRID, lw=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_tick_params(labelleft=True)
        if bicubic is not None:
            _draw_bicubic(bottom, bicubic)
            if strip:
                _break(axis, bottom, bicubic)
    axes[0].set_ylabel(metric.heading)
    told = f"{title}: {of_set.name}, {of_set.images} images" if of_set.name else title
    figure.suptitle(told, x=0.01, ha="left", weight="bold")
    if legend:
        handles = [Line2D([], [], label=line.label, **style) for line, style in zip(lines, styles, strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(lines)), frameon=False)
    # The layout moves the panels when it is first drawn; labels are placed in what it has come to.
    figure.canvas.draw()
    figure.set_layout_engine("none")
    named = set()
    for axis, (cost, _) in zip(axes, PANELS, strict=True):
        named |= _label(axis, lines, styles, cost, metric, names=not legend)
    return figure, legend or len(named) == len(lines)


def _draw_bicubic(axis: Any, value: float) -> None:
    axis.axhline(value, color=_BICUBIC, ls="--", lw=1.2)
    axis.annotate(
        "bicubic", (1.0, value), (-4, 3), axis.get_yaxis_transform(), "offset points", ha="right", color=_BICUBIC
    )


def _break(upper: Any, strip: Any, value: float) -> None:
    """Shows that the vertical scale is broken between a panel and the strip below it, which holds one value alone."""
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(bottom=False, labelbottom=False)
    strip.set_ylim(value - 1.0, value + 2.0)
    strip.set_yticks([value], [f"{value:.2f}"])
    strip.yaxis.set_tick_params(labelleft=True)
    strip.spines[["top", "right"]].set_visible(False)
    mark: dict[str, Any] = {"marker": [(-1, -0.5), (1, 0.5)], "ms": 9, "ls": "none", "color": INK, "clip_on": False}
    upper.plot([0], [0], transform=upper.transAxes, **mark)
    strip.plot([0], [1], transform=strip.transAxes, **mark)


def _styles(lines: Sequence[Line]) -> list[dict[str, Any]]:
    rest = {method: cycle(styles) for method, styles in _STYLES.items()}
    judged = cycle(_JUDGED)
    return [{"lw": 1.5, "ms": 7.0, **next(rest.get(line.method, judged))} for line in lines]


def _ordered(line: Line, cost: str) -> list[Point]:
    return sorted(line.points, key=lambda point: (getattr(point, cost), point.value.mean))


def _draw_line(axis: Any, line: Line, style: dict[str, Any], cost: str, metric: Metric) -> None:
    points = _ordered(line, cost)
    x = [getattr(point, cost) / 1e6 for point in points]
    y = [metric.scale * point.value.mean for point in points]
    depth = 3 if line.is_reference else 4
    axis.plot(x, y, zorder=depth, **(style if _is_joined(points, style, cost) else {**style, "ls": "none"}))
    if style["marker"] == "_":
        # A tick by itself is hardly seen; a marker in its middle is, and hides behind that of the switch.
        axis.plot(x, y, "D", color=style["color"], ms=7.0, zorder=depth)
    spread = [metric.scale * (point.value.spread or 0.0) for point in points]
    if any(spread):
        axis.errorbar(x, y, yerr=spread, fmt="none", ecolor=style["color"], capsize=3, elinewidth=1.2, zorder=depth)


def _is_joined(points: Sequence[Point], style: dict[str, Any], cost: str) -> bool:
    # Switches of an equal largest device stand above each other; a line through them would mislead.
    return style.get("ls") != "none" and (cost == "madds_total" or all(point.devices == 1 for point in points))


def _has_spread(line: Line) -> bool:
    return any(point.value.spread is not None for point in line.points)


def _label(
    axis: Any, lines: Sequence[Line], styles: Sequence[dict[str, Any]], cost: str, metric: Metric, names: bool
) -> set[str]:
    """Labels the switches of the judged lines, or of the first line, and names the lines if asked to; those whose name
    had room."""
    labels = Labels(axis)
    places = []
    for line, style in zip(lines, styles, strict=True):
        points = _ordered(line, cost)
        places.append([(getattr(point, cost) / 1e6, metric.scale * point.value.mean) for point in points])
        x, y = zip(*places[-1], strict=True)
        size = (style["ms"] if style["marker"] == "_" else 9.0, 9.0)
        labels.avoid(x, y, size, joined=_is_joined(points, style, cost))
        for place, value, point in zip(x, y, points, strict=True):
            reach = metric.scale * (point.value.spread or 0.0)
            labels.avoid([place, place], [value - reach, value + reach], size=(5.0, 5.0), joined=True)
    judged = [line for line in lines if not line.is_reference] or lines[:1]
    written = set()
    for line, style, where in zip(lines, styles, places, strict=True):
        for point, place in zip(_ordered(line, cost), where, strict=True) if line in judged else ():
            # Of several lines with the same switches, which stand above each other, the first bears their names.
            if point.switch not in written:
                color = style["color"] if len(judged) == 1 else INK
                labels.place(point.switch, [place], color=color, fontsize=10)
                written.add(point.switch)
    named = set()
    for line, style, where in zip(lines, styles, places, strict=True) if names else ():
        # Ends first: there a line is alone more often than on its way.
        ends = [where[0], where[-1], *where[1:-1]]
        if labels.place(line.label, ends, far=False, color=style["color"], fontsize=11, weight="bold"):
            named.add(line.label)
    return named
