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

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  the backend is chosen first
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from export.fusion.files import write_bytes  # noqa: E402

# Told apart by the colour-blind and in grey. Source: Okabe & Ito, Color Universal Design.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, GRID = "#222222", "#dddddd"
_MANTISSAS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), tuple(i / 10 for i in range(10, 100)))


def madds_axis(axis: Any, madds: Sequence[float], title: str) -> None:
    """Makes x a log axis in millions of multiply-adds around these values, with four ticks or more at round numbers."""
    low, high = min(madds) / 1e6, max(madds) / 1e6
    low, high = low / (high / low) ** 0.12 / 1.08, high * (high / low) ** 0.12 * 1.08
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

    Source: ours (greedy, over a ring of places at growing distance).
    """

    def __init__(self, axis: Any) -> None:
        self.axis = axis
        figure = axis.figure
        figure.canvas.draw()
        self._pixels = figure.dpi / 72
        self._renderer = figure.canvas.get_renderer()
        self._inside = axis.get_window_extent()
        self._taken: list[Bbox] = []

    def avoid(self, x: Sequence[float], y: Sequence[float], size: float = 9.0, joined: bool = False) -> None:
        """Keeps labels off these points, in data coordinates, `size` typographic points wide; and off the lines
        between them."""
        places = self.axis.transData.transform(np.column_stack([x, y]))
        half = size / 2 * self._pixels
        if joined:
            steps = [np.linspace(a, b, 40) for a, b in zip(places, places[1:], strict=False)]
            for place in np.concatenate(steps) if steps else ():
                self._take(place, 1.5 * self._pixels)
        for place in places:
            self._take(place, half)

    def _take(self, place: np.ndarray, half: float) -> None:
        self._taken.append(Bbox([place - half, place + half]))

    def place(self, text: str, x: float, y: float, **style: Any) -> bool:
        """Writes a text beside a data point; False, and nothing written, where there is no room."""
        for distance in (7, 12, 20, 30, 42):
            for dx, dy in _ring():
                note = self.axis.annotate(
                    text,
                    (x, y),
                    xytext=(distance * dx, distance * dy),
                    textcoords="offset points",
                    ha="left" if dx > 0.3 else "right" if dx < -0.3 else "center",
                    va="bottom" if dy > 0.3 else "top" if dy < -0.3 else "center",
                    arrowprops=dict(arrowstyle="-", color="#999999", lw=0.6) if distance > 12 else None,
                    **style,
                )
                box = note.get_window_extent(self._renderer) if distance <= 12 else _text_box(note, self._renderer)
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


def _text_box(note: Any, renderer: Any) -> Bbox:
    """The extent of an annotation's text without its arrow."""
    note.update_positions(renderer)
    return matplotlib.text.Text.get_window_extent(note, renderer)


def save(figure: Figure, stem: Path) -> None:
    """Writes `stem`.png and `stem`.svg, the same bytes for the same picture, and closes the figure."""
    for suffix, metadata in ((".png", {}), (".svg", {"Date": None})):
        stream = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "paradis_tf"}):
            figure.savefig(stream, format=suffix[1:], dpi=150, metadata=metadata)
        write_bytes(stem.with_name(stem.name + suffix), stream.getvalue())
    plt.close(figure)
