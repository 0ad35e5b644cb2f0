"""The runs of a report: of folders, and of a CSV of results, as `benchmarks.runs` writes it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.base.files import text_of
from fusion.base.program import UserError
from paradis_tf.reports.runs import Run, identity_of, make_row, read_folder

_COUNTS = ("seed", "epochs", "devices", "images", "madds_total", "madds_largest", "parameters")
_COLUMNS = ("name", "entry", "method", "switch", "metric", *_COUNTS, "config.method.name")


def read_all(folders: Sequence[str], labels: Sequence[str], results: Sequence[str]) -> list[Run]:
    """The runs that the flags name.

    Raises:
      UserError: none is named, one twice, there are not as many labels as lines, or a run cannot be read.
    """
    if not folders and not results:
        raise UserError("there is no run to report; give --workdir=FOLDER or --results=FILE.csv.")
    paths = [*folders, *results]
    for index, path in enumerate(paths):
        if os.path.realpath(path) in map(os.path.realpath, paths[:index]):
            raise UserError(f"{path} is given twice.")
    runs = [read_folder(path) for path in folders]
    lines = list(dict.fromkeys(run.line for run in runs))
    if labels and len(labels) != len(lines):
        raise UserError(
            f"--labels has {len(labels)} names for {len(runs)} --workdir, which make {len(lines)} lines, as seeds of "
            "one config are averaged; give one for each line."
        )
    label_of = dict(zip(lines, labels, strict=False))
    runs = [dataclasses.replace(run, label=label_of.get(run.line, "")) for run in runs]
    return [*runs, *(run for path in results for run in read_csv(path))]


def read_csv(path: str) -> list[Run]:
    """The runs of a CSV with a row per switch of each run.

    Columns: name, entry (the name without the seed), method (what the line is called), seed, epochs, switch, devices,
    images, metric and the metric's own, madds_total, madds_largest, parameters, config.method.name. Optional are
    live_subsets (JSON, as in evaluation.json), command, sets.NAME.images and the like, and config.KEY and
    version.PACKAGE. Others are passed over.

    Raises:
      UserError: the file cannot be read, has no row, lacks a column or holds a malformed value.
    """
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    entries: dict[str, set[str]] = {}
    for where, row in _read_rows(path):
        values = _values(row, where)
        runs.setdefault((values["name"], values["seed"], values["metric"]), []).append(values)
        entries.setdefault(values["method"], set()).add(values["entry"])
    return [_run(path, rows_of_run, entries) for rows_of_run in runs.values()]


def _read_rows(path: str) -> list[tuple[str, dict[str, str]]]:
    """Where each row of a CSV stands, and its values by column."""
    try:
        text = text_of(Path(path).read_bytes(), f"--results={path}")
        # The text is in memory, so no field is too long; the sets of some sixty devices are more than the usual limit.
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header = list(reader.fieldnames or [])
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except OSError as error:
        raise UserError(f"--results={path} cannot be read: {error.strerror}.") from None
    except csv.Error as error:
        raise UserError(f"--results={path} is no CSV: {error}.") from None
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise UserError(f"--results={path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}.")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise UserError(f"--results={path} has the columns {', '.join(twice)} more than once.")
    if not rows:
        raise UserError(f"--results={path} has no row.")
    for where, row in rows:
        if None in row or None in row.values():
            raise UserError(f"{where} has another number of fields than the header, {len(header)}.")
    return rows


def _values(row: Mapping[str, str], where: str) -> dict[str, Any]:
    """A line's values by column, and under `row` what the report takes of it."""
    values: dict[str, Any] = {**row, row["metric"]: _number(row.get(row["metric"]), row["metric"], where, float)}
    values |= {key: _number(row[key], key, where, int) for key in _COUNTS if row[key] or key != "parameters"}
    for key, least in (("seed", 0), ("epochs", 1)):
        if values[key] < least:
            raise UserError(f"{where}: {key} is {values[key]}; it is a whole number of at least {least}.")
    try:
        values["live_subsets"] = json.loads(row.get("live_subsets") or "[]")
    except (ValueError, RecursionError) as error:  # brackets within brackets end the recursion
        raise UserError(f"{where}: live_subsets is not JSON ({error}).") from None
    return {**values, "row": make_row(values, where, row["metric"])}


def _number(text: str | None, key: str, where: str, kind: type) -> Any:
    try:
        return kind(text)
    except (TypeError, ValueError):
        legal = "a whole number" if kind is int else "a number"
        raise UserError(f"{where}: {key} is {text!r}; it is {legal}.") from None


def _run(path: str, rows: Sequence[Mapping[str, Any]], entries: Mapping[str, set[str]]) -> Run:
    """A run of its rows; `entries` are those that a name of a line stands for."""
    first = rows[0]
    method, title, entry = first["config.method.name"], first["method"], first["entry"]
    # Individual networks have an entry for each switch, and are one line together.
    individual = method == "individual"
    return Run(
        where=f"{path}: {first['name']}",
        name=first["name"],
        method=method,
        seed=first["seed"],
        epochs=first["epochs"],
        metric=first["metric"],
        line=json.dumps([path, method, title if individual else entry, first["epochs"]]),
        identity=identity_of(first),
        rows=tuple(row["row"] for row in rows),
        label=title if individual or len(entries[title]) == 1 else entry,
        command=first.get("command") or "",
        versions={key.removeprefix("version."): text for key, text in first.items() if key.startswith("version.")},
    )
