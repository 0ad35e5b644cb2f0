"""A list of runs: a TOML file of entries, each trained once per seed.

    [defaults]                       # what every entry has unless it says otherwise
    config = "paradis_tf/configs/cifar10_mobilenet_v1.py"
    seeds = [0, 1, 2]
    overrides = {epochs = 30}        # values of the config, as --config.epochs=30

    [[runs]]
    name = "individual_4x0.25"       # its run folders are individual_4x0.25_seed0, ..._seed1, ..._seed2
    method = "individual"            # what the results call it; the name if it is left out
    config = "paradis_tf/configs/cifar10_mobilenet_v1.py:individual"
    overrides = {switches = ["4x0.25"], model.width_multiplier = 0.5}

The configs' paths are relative to the folder the program is started in, as those of --config are. An entry's
overrides are added to those of the defaults. With `teacher = "individual_1.0"` an entry's runs wait for that entry's
run of the same seed, whose folder becomes their `method.teacher`.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fusion.base.files import text_of
from fusion.base.paths import expand
from fusion.base.program import UserError
from paradis_tf.base import program

# With a seed and an ending it names folders and files, which may have 255 letters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_MOST_SEED = 2**31 - 2
_DEFAULTS = ("config", "seeds", "overrides")
_ENTRY = ("name", "method", "teacher", *_DEFAULTS)
_TEACHER_KEY = "method.teacher"


@dataclass(frozen=True)
class ListedRun:
    """One training: an entry of the list with one of its seeds.

    Attributes:
      entry: the entry's name.
      method: what the results call the way it is trained.
      seed: 0 or more.
      config_file: as --config takes it, `FILE.py` or `FILE.py:METHOD`.
      overrides: values of the config by dotted key; arrays are tuples.
      config: the configuration that these give.
      teacher: the name of the run that has to be trained before it, or nothing.
    """

    entry: str
    method: str
    seed: int
    config_file: str
    overrides: Mapping[str, Any]
    config: ConfigDict
    teacher: str = ""

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return run_name(self.entry, self.seed)

    def train_flags(self) -> list[str]:
        """The flags of `paradis_tf.train`, but for --workdir and --data_dir."""
        values = {"seed": self.seed, **self.overrides}
        return [f"--config={self.config_file}", *(f"--config.{key}={_flag(value)}" for key, value in values.items())]


def run_name(entry: str, seed: int) -> str:
    """The name of the run folder of an entry's run."""
    return f"{entry}_seed{seed}"


def load(path: str | Path, runs_dir: str | Path = "runs") -> tuple[ListedRun, ...]:
    """The runs of a list, in its order, an entry's seeds beside each other.

    Args:
      path: the list.
      runs_dir: where the run folders are, among them those of teachers.

    Raises:
      UserError: the file cannot be read or is no list of runs; an entry has an unknown or missing key, a value of
        another type, a name that is taken, a config that is missing, an override that it does not take, or a teacher
        that is no entry before it with the same seeds.
    """
    where = f"list {str(path)!r}"
    defaults, entries = _tables(path, where)
    shared = f"[defaults] of {where}"
    _check_keys(shared, defaults, _DEFAULTS)
    shared_overrides = _flat(shared, defaults.get("overrides", {}))
    runs: list[ListedRun] = []
    for number, entry in enumerate(entries, 1):
        place = f"entry {entry.get('name', number)!r} of {where}"
        _check_keys(place, entry, _ENTRY)
        overrides = shared_overrides | _flat(place, entry.get("overrides", {}))
        new = _runs(place, {**defaults, **entry, "overrides": overrides}, Path(runs_dir))
        if any(run.entry == new[0].entry for run in runs):
            raise UserError(f"{place}: the name is taken by an entry before it; each has its own.")
        known = {run.name for run in runs}
        for run in new:
            if run.teacher and run.teacher not in known:
                raise UserError(f"{place}: its teacher {run.teacher!r} is no run of an entry before it.")
        runs += new
    return tuple(runs)


