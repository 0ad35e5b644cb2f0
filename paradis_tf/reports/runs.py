"""Evaluated runs, from run folders or from a CSV of results, and the check that they can stand in one report."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from export.fusion.program import UserError
from paradis_tf.metrics import metric_of
from paradis_tf.switches import parse_switches
from paradis_tf.workdir import Workdir, file_sha256, read_json

_COLUMNS = ("name", "method", "seed", "epochs", "switch", "devices", "images", "madds_total", "madds_largest")
# What a config has tables of, each with a name.
_TABLES = ("dataset", "model", "method")
# How a CSV may call what run folders keep in their config.
_IDENTITY = {"dataset": "dataset", "architecture": "architecture", "model": "architecture"}


@dataclass(frozen=True)
class Row:
    """One switch of a run: its value, in the unit of evaluation, and its costs per image.

    Attributes:
      live: by set of devices that answer, the value; empty where it was not measured.
    """

    switch: str
    devices: int
    images: int
    value: float
    madds_total: int
    madds_largest: int
    parameters: int | None = None
    live: Mapping[tuple[int, ...], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A finished, evaluated training.

    Attributes:
      where: the folder, or the file and the name in it.
      name: the folder's last part, or the name in the file.
      line: runs with equal ones differ in the seed alone, individual networks also in the switch.
      identity: what all runs of a report have in common, by what it is called.
      label: what the user calls the line; empty for none.
      config: the resolved config; None from a CSV.
      versions: of the packages that made it; None from a CSV.
    """

    where: str
    name: str
    method: str
    seed: int
    epochs: int
    metric: str
    line: str
    identity: Mapping[str, str]
    rows: tuple[Row, ...]
    label: str = ""
    config: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None


def read_folder(path: str, label: str = "") -> Run:
    """The run of a folder.

    Raises:
      UserError: it is not finished, not evaluated, or evaluated before its model was last written.
    """
    workdir = Workdir.open(path)
    config = _checked_config(workdir)
    workdir.require_model()
    rows = workdir.evaluation()
    digest = file_sha256(workdir.model_file)
    if not rows or any(row.get("model_file_sha256") != digest for row in rows):
        raise UserError(
            f"{workdir.evaluation_file} is of another model than {workdir.model_file}; run paradis_tf.evaluate again."
        )
    wanted = [str(switch) for switch in parse_switches(config["switches"], config["grid"])]
    if sorted(str(row["switch"]) for row in rows) != sorted(wanted):
        raise UserError(
            f"{workdir.evaluation_file} has switches {', '.join(str(row['switch']) for row in rows)}, and its run "
            f"{', '.join(wanted)}; run paradis_tf.evaluate again."
        )
    same = {key: value for key, value in config.items() if key != "seed"}
    if config["method"]["name"] == "individual":
        same = {key: value for key, value in same.items() if key not in ("switches", "grid")}
    # How much is held out of training is a setting of the run, not of what it is judged by.
    dataset = {key: value for key, value in config["dataset"].items() if key != "validation_fraction"}
    metric = rows[0].get("metric", "accuracy")
    return Run(
        where=str(workdir.path),
        name=workdir.path.resolve().name,
        method=config["method"]["name"],
        seed=config["seed"],
        epochs=config["epochs"],
        metric=metric,
        line=json.dumps(same, sort_keys=True),
        identity={
            "dataset": dataset["name"],
            "architecture": config["model"]["name"],
            "config.dataset": json.dumps(dataset, sort_keys=True),
            "config.model": json.dumps(config["model"], sort_keys=True),
        },
        rows=tuple(_row(row, str(workdir.evaluation_file), metric) for row in rows),
        label=label,
        config=config,
        versions=read_json(workdir.path / "versions.json"),
    )


def _checked_config(workdir: Workdir) -> dict[str, Any]:
    config = workdir.config()
    for key, name in (("seed", ""), ("switches", ""), ("grid", ""), *((k, "name") for k in _TABLES)):
        if key not in config or (name and name not in config[key]):
            raise UserError(f"{workdir.config_file} lacks {(name or key)!r}{f' of {key}' if name else ''}.")
    return config


def read_csv(path: str, names: Sequence[str] = ()) -> list[Run]:
    """The runs of a CSV with a row per switch of each run.

    Columns: name, method, seed, epochs, switch, devices, images, madds_total, madds_largest and the metric's own;
    optional are metric (`accuracy` if left out), parameters, dataset and architecture; others are passed over.

    Args:
      path: the file.
      names: patterns as of a shell; rows whose name fits none are passed over. Empty for all.

    Raises:
      UserError: the file cannot be read, lacks a column or holds a malformed value, or no name fits.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
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
    found: dict[tuple, list[Row]] = {}
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
        identity = tuple(sorted({_IDENTITY[k]: values[k] for k in _IDENTITY if values.get(k)}.items()))
        run = (values["name"], values["method"], values["seed"], values["epochs"], metric, identity)
        found.setdefault(run, []).append(_row(values, where, metric))
    if not found:
        known = sorted({line["name"] for _, line in lines})
        raise UserError(f"--results={path} has no row{_of(names)}; its names are {', '.join(known) or 'none'}.")
    return [
        Run(
            where=f"{path}: {name}",
            name=name,
            method=method,
            seed=seed,
            epochs=epochs,
            metric=metric,
            line=json.dumps([path, "individual" if method == "individual" else _without_seed(name, seed), epochs]),
            identity=dict(identity),
            rows=tuple(rows),
            # A name that is only the method's says no more than the method.
            label="" if method == "individual" or _without_seed(name, seed) == method else _without_seed(name, seed),
        )
        for (name, method, seed, epochs, metric, identity), rows in found.items()
    ]


def check_together(runs: Sequence[Run]) -> None:
    """Raises UserError, naming two runs, unless all are of one dataset, architecture, test part and metric."""
    for one in runs:
        for other in runs:
            for key in one.identity:
                if key in other.identity and one.identity[key] != other.identity[key]:
                    raise UserError(
                        f"{one.where} has {key} {one.identity[key]} and {other.where} {other.identity[key]}; a report "
                        "is of one dataset and one architecture."
                    )
            if one.metric != other.metric:
                raise UserError(f"{one.where} is measured in {one.metric} and {other.where} in {other.metric}.")
            if one.rows[0].images != other.rows[0].images:
                raise UserError(
                    f"{one.where} is evaluated on {one.rows[0].images} images and {other.where} on "
                    f"{other.rows[0].images}; a report is of one test part."
                )


def _row(values: Mapping[str, Any], where: str, metric: str) -> Row:
    for key in ("devices", "images", "madds_total", "madds_largest"):
        if type(values.get(key)) is not int or values[key] < 1:
            raise UserError(f"{where}: {key} is {values.get(key)!r}; it is a whole number of at least 1.")
    found = metric_of({**values, "metric": metric}, where)
    if not math.isfinite(values[found.key]):
        raise UserError(f"{where}: {found.key} is {values[found.key]}; it is a finite number.")
    try:
        live = {tuple(subset["devices"]): float(subset[found.key]) for subset in values.get("live_subsets") or ()}
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{where}: live_subsets is not a list of devices and {found.key}.") from None
    return Row(
        switch=values["switch"],
        devices=values["devices"],
        images=values["images"],
        value=float(values[found.key]),
        madds_total=values["madds_total"],
        madds_largest=values["madds_largest"],
        parameters=values.get("parameters") or None,
        live=live,
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
