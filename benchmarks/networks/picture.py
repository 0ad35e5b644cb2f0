"""The picture of the networks: the latency of every switch on each, a panel per precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paradis_tf.pictures.style import BLUE, GREEN, GRID, INK, ORANGE, VERMILION, plt, save

_COLORS = (BLUE, GREEN, ORANGE, VERMILION)
_WIDTH = 0.8


def draw(rows: Sequence[Mapping[str, Any]], what: str, stem: Path) -> None:
    """Writes `stem`.png and `stem`.svg.

    Args:
      rows: a mapping per switch, precision and network, with the columns of the CSV.
      what: what was served.
      stem: the pictures' path without suffix.
    """
    precisions, switches, networks = (list(dict.fromkeys(row[key] for row in rows)) for key in _KEYS)
    figure, axes = plt.subplots(
        1, len(precisions), figsize=(6.2 * len(precisions) + 2, 5), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, precision in zip(axes[0], precisions, strict=True):
        for place, network in enumerate(networks):
            mine = [row for row in rows if row["precision"] == precision and row["network"] == network]
            width = _WIDTH / len(networks)
            x = [switches.index(row["switch"]) + width * (place - (len(networks) - 1) / 2) for row in mine]
            heights = [row["p50_ms"] for row in mine]
            axis.bar(x, heights, width, color=_COLORS[place % len(_COLORS)], label=network)
            axis.vlines(x, heights, [row["p95_ms"] for row in mine], color=INK, lw=1)
            for left, row in zip(x, mine, strict=True):
                text = f"{row['p50_ms']:.0f}" if row["p50_ms"] >= 10 else f"{row['p50_ms']:.1f}"
                axis.text(left, row["p95_ms"] * 1.04, text, ha="center", va="bottom", fontsize=8)
        invoke = [row for row in rows if row["precision"] == precision and row["network"] == networks[0]]
        for row in invoke:
            left = switches.index(row["switch"]) - _WIDTH / 2
            label = "slowest slice's own invocation" if row is invoke[0] else None
            axis.hlines(row["invoke_p50_ms"], left, left + _WIDTH, color=INK, ls=":", lw=1.5, label=label)
        axis.set_xticks(range(len(switches)), switches)
        axis.set_title(precision, loc="left")
        axis.set_yscale("log")
        axis.margins(y=0.15)
        axis.grid(axis="y", color=GRID)
        axis.set_axisbelow(True)
    axes[0][0].set_ylabel("latency of one image (ms): median, and line to p95")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(f"Workers behind a network: {what}")
    save(figure, stem)


_KEYS = ("precision", "switch", "network")
