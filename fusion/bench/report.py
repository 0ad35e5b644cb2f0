"""The tables of `bench`, for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..base import columns
from .phases import PHASES

_CSV_HEADER = (
    "bundle",
    "precision",
    "switch",
    "measured",
    "clients",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "mean_ms",
    "full_p50_ms",
    "speed_up",
    "invoke_p50_ms",
    "overhead_ms",
    *(f"{phase}_ms" for phase in PHASES),
    "sent_bytes",
    "received_bytes",
    "offered_per_s",
    "images_per_s",
    "alone_images_per_s",
    "outcomes",
    "placement",
    "conditions",
)


def show(figures: Mapping[str, Any]) -> None:
    """Prints the tables of what `bench` measured."""
    rows = figures["rows"]
    print(f"{' '.join(filter(None, (figures['name'], figures['url'])))}: {figures['conditions']}")
    for placement in dict.fromkeys(row["placement"] for row in rows if row["placement"]):
        named = ", ".join(dict.fromkeys(row["switch"] for row in rows if row["placement"] == placement))
        print(f"{named}: {placement}")
    print("\none image at a time, ms; full: the whole network in this process; overhead: p50 less that of invoke;")
    print("speed-up: full p50 by p50, so that below 1 the cluster is the slower one")
    print(columns.render(_LATENCY, [_latency(row) for row in rows]))
    slower = list(dict.fromkeys(row["switch"] for row in rows if row["full_us"] is not None and row["speed_up"] < 1))
    if slower:
        print(
            f"slower than the whole network in one process: {', '.join(slower)}. There, sending the image and "
            "adding the parts costs more than slicing saves."
        )
    print("\nwhere the time of the median goes, ms")
    phases = [[row["precision"], row["switch"], *_phases(row["latency"]["phases"])] for row in rows]
    print(columns.render(("precision", "switch", *(phase.replace("_", " ") for phase in PHASES), "sum"), phases))
    if any(row["throughput"] for row in rows):
        print("\nseveral clients, each with one image at a time; alone: the interpreters in this process;")
        print("outcomes: each request is one of whole, early, degraded, late, refused (503), timed out (504) and lost")
        print(columns.render(_THROUGHPUT, [line for row in rows for line in _throughput(row)]))
    over = [row for row in rows if row["overload"]]
    if over:
        print("\nmore asked than can be served")
        print(columns.render(("precision", "switch", "asked/s", "images/s", "outcomes"), [_overload(r) for r in over]))


def csv_text(figures: Mapping[str, Any]) -> str:
    """The same as CSV: a row per switch and measurement, with the conditions in each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_HEADER, lineterminator="\n")
    writer.writeheader()
    for row in figures["rows"]:
        common = {key: row[key] for key in ("precision", "switch", "placement")}
        common |= {"bundle": figures["name"], "conditions": figures["conditions"]}
        latency, full = row["latency"], row["full_us"]
        line = common | {"measured": "latency", "clients": 1} | _times(latency["total"])
        line |= {"invoke_p50_ms": _ms(latency["invoke"]["p50"]), "overhead_ms": round(latency["overhead_ms"], 3)}
        line |= {f"{phase}_ms": round(latency["phases"][phase], 3) for phase in PHASES}
        line |= {key: latency[key] for key in ("sent_bytes", "received_bytes")}
        if full is not None:
            line |= {"full_p50_ms": _ms(full["p50"]), "speed_up": round(row["speed_up"], 3)}
        writer.writerow(line)
        for rate in row["throughput"]:
            found = {key: _rounded(rate[key]) for key in ("clients", "images_per_s", "alone_images_per_s")}
            said = {"measured": "throughput", "outcomes": _outcomes(rate["outcomes"])}
            writer.writerow(common | said | found | ({} if rate["total"] is None else _times(rate["total"])))
        if row["overload"]:
            found = {key: _rounded(row["overload"][key]) for key in ("offered_per_s", "images_per_s")}
            said = {"measured": "overload", "outcomes": _outcomes(row["overload"]["outcomes"])}
            writer.writerow(common | said | found)
    return text.getvalue()


_LATENCY = (
    "precision",
    "switch",
    "p50",
    "p95",
    "p99",
    "full p50",
    "speed-up",
    "invoke p50",
    "overhead",
    "of invoke",
    "bytes in",
    "bytes out",
)
_THROUGHPUT = ("precision", "switch", "clients", "images/s", "alone", "share", "p50", "p95", "p99", "outcomes")


def _latency(row: Mapping[str, Any]) -> list[str]:
    latency, full = row["latency"], row["full_us"]
    total, invoke = latency["total"], latency["invoke"]
    return [
        row["precision"],
        row["switch"],
        *(f"{total[key] / 1e3:.2f}" for key in ("p50", "p95", "p99")),
        "" if full is None else f"{full['p50'] / 1e3:.2f}",
        "" if full is None else f"{row['speed_up']:.2f}",
        f"{invoke['p50'] / 1e3:.2f}",
        f"{latency['overhead_ms']:.2f}",
        f"{1e3 * latency['overhead_ms'] / invoke['p50']:.0%}",
        f"{latency['sent_bytes']}",
        f"{latency['received_bytes']}",
    ]


def _phases(found: Mapping[str, float]) -> list[str]:
    return [f"{value:.2f}" for value in (*(found[phase] for phase in PHASES), sum(found.values()))]


def _throughput(row: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for rate in row["throughput"]:
        alone, total = rate["alone_images_per_s"], rate["total"]
        lines.append(
            [
                row["precision"],
                row["switch"],
                str(rate["clients"]),
                f"{rate['images_per_s']:.1f}",
                "" if alone is None else f"{alone:.1f}",
                "" if alone is None else f"{rate['images_per_s'] / alone:.0%}",
                *("" if total is None else f"{total[key] / 1e3:.1f}" for key in ("p50", "p95", "p99")),
                _outcomes(rate["outcomes"]),
            ]
        )
    return lines


def _overload(row: Mapping[str, Any]) -> Sequence[str]:
    over = row["overload"]
    rates = [f"{over[key]:.1f}" for key in ("offered_per_s", "images_per_s")]
    return [row["precision"], row["switch"], *rates, _outcomes(over["outcomes"])]


def _outcomes(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def _times(timing: Mapping[str, float]) -> dict[str, float]:
    names = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "mean_ms": "avg"}
    return {name: _ms(timing[key]) for name, key in names.items()}


def _ms(micros: float) -> float:
    return round(micros / 1e3, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
