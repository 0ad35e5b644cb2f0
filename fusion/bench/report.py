"""The tables of `bench`, for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..base import columns
from .phases import PHASES

_TIMES = ("p50_ms", "p95_ms", "p99_ms")

# (what was measured, what the table says above, its columns)
_TABLES = (
    (
        "latency",
        "one image at a time, ms; full: the whole network in this process; overhead: p50 less that of invoke;\n"
        "speed-up: full p50 by p50, so that below 1 the cluster is the slower one",
        (*_TIMES, "full_p50_ms", "speed_up", "invoke_p50_ms", "overhead_ms", "sent_bytes", "received_bytes"),
    ),
    ("latency", "where the time of the median goes, ms", tuple(f"{phase}_ms" for phase in PHASES)),
    (
        "throughput",
        "several clients, each with one image at a time; alone: the interpreters in this process;\n"
        "outcomes: each request is one of whole, early, degraded, late, refused (503), timed out (504) and lost",
        ("clients", "images_per_s", "alone_images_per_s", *_TIMES, "outcomes"),
    ),
    ("overload", "more asked than can be served", ("offered_per_s", "images_per_s", "outcomes")),
)


def show(figures: Mapping[str, Any]) -> None:
    """Prints the tables of what `bench` measured."""
    rows = figures["rows"]
    print(f"{' '.join(filter(None, (figures['name'], figures['url'])))}: {figures['conditions']}")
    for words in filter(None, dict.fromkeys(row["placement"] for row in rows)):
        print(f"{_switches(row for row in rows if row['placement'] == words)}: {words}")
    for measured, title, keys in _TABLES:
        lines = [_cells(row, keys) for row in rows if row["measured"] == measured]
        if lines:
            header = [key.removesuffix("_ms").replace("_", " ").replace(" per s", "/s") for key in keys]
            print(f"\n{title}\n{columns.render(['precision', 'switch', *header], lines)}")
    slower = _switches(row for row in rows if (row.get("speed_up") or 1) < 1)
    if slower:
        print(
            f"\nslower than the whole network in one process: {slower}. There, sending the image and adding "
            "what the slices give costs more than slicing saves."
        )


def csv_text(figures: Mapping[str, Any]) -> str:
    """The same as CSV: a row per switch and measurement, with the conditions in each."""
    text = io.StringIO()
    rows = [{"bundle": figures["name"], **row, "conditions": figures["conditions"]} for row in figures["rows"]]
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def _switches(rows: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(row["switch"] for row in rows))


def _cells(row: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """A line of a table."""
    values = [row.get(key) for key in ("precision", "switch", *keys)]
    return ["" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value) for value in values]
