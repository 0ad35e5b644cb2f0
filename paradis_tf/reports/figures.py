"""The report's pictures: every line against multiply-adds, and against the number of devices that are left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.lines import Line2D

from paradis_tf.base.metrics import Metric
from paradis_tf.pictures.style import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION, Labels, plt, save
from paradis_tf.pictures.style import madds_axis as set_madds_axis
from paradis_tf.reports.image_sets import ImageSet
from paradis_tf.reports.lines import Line, LinePoint, with_missing

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
_BICUBIC: dict[str, Any] = {"color": "#777777", "ls": "--", "lw": 1.2}
_FONT: Any = {"font.size": 11, "axes.edgecolor": INK, "text.color": INK, "axes.labelcolor": INK}
_PANELS_ACROSS = 3
PANELS = (("madds_total", "multiply-adds of all devices"), ("madds_largest", "multiply-adds of the largest device"))


def draw(of_set: ImageSet, metric: Metric, title: str, stem: Path) -> None:
    """Writes the picture of a set of test images as `stem`.png and `stem`.svg.

    Error bars are the sample standard deviation over seeds, where there is more than one. Bicubic enlargement is a line
    of the picture where it lies near the others, which it would else press together, and of the legend alone if not.
    """
    lines, styles = of_set.lines, _styles(of_set.lines)
    values = [metric.scale * point.value.mean for line in lines for point in line.points]
    handles = [Line2D([], [], label=line.label, **style) for line, style in zip(lines, styles, strict=True)]
    bicubic = None
    if of_set.bicubic is not None:
        bicubic = metric.scale * of_set.bicubic
        handles.append(Line2D([], [], label=f"bicubic, {bicubic:.2f}", **_BICUBIC))
        if min(values) - bicubic > max(values) - min(values):
            bicubic = None
    with matplotlib.rc_context(_FONT):
        figure, axes = plt.subplots(1, 2, figsize=(13, 5.6), sharey=True, layout="constrained")
        for axis, (cost, axis_title) in zip(axes, PANELS, strict=True):
            for line, style in zip(lines, styles, strict=True):
                _draw_line(axis, line, style, cost, metric)
            if bicubic is not None:
                axis.axhline(bicubic, **_BICUBIC)
            set_madds_axis(axis, [getattr(point, cost) for line in lines for point in line.points], axis_title)
            _furnish(axis)
        axes[0].set_ylabel(metric.heading)
        images = f": {of_set.name}, {of_set.images} images" if of_set.name else ""
        figure.suptitle(title + images, x=0.01, ha="left", weight="bold")
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
        # The layout moves the panels when it is first drawn; labels are placed in what it has come to.
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axis, (cost, _) in zip(axes, PANELS, strict=True):
            _label_switches(axis, lines, styles, cost, metric)
        save(figure, stem)


def draw_devices_left(all_images: ImageSet, metric: Metric, title: str, stem: Path) -> None:
    """Writes what remains of each switch of several devices as `stem`.png and `stem`.svg, a panel for each.

    A point is the mean over the sets of so many devices, and over the seeds; error bars as in `draw`. There must be a
    switch that was measured with devices missing.
    """
    by_switch = with_missing(all_images.lines)
    styles = {}
    for line, style in zip(all_images.lines, _styles(all_images.lines), strict=True):
        # Every line is joined here, so the tick of the individual networks need not tell that they stand alone.
        own = {"marker": "D", "ms": 7.0} if style["marker"] == "_" else {}
        styles[line.label] = {**style, "ls": "-" if style.get("ls") == "none" else style.get("ls", "-"), **own}
    across = min(_PANELS_ACROSS, len(by_switch))
    down = math.ceil(len(by_switch) / across)
    width = max(8.0, 4.4 * across)
    with matplotlib.rc_context(_FONT):
        figure, axes = plt.subplots(
            down, across, figsize=(width, 1.2 + 4.0 * down), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (switch, of_switch) in zip(axes.flat, by_switch.items(), strict=False):
            for label, point in of_switch.items():
                _draw_left(axis, point, styles[label], metric)
            numbers = sorted({left for point in of_switch.values() for left in point.left})
            axis.set_xlim(numbers[-1] + 0.3, numbers[0] - 0.3)
            axis.set_xticks(numbers)
            axis.set_xlabel("devices left")
            axis.set_title(switch)
            _furnish(axis)
        for row in axes:
            row[0].set_ylabel(metric.heading)
        for axis in axes.flat[len(by_switch) :]:
            axis.set_visible(False)
        labels = [line.label for line in all_images.lines if line.with_missing]
        # As many side by side as their texts have room for.
        beside = int(width / (0.7 + 0.09 * max(map(len, labels))))
        figure.suptitle(
            f"{title}: with devices missing, {all_images.images:,} test images", x=0.01, ha="left", weight="bold"
        )
        handles = [Line2D([], [], label=label, **styles[label]) for label in labels]
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(4, beside)), frameon=False)
        save(figure, stem)


def _draw_left(axis: Any, point: LinePoint, style: dict[str, Any], metric: Metric) -> None:
    values = [metric.scale * value.mean for value in point.left.values()]
    spread = [metric.scale * (value.spread or 0.0) for value in point.left.values()]
    axis.plot(list(point.left), values, **style)
    if any(spread):
        axis.errorbar(
            list(point.left), values, yerr=spread, fmt="none", ecolor=style["color"], capsize=3, elinewidth=1.2
        )


def _furnish(axis: Any) -> None:
    axis.margins(y=0.12)
    axis.grid(color=GRID, lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_tick_params(labelleft=True)


def _styles(lines: Sequence[Line]) -> list[dict[str, Any]]:
    references = {method: cycle(styles) for method, styles in _STYLES.items()}
    judged = cycle(_JUDGED)
    return [{"lw": 1.5, "ms": 7.0, **next(references.get(line.method, judged))} for line in lines]


def _ordered(line: Line, cost: str) -> list[LinePoint]:
    return sorted(line.points, key=lambda point: (getattr(point, cost), point.value.mean))


def _places(line: Line, cost: str, metric: Metric) -> tuple[list[float], list[float], list[float]]:
    """Millions of multiply-adds, values and their spreads of a line's points, in the metric's unit."""
    points = _ordered(line, cost)
    return (
        [getattr(point, cost) / 1e6 for point in points],
        [metric.scale * point.value.mean for point in points],
        [metric.scale * (point.value.spread or 0.0) for point in points],
    )


def _draw_line(axis: Any, line: Line, style: dict[str, Any], cost: str, metric: Metric) -> None:
    x, y, spread = _places(line, cost, metric)
    depth = 3 if line.is_reference else 4
    axis.plot(x, y, zorder=depth, **(style if _is_joined(line, style, cost) else {**style, "ls": "none"}))
    if style["marker"] == "_":
        # A tick by itself is hardly seen; a marker in its middle is, and hides behind that of the switch.
        axis.plot(x, y, "D", color=style["color"], ms=7.0, zorder=depth)
    if any(spread):
        axis.errorbar(x, y, yerr=spread, fmt="none", ecolor=style["color"], capsize=3, elinewidth=1.2, zorder=depth)


def _is_joined(line: Line, style: dict[str, Any], cost: str) -> bool:
    # Switches of an equal largest device stand above each other; a line through them would mislead.
    return style.get("ls") != "none" and (cost == "madds_total" or all(point.devices == 1 for point in line.points))


def _label_switches(
    axis: Any, lines: Sequence[Line], styles: Sequence[dict[str, Any]], cost: str, metric: Metric
) -> None:
    """Writes the switches of the judged lines, or of the first line, beside their points."""
    labels = Labels(axis)
    for line, style in zip(lines, styles, strict=True):
        x, y, spread = _places(line, cost, metric)
        size = (style["ms"] if style["marker"] == "_" else 9.0, 9.0)
        labels.avoid(x, y, size, joined=_is_joined(line, style, cost))
        for place, value, reach in zip(x, y, spread, strict=True):
            labels.avoid([place, place], [value - reach, value + reach], size=(5.0, 5.0), joined=True)
    judged = [pair for pair in zip(lines, styles, strict=True) if not pair[0].is_reference]
    # Of several lines with the same switches, which stand above each other, the first bears their names.
    written = set()
    for line, style in judged or [(lines[0], styles[0])]:
        x, y, _ = _places(line, cost, metric)
        for point, beside in zip(_ordered(line, cost), zip(x, y, strict=True), strict=True):
            if point.switch not in written:
                labels.place(point.switch, [beside], color=style["color"] if len(judged) == 1 else INK, fontsize=10)
                written.add(point.switch)
