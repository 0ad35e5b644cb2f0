"""Evaluated runs of run folders, and the check that runs can stand in one report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fusion.base.program import UserError
from paradis_tf.base.files import file_sha256, read_json
from paradis_tf.configs.checks import check_types
from paradis_tf.records.workdir import Workdir, flat
from paradis_tf.switches import parse_switches
from paradis_tf.tasks.metrics import metric_of

# What methods are called in pictures and tables.
TITLES = {
    "paradis": "ParaDiS",
    "individual": "individual networks",
    "slimmable": "slimmable",
    "us_slimmable": "universally slimmable",
}
# What a report's runs have in common: the tables of these names, but not how much is held out of training.
_COMMON = ("config.dataset.", "config.model.")
# Beyond it a float cannot tell neighbours apart; no network comes near.
_MOST_COUNT = 2**53
_OWN = ("config.dataset.validation_fraction",)


@dataclass(frozen=True)
class OfSet:
    """What a switch has on one set of test images, and bicubic enlargement, where that is told."""

    images: int
    value: float
    bicubic: float | None


@dataclass(frozen=True)
class Row:
    """One switch of a run: its value, in the unit of evaluation, and its costs per image.

    Attributes:
      live: by set of devices that answer, the value; empty where it was not measured.
      sets: by set of test images, of tasks that tell them apart.
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
      identity: what all runs of a report have in common, by what it is called.
      label: what the user calls the line; empty for none.
      config: the resolved config; None from a CSV.
      command: that makes it again; empty where it is not told.
      versions: of the packages that made it, where they are told.
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


def read_folder(path: str, label: str = "") -> Run:
    """The run of a folder.

    Raises:
      UserError: it is not finished, not evaluated, or evaluated before its model was last written.
    """
    workdir = Workdir.open(path)
    config = workdir.config()
    check_types(config, workdir.config_file)
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
    metric = rows[0].get("metric", "accuracy")
    try:
        measured = tuple(make_row(row, str(workdir.evaluation_file), metric) for row in rows)
    except UserError as error:
        raise UserError(
            f"{error} Another version of the program may have written it; run paradis_tf.evaluate again."
        ) from None
    return Run(
        where=str(workdir.path),
        name=workdir.path.resolve().name,
        method=config["method"]["name"],
        seed=config["seed"],
        epochs=config["epochs"],
        metric=metric,
        line=json.dumps(same, sort_keys=True),
        identity=identity_of({f"config.{key}": value for key, value in flat(config, "").items()}),
        rows=measured,
        label=label,
        config=config,
        versions=read_json(workdir.path / "versions.json"),
    )


def identity_of(values: Mapping[str, Any]) -> dict[str, str]:
    """What a run has in common with all others of a report, from its config by dotted key, as text."""
    told = {
        "dataset": values.get("dataset") or values.get("config.dataset.name"),
        "architecture": values.get("architecture") or values.get("config.model.name"),
        **{key: value for key, value in values.items() if key.startswith(_COMMON) and key not in _OWN},
    }
    # As benchmarks.runs writes lists.
    texts = {
        k: " ".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for k, v in told.items() if v is not None
    }
    return {key: text for key, text in texts.items() if text}


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


def make_row(values: Mapping[str, Any], where: str, metric: str) -> Row:
    """A `Row` of the values of an evaluated switch.

    Raises:
      UserError: a value is missing or malformed; `where` it stands is named.
    """
    if not isinstance(values.get("switch"), str) or not values["switch"].strip():
        raise UserError(f"{where}: switch is {values.get('switch')!r}; it is a switch's text form.")
    counts = ("devices", "images", "madds_total", "madds_largest")
    for key in (*counts, "parameters") if values.get("parameters") else counts:
        if type(values.get(key)) is not int or values[key] < 1:
            raise UserError(f"{where}: {key} is {values.get(key)!r}; it is a whole number of at least 1.")
        if values[key] > _MOST_COUNT:
            raise UserError(f"{where}: {key} has {len(str(values[key]))} digits; it is at most {_MOST_COUNT}.")
    found = metric_of({**values, "metric": metric}, where)
    if not math.isfinite(values[found.key]):
        raise UserError(f"{where}: {found.key} is {values[found.key]}; it is a finite number.")
    if found.unit == "%" and not 0 <= values[found.key] <= 1:
        raise UserError(f"{where}: {found.key} is {values[found.key]}; it lies between 0 and 1.")
    try:
        subsets = values.get("live_subsets") or ()
        live = {tuple(map(int, subset["devices"])): float(subset[found.key]) for subset in subsets}
    except (TypeError, KeyError, ValueError, AttributeError):
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
        sets=_sets(values, found.key, where),
    )


def _sets(values: Mapping[str, Any], key: str, where: str) -> dict[str, OfSet]:
    """Of nested values, as an evaluation has them, or of flat ones as a CSV has: `sets.Set5.psnr_y`."""
    told = {name: value for name, value in flat(values, "").items() if value != ""}
    start, end = "sets.", f".{key}"
    found = {}
    for name in (n[len(start) : -len(end)] for n in told if n.startswith(start) and n.endswith(end)):
        bicubic = f"bicubic.{start}{name}{end}"
        try:
            of_set = OfSet(
                images=int(told[f"{start}{name}.images"]),
                value=float(told[f"{start}{name}{end}"]),
                bicubic=float(told[bicubic]) if bicubic in told else None,
            )
        except (TypeError, KeyError, ValueError):
            raise UserError(f"{where}: set {name!r} has no number of images or no {key}.") from None
        if of_set.images < 1 or not all(math.isfinite(one) for one in (of_set.value, of_set.bicubic or 0.0)):
            raise UserError(f"{where}: set {name!r} has no image, or a {key} that is not finite.")
        found[name] = of_set
    return found
