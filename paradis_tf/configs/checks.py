"""The check of a configuration that was read from a run folder, which anyone may have edited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fusion.base.program import UserError
from paradis_tf.configs import defaults

# What to do with a run folder that this version of the program cannot take.
OTHER_VERSION = (
    "Another version of the program made the run, or the file was edited: use the run with the version that made it, "
    "or train it again in a new folder."
)
# Tables whose options depend on their `name`; whoever makes the object checks them.
_NAMED = ("model", "method")
# Keys that older runs lack; they have the defaults of a network of switches.
_NEWER = ("levels", "connectivity")


def check_types(config: Mapping[str, Any], where: object) -> None:
    """Raises UserError, naming the key and `where` it stands, unless values have the JSON types of the defaults.

    Args:
      config: as `config.json` of a run folder; keys of the tables may be missing, as in a run that is older than them.
      where: the file it was read from.
    """
    known = json.loads(defaults.get_config().to_json())
    dataset = config.get("dataset")
    if isinstance(dataset, Mapping) and dataset.get("name") == "sr":
        known = json.loads(defaults.get_super_resolution_config().to_json())
    for key, like in known.items():
        if key in _NEWER and key not in config:
            continue
        if key not in config:
            raise UserError(f"{where} lacks {key!r}. {OTHER_VERSION}")
        _check(config[key], like, key, where)
        if isinstance(like, dict):
            if "name" in like and "name" not in config[key]:
                raise UserError(f"{where} lacks 'name' of {key}. {OTHER_VERSION}")
            unknown = () if key in _NAMED else sorted(config[key].keys() - like.keys())
            if unknown:
                raise UserError(f"{where}: {key} has {', '.join(unknown)}; it takes {', '.join(like)}. {OTHER_VERSION}")
            for option in ("name",) if key in _NAMED else like:
                if option in config[key]:
                    _check(config[key][option], like[option], f"{key}.{option}", where)


def _check(value: Any, like: Any, name: str, where: object) -> None:
    types = (int, float) if isinstance(like, float) else (type(like),)
    if type(value) not in types:
        raise UserError(f"{where}: {name!r} is {value!r}; it is written like {like!r}.")
    if isinstance(like, list) and like and not all(type(element) is type(like[0]) for element in value):
        raise UserError(f"{where}: {name!r} is {value!r}; its elements are written like {like[0]!r}.")
