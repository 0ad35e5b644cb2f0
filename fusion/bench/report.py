"""The tables of `bench`, for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..base import columns
from .measure import Record
from .phases import PHASES

_TIMES = ("p50_ms", "p95_ms", "p99_ms")
_PHASES = tuple(f"{phase}_ms" for phase in PHASES)
CSV_HEADER = (
    *("bundle", "precision", "switch", "measured", "clients", *_TIMES, "mean_ms", "full_p50_ms", "speed_up"),
    *("invoke_p50_ms", "overhead_ms", *_PHASES, "sent_bytes", "received_bytes", "offered_per_s", "images_per_s"),
    *("alone_images_per_s", "outcomes", "placement", "conditions"),
)

# (what was measured, what the table says above, its columns)
_TABLES = (
    (
        "latency",
        "one image at a time, ms; full: the whole network in this process; overhead: p50 less that of invoke;\n"
        "speed-up: full p50 by p50, so that below 1 the cluster is the slower one",
        (*_TIMES, "full_p50_ms", "speed_up", "invoke_p50_ms", "overhead_ms", "sent_bytes", "received_bytes"),
    ),
    ("latency", "where the time of the median goes, ms", _PHASES),
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
    records = figures["rows"]
    print(f"{' '.join(filter(None, (figures['name'], figures['url'])))}: {figures['conditions']}")
    for words, switches in _placements(records).items():
        print(f"{', '.join(switches)}: {words}")
    for measured, title, keys in _TABLES:
        rows = [
            [_cell(record.get(key)) for key in ("precision", "switch", *keys)]
            for record in records
            if record["measured"] == measured
        ]
        if rows:
            header = [key.removesuffix("_ms").replace("_", " ").replace(" per s", "/s") for key in keys]
            print(f"\n{title}\n{columns.render(['precision', 'switch', *header], rows)}")
    slower = dict.fromkeys(record["switch"] for record in records if (record.get("speed_up") or 1) < 1)
    if slower:
        print(
            f"\nslower than the whole network in one process: {', '.join(slower)}. There, sending the image and adding "
            "what the slices give costs more than slicing saves."
        )


def _placements(records: Sequence[Record]) -> dict[str, list[str]]:
    """The switches by where their processes run, where that is known."""
    switches: dict[str, list[str]] = {}
    for record in records:
        if record["placement"] and record["switch"] not in switches.setdefault(record["placement"], []):
            switches[record["placement"]].append(record["switch"])
    return switches


def csv_text(figures: Mapping[str, Any]) -> str:
    """The same as CSV: a row per switch and measurement, with the conditions in each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_HEADER, lineterminator="\n")
    writer.writeheader()
    common = {"bundle": figures["name"], "conditions": figures["conditions"]}
    for record in figures["rows"]:
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in record.items()}
        writer.writerow(rounded | common)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
