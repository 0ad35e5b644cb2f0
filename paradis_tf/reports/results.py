"""The runs of a report: of folders, and of a CSV of results, as `benchmarks.runs` and the report itself write it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from fusion.base.program import UserError
from paradis_tf.reports.runs import TITLES, Run, identity_of, make_row, read_folder
from paradis_tf.tasks.metrics import metric_of

_COLUMNS = ("name", "method", "seed", "epochs", "switch", "devices", "images", "madds_total", "madds_largest")


def read_all(folders: Sequence[str], labels: Sequence[str], results: Sequence[str], names: Sequence[str]) -> list[Run]:
    """The runs that the flags name.

    Raises:
      UserError: none is named, one twice, labels do not go with the folders, or one cannot be read.
    """
    if not folders and not results:
        raise UserError("there is no run to report; give --workdir=FOLDER or --results=FILE.csv.")
    if names and not results:
        raise UserError("--names chooses among --results, and there are none.")
    for given in (folders, results):
        for index, path in enumerate(given):
            if os.path.realpath(path) in map(os.path.realpath, given[:index]):
                raise UserError(f"{path} is given twice.")
    found = _labelled([read_folder(path) for path in folders], labels)
    for path in results:
        found += read_csv(path, names)
    return found


def _labelled(runs: list[Run], labels: Sequence[str]) -> list[Run]:
    """The runs with a label for each of them, or for each line of them in the order of their first ones."""
    lines = list(dict.fromkeys(run.line for run in runs))
    if len(labels) == len(runs):
        return [dataclasses.replace(run, label=label) for run, label in zip(runs, labels, strict=True)]
    if labels and len(labels) != len(lines):
        raise UserError(
            f"--labels has {len(labels)} names for {len(runs)} --workdir, which make {len(lines)} lines, as seeds of "
            "one config are averaged; give one for each folder or for each line."
        )
    by_line = dict(zip(lines, labels, strict=False))
    return [dataclasses.replace(run, label=by_line.get(run.line, "")) for run in runs]


def read_csv(path: str, names: Sequence[str] = ()) -> list[Run]:
    """The runs of a CSV with a row per switch of each run.

    Columns: name, method, seed, epochs, switch, devices, images, madds_total, madds_largest and the metric's own.
    Optional are metric (`accuracy` if left out), parameters, entry (the name without the seed), dataset,
    architecture, command, and config.KEY and version.PACKAGE as benchmarks.runs writes them. Others are passed over.

    Args:
      path: the file.
      names: patterns as of a shell; rows whose name fits none are passed over. Empty for all.

    Raises:
      UserError: the file cannot be read, lacks a column or holds a malformed value, or no name fits.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a file with a mark
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            lines = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise UserError(f"--results={path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--results={path} is no CSV: {error}.") from None
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise UserError(f"--results={path} lacks the columns {', '.join(missing)}; it has {', '.join(header)}.")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise UserError(
            f"--results={path} has the columns {', '.join(twice)} more than once; each has a name of its own."
        )
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        if None in line or None in line.values():
            raise UserError(f"{where} has another number of fields than the header, {len(header)}.")
        if names and not any(fnmatch(line["name"], pattern) for pattern in names):
            continue
        values: dict[str, Any] = {key: value for key, value in line.items() if key != "live_subsets"}
        metric = metric_of({**values, (m := values.get("metric") or "accuracy"): 0.0, "metric": m}, where).key
        for key in ("seed", "epochs", "devices", "images", "madds_total", "madds_largest", "parameters", metric):
            if values.get(key) or key != "parameters":
                values[key] = _number(values.get(key), key, where, float if key == metric else int)
        for key, least in (("seed", 0), ("epochs", 1)):
            if values[key] < least:
                raise UserError(f"{where}: {key} is {values[key]}; it is a whole number of at least {least}.")
        found.setdefault((values["name"], values["method"], values["seed"], metric), []).append(
            {**values, "_row": make_row(values, where, metric)}
        )
    if not found:
        known = sorted({line["name"] for _, line in lines})
        raise UserError(f"--results={path} has no row{_of(names)}; its names are {', '.join(known) or 'none'}.")
    return _runs_of(path, found)


def _runs_of(path: str, found: Mapping[tuple[Any, ...], Sequence[Mapping[str, Any]]]) -> list[Run]:
    """The runs of a CSV, from its rows by name, seed and metric."""
    entries: dict[str, set[str]] = {}
    for rows in found.values():
        entries.setdefault(rows[0]["method"], set()).add(_entry(rows[0]))
    runs = []
    for (name, _, _, metric), rows in found.items():
        first = rows[0]
        method, entry = _method(first), _entry(first)
        # Individual networks have an entry for each switch, and are one line together.
        line = first["method"] if method == "individual" else entry
        alone = len(entries[first["method"]]) == 1
        label = first["method"] if method == "individual" or first.get("entry") and alone else entry
        runs.append(
            Run(
                where=f"{path}: {name}",
                name=name,
                method=method,
                seed=first["seed"],
                epochs=first["epochs"],
                metric=metric,
                line=json.dumps([path, method, line, first["epochs"]]),
                identity=identity_of(first),
                rows=tuple(row["_row"] for row in rows),
                # One that is no more than the method's name is left to the report.
                label="" if label.lower() in (method, TITLES.get(method, "").lower()) else label,
                command=first.get("command") or "",
                versions={k.removeprefix("version."): v for k, v in first.items() if v and k.startswith("version.")},
            )
        )
    return runs


def _entry(row: Mapping[str, Any]) -> str:
    return row.get("entry") or _without_seed(row["name"], row["seed"])


def _method(row: Mapping[str, Any]) -> str:
    """The method's own name; results may call it something else."""
    return row.get("config.method.name") or (
        row["method"].lower() if row["method"].lower() in TITLES else row["method"]
    )


def _number(text: Any, key: str, where: str, kind: type) -> Any:
    try:
        return kind(text)
    except (TypeError, ValueError):
        legal = "a whole number" if kind is int else "a number"
        raise UserError(f"{where}: {key} is {text!r}; it is {legal}.") from None


def _without_seed(name: str, seed: int) -> str:
    for separator in "_-/":
        for word in ("seed", "s"):
            name = name.removesuffix(f"{separator}{word}{seed}")
    return name


def _of(names: Sequence[str]) -> str:
    return f" of a name like {', '.join(names)}" if names else ""
