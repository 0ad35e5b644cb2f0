"""What the project's pictures share: colours, the axis of multiply-adds, labels that keep off each other, saving."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from fusion.base.files import write_bytes

# Before any figure is made: pictures are written to files and need no screen.
matplotlib.use("Agg")

# Told apart by the colour-blind too. Source: Okabe & Ito, Color Universal Design.
VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY = "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
INK, GRID = "#222222", "#dddddd"
_MANTISSAS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(float(i) for i in range(1, 10)),
    tuple(i / 10 for i in range(10, 100)),
)


def madds_axis(axis: Any, madds: Sequence[float], title: str) -> None:
    """Makes x a log axis in millions of multiply-adds around these values, with four ticks or more at round numbers."""
    low, high = min(madds) / 1e6, max(madds) / 1e6
    # A lone value has its decade's neighbours about it, not a row of hundredths.
    factor = 1.08 * (high / low) ** 0.12 if high > 1.5 * low else 1.6
    low, high = low / factor, high * factor
    for mantissas in _MANTISSAS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**decade for decade in decades for m in mantissas if low <= m * 10.0**decade <= high]
        if len(ticks) >= 4:
            break
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks(ticks[:: max(1, len(ticks) // 8)], [f"{tick:g}" for tick in ticks[:: max(1, len(ticks) // 8)]])
    axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_xlabel(f"{title} (millions, log scale)")


class Labels:
    """Places texts beside points so that they cover neither each other nor anything drawn.

    Args:
      axis: has all its data and limits.

    Greedy, over a ring of places at growing distance.
    """

    def __init__(self, axis: Any) -> None:
        self.axis = axis
        figure = axis.figure
        figure.canvas.draw()
        self._pixels = figure.dpi / 72
        self._renderer = figure.canvas.get_renderer()
        # A text that touches an axis reads as one of its own.
        self._inside = axis.get_window_extent().padded(-8 * self._pixels)
        self._taken: list[Bbox] = []

    def avoid(
        self, x: Sequence[float], y: Sequence[float], size: tuple[float, float] = (9.0, 9.0), joined: bool = False
    ) -> None:
        """Keeps labels off markers at these points, in data coordinates, and off the lines between them if `joined`.

        `size` is a marker's width and height in typographic points.
        """
        places = self.axis.transData.transform(np.column_stack([x, y]))
        if joined:
            for start, end in zip(places, places[1:], strict=False):
                for place in np.linspace(start, end, 40):
                    self._take(place, np.full(2, 1.5))
        for place in places:
            self._take(place, np.array(size) / 2)

    def _take(self, place: np.ndarray, half: np.ndarray) -> None:
        self._taken.append(Bbox([place - half * self._pixels, place + half * self._pixels]))

    def place(self, text: str, points: Sequence[tuple[float, float]], far: bool = True, **style: Any) -> bool:
        """Writes a text beside the first of these data points that has room for it, as near as can be.

        Args:
          text: what to write.
          points: in data coordinates, the best first.
          far: whether it may stand farther off; from some distance on, a thin line leads to its point.
          **style: of the text, as matplotlib's `annotate` takes it.

        Returns:
          False, and nothing is written, where there is no room.
        """
        for distance in (7, 10, 14, 20, 30, 42)[: None if far else 4]:
            for x, y in points:
                for dx, dy in _ring():
                    note = self.axis.annotate(
                        text,
                        (x, y),
                        xytext=(distance * dx, distance * dy),
                        textcoords="offset points",
                        ha="left" if dx > 0.3 else "right" if dx < -0.3 else "center",
                        va="bottom" if dy > 0.3 else "top" if dy < -0.3 else "center",
                        arrowprops=dict(arrowstyle="-", color="#999999", lw=0.6) if distance > 14 else None,
                        **style,
                    )
                    note.update_positions(self._renderer)
                    box = Text.get_window_extent(note, self._renderer)
                    if self._free(box):
                        self._taken.append(box.padded(1.5 * self._pixels))
                        return True
                    note.remove()
        return False

    def _free(self, box: Bbox) -> bool:
        inside = self._inside
        within = inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1
        return within and not any(box.overlaps(other) for other in self._taken)


def _ring() -> Iterator[tuple[float, float]]:
    for degrees in (0, 45, -45, 180, 135, -135, 90, -90):
        yield math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def save(figure: Figure, stem: Path) -> None:
    """Writes `stem`.png and `stem`.svg, the same bytes for the same picture, and closes the figure."""
    for suffix, metadata in ((".png", {}), (".svg", {"Date": None})):
        stream = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "paradis_tf"}):
            figure.savefig(stream, format=suffix[1:], dpi=150, metadata=metadata)
        write_bytes(stem.with_name(stem.name + suffix), stream.getvalue())
    plt.close(figure)
