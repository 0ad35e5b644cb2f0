"""Evaluated runs of run folders, and the check that runs can stand in one report."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusion.base.program import UserError
from paradis_tf.base.files import file_sha256, read_json
from paradis_tf.base.metrics import Metric, metric_of
from paradis_tf.configs.checks import check_types
from paradis_tf.paths import paths_of
from paradis_tf.records.workdir import Workdir, flat

# What methods are called in pictures and tables.
TITLES = {
    "paradis": "ParaDiS",
    "individual": "individual networks",
    "slimmable": "slimmable",
    "us_slimmable": "universally slimmable",
    "anytime": "anytime",
    "nested": "nested",
}
# The tables of a config that all runs of a report have in common, but for how much is held out of training.
_COMMON = ("config.dataset.", "config.model.")
_NOT_COMMON = "config.dataset.validation_fraction"
# Beyond it a float cannot tell neighbours apart; no network comes near.
_MOST_COUNT = 2**53


@dataclass(frozen=True)
class OfSet:
    """What a path has on one set of test images, and bicubic enlargement, where that was measured."""

    images: int
    value: float
    bicubic: float | None


@dataclass(frozen=True)
class Row:
    """One path of a run: its value, in the unit of evaluation, and its costs per image.

    Attributes:
      live: by set of devices that answer, the value; empty where it was not measured.
      sets: by set of test images, of tasks that have several.
    """

    switch: str
    devices: int
    images: int
    value: float
    madds_total: int
    madds_largest: int
    parameters: int | None = None
    live: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    sets: Mapping[str, OfSet] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A finished, evaluated training.

    Attributes:
      where: the folder, or the file and the name in it.
      name: the folder's last part, or the name in the file.
      line: runs with equal ones differ in the seed alone, individual networks also in the switch.
      identity: what all runs of a report have in common, by its key in the config.
      label: what the line is called; empty for the method's title.
      config: the resolved config; None from a CSV.
      command: trains the run again; empty where it is not known.
      versions: of the packages that made it, where they are known.
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
    command: str = ""
    versions: Mapping[str, str] | None = None


def read_folder(path: str) -> Run:
    """The run of a folder.

    Raises:
      UserError: it is not finished, not evaluated, or evaluated before its model was last written.
    """
    workdir = Workdir.open(path)
    config = workdir.config()
    check_types(config, workdir.config_file)
    workdir.require_model()
    rows = workdir.evaluation()
    file = workdir.evaluation_file
    digest = file_sha256(workdir.model_file)
    if not rows or any(row.get("model_file_sha256") != digest for row in rows):
        raise UserError(f"{file} is of another model than {workdir.model_file}; run paradis_tf.evaluate again.")
    paths = [str(path) for path in paths_of(config)]
    evaluated = [str(row["switch"]) for row in rows]
    if sorted(evaluated) != sorted(paths):
        raise UserError(
            f"{file} has the paths {', '.join(evaluated)}, and its run {', '.join(paths)}; run "
            "paradis_tf.evaluate again."
        )
    method = config["method"]["name"]
    ignored = ("seed", "switches", "grid") if method == "individual" else ("seed",)
    metric = rows[0].get("metric", "accuracy")
    try:
        measured = tuple(make_row(row, str(file), metric) for row in rows)
    except UserError as error:
        raise UserError(
            f"{error} Another version of the program may have written it; run paradis_tf.evaluate again."
        ) from None
    return Run(
        where=str(workdir.path),
        name=workdir.path.resolve().name,
        method=method,
        seed=config["seed"],
        epochs=config["epochs"],
        metric=metric,
        line=json.dumps({key: value for key, value in config.items() if key not in ignored}, sort_keys=True),
        identity=identity_of(flat(config)),
        rows=measured,
        config=config,
        versions=read_json(workdir.path / "versions.json"),
    )


def identity_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The dataset and the architecture among the values of a config by dotted key, as text."""
    common = {key: value for key, value in values.items() if key.startswith(_COMMON) and key != _NOT_COMMON}
    # Lists as benchmarks.runs writes them.
    texts = {key: " ".join(map(str, v)) if isinstance(v, list) else str(v) for key, v in common.items()}
    return {key: text for key, text in texts.items() if text}


def check_together(runs: Sequence[Run]) -> None:
    """Raises UserError, naming two runs, unless all are of one dataset, architecture, test part and metric."""
    first = runs[0]
    for run in runs[1:]:
        for key in first.identity.keys() & run.identity.keys():
            if first.identity[key] != run.identity[key]:
                raise UserError(
                    f"{first.where} has {key} {first.identity[key]} and {run.where} {run.identity[key]}; a report is "
                    "of one dataset and one architecture."
                )
        if first.metric != run.metric:
            raise UserError(f"{first.where} is measured in {first.metric} and {run.where} in {run.metric}.")
        if first.rows[0].images != run.rows[0].images:
            raise UserError(
                f"{first.where} is evaluated on {first.rows[0].images} images and {run.where} on "
                f"{run.rows[0].images}; a report is of one test part."
            )