def _tables(path: str | Path, where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The defaults and the entries of a list."""
    try:
        tables = tomllib.loads(text_of(Path(path).read_bytes(), where))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}.") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # also numbers and arrays that Python has no room for
        raise UserError(f"{where} is not TOML: {error}.") from None
    _check_keys(where, tables, ("defaults", "runs"))
    defaults, entries = tables.get("defaults", {}), tables.get("runs", [])
    if not isinstance(defaults, dict):
        raise UserError(f"{where}: defaults is {defaults!r}; it is a table.")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{where} names no runs; it has one [[runs]] table each.")
    return defaults, entries


def _runs(place: str, entry: dict[str, Any], runs_dir: Path) -> list[ListedRun]:
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"{place}: name is {name!r}; it is letters, digits, '.', '_', '+' and '-', 200 at most, a letter first."
        )
    texts: dict[str, Any] = {"method": name, "config": None}
    texts |= {key: entry[key] for key in ("method", "config", "teacher") if key in entry}
    for key, value in texts.items():
        if not isinstance(value, str) or not value:
            raise UserError(f"{place}: {key} is {value!r}; it is a string.")
    seeds = _seeds(place, entry.get("seeds", [0]))
    file = expand(entry["config"])
    if not Path(file.partition(":")[0]).is_file():
        raise UserError(f"{place}: config file {file.partition(':')[0]!r} does not exist.")
    runs = []
    for seed in seeds:
        overrides, teacher = entry["overrides"], ""
        if "teacher" in entry:
            teacher = run_name(entry["teacher"], seed)
            overrides = {**overrides, _TEACHER_KEY: str(runs_dir / teacher)}
        config = _config(place, file, overrides, seed)
        runs.append(ListedRun(name, texts["method"], seed, file, overrides, config, teacher))
    return runs


def _seeds(place: str, seeds: Any) -> list[int]:
    good = isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed <= _MOST_SEED for seed in seeds)
    if not good or len(set(seeds)) < len(seeds):
        raise UserError(f"{place}: seeds is {seeds!r}; it is a list of different whole numbers, 0 to {_MOST_SEED}.")
    return list(seeds)


def _config(place: str, file: str, overrides: dict[str, Any], seed: int) -> ConfigDict:
    try:
        config = program.load_config(file)
        for key in overrides:
            if key == "seed":
                raise UserError("overrides has 'seed'; give seeds, one run each.")
            program.check_key(key, config)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    config.lock()
    for key, value in overrides.items():
        old = _value(config, key)
        if isinstance(old, ConfigDict):
            raise UserError(f"{place}: override {key} is {value!r}; the config has a table there, of {', '.join(old)}.")
        # A flag of a bool, an int or a list would refuse what an assignment lets pass.
        same = isinstance(value, bool) == isinstance(old, bool) and not isinstance(old, list)
        try:
            if not same:
                raise TypeError
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError, KeyError):
            raise UserError(f"{place}: override {key} is {value!r}; the config has {old!r} there.") from None
    config.seed = seed
    return config


def _value(config: ConfigDict, dotted: str) -> Any:
    value: Any = config
    for key in dotted.split("."):
        value = value[key]
    return value


def _check_keys(place: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{place} has the key {key!r}; it takes {', '.join(known)}.")


def _flat(place: str, table: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, whether the file nests them or quotes the dots."""
    if not isinstance(table, dict):
        raise UserError(f"{place}: overrides is {table!r}; it is a table of config values.")
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        flat |= _flat(place, value, f"{name}.") if isinstance(value, dict) else {name: _checked(place, name, value)}
    return flat


def _checked(place: str, key: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_checked(place, key, item) for item in value)
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise UserError(f"{place}: override {key} is {value!r}; it is a number, a string, true, false or a list of them.")


def _flag(value: Any) -> str:
    """As the --config flags parse it: tuples are Python literals, here with quotes that a shell line can hold."""
    return value if isinstance(value, str) else _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({''.join(f'{_literal(item)},' for item in value)})"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