def make_row(values: Mapping[str, Any], where: str, metric_key: str) -> Row:
    """A `Row` of the values of an evaluated path.

    Raises:
      UserError: a value is missing or malformed; `where` it stands is named.
    """
    if not isinstance(values.get("switch"), str) or not values["switch"].strip():
        raise UserError(f"{where}: switch is {values.get('switch')!r}; it is a switch's text form or a level's name.")
    _check_counts(values, where)
    metric = metric_of({**values, "metric": metric_key}, where)
    value = values[metric.key]
    _check_value(value, metric, where)
    return Row(
        switch=values["switch"],
        devices=values["devices"],
        images=values["images"],
        value=float(value),
        madds_total=values["madds_total"],
        madds_largest=values["madds_largest"],
        parameters=values.get("parameters") or None,
        live=_live(values.get("live_subsets") or [], values["devices"], metric, where),
        sets=_sets(flat(values, ""), metric.key, where),
    )


def _check_counts(values: Mapping[str, Any], where: str) -> None:
    counts = ("devices", "images", "madds_total", "madds_largest")
    for key in (*counts, "parameters") if values.get("parameters") else counts:
        if type(values.get(key)) is not int or values[key] < 1:
            raise UserError(f"{where}: {key} is {values.get(key)!r}; it is a whole number of at least 1.")
        if values[key] > _MOST_COUNT:
            raise UserError(f"{where}: {key} has {len(str(values[key]))} digits; it is at most {_MOST_COUNT}.")


def _check_value(value: float, metric: Metric, where: str) -> None:
    # JSON has whole numbers that are too large for a float.
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise UserError(f"{where}: {metric.key} is {value}; it is a finite number.")
    if metric.unit == "%" and not 0 <= value <= 1:
        raise UserError(f"{where}: {metric.key} is {value}; it lies between 0 and 1.")


def _live(subsets: Any, devices: int, metric: Metric, where: str) -> dict[tuple[int, ...], float]:
    """The values by set of devices that answer, of `devices` in all."""
    malformed = UserError(f"{where}: live_subsets is not a list of devices and {metric.key}.")
    if not isinstance(subsets, list):
        raise malformed
    live: dict[tuple[int, ...], float] = {}
    for subset in subsets:
        answering = subset.get("devices") if isinstance(subset, dict) else None
        if not isinstance(answering, list) or type(subset.get(metric.key)) not in (int, float):
            raise malformed
        if not _is_ascending(answering, devices):
            legal = f"one or more from 0 to {devices - 1}, ascending"
            raise UserError(f"{where}: live_subsets has devices {answering}; they are {legal}.")
        if tuple(answering) in live:
            raise UserError(f"{where}: live_subsets has devices {answering} twice.")
        _check_value(subset[metric.key], metric, f"{where}: live_subsets, devices {answering}")
        live[tuple(answering)] = float(subset[metric.key])
    return live


def _is_ascending(answering: Sequence[Any], devices: int) -> bool:
    numbers = all(type(device) is int and 0 <= device < devices for device in answering)
    return bool(answering) and numbers and all(a < b for a, b in itertools.pairwise(answering))


def _sets(values: Mapping[str, Any], metric: str, where: str) -> dict[str, OfSet]:
    """The sets of test images among values by dotted key, as `sets.Set5.psnr_y`."""
    start, end = "sets.", f".{metric}"
    names = [key[len(start) : -len(end)] for key in values if key.startswith(start) and key.endswith(end)]
    sets = {}
    # A CSV has no text where a run was not measured on a set.
    for name in (name for name in names if values[f"{start}{name}{end}"] != ""):
        bicubic = values.get(f"bicubic.{start}{name}{end}", "")
        try:
            of_set = OfSet(
                images=int(values[f"{start}{name}.images"]),
                value=float(values[f"{start}{name}{end}"]),
                bicubic=None if bicubic == "" else float(bicubic),
            )
        except (TypeError, KeyError, ValueError):
            raise UserError(f"{where}: set {name!r} has no number of images or no {metric}.") from None
        if of_set.images < 1 or not math.isfinite(of_set.value) or not math.isfinite(of_set.bicubic or 0.0):
            raise UserError(f"{where}: set {name!r} has no image, or a {metric} that is not finite.")
        sets[name] = of_set
    return sets
