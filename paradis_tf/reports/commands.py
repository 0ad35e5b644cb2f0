"""The command that trains a run again."""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import re
import shlex
from collections.abc import Mapping
from typing import Any

from fusion.base.program import UserError
from paradis_tf import configs
from paradis_tf.records.workdir import flat
from paradis_tf.reports.runs import Run


def command(run: Run) -> str:
    """What trains a run again: the experiment's file that is nearest to its config, and what differs from it.

    A run that was read from a CSV has the command that stands there, or none.
    """
    if run.config is None:
        return run.command
    config = flat(run.config, "")
    changes = [(name, _changed(config, base)) for name, base in _experiments(run.method)]
    fitting = [(name, changed) for name, changed in changes if changed is not None]
    if not fitting:
        return ""
    name, changed = min(fitting, key=lambda one: len(one[1]))
    flags = [f"--config=paradis_tf/configs/{name}.py:{run.method}"]
    for key, value in changed.items():
        flags.append(f"--config.{key}={tuple(value) if isinstance(value, list) else value}")
    flags.append(f"--workdir={run.where}")
    return "python -m paradis_tf.train " + " \\\n    ".join(_quoted(flag) for flag in flags)


@functools.cache
def _experiments(method: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The files of `paradis_tf/configs`, and their values by dotted key for a method; the defaults first."""
    found = []
    names = [module.name for module in pkgutil.iter_modules(configs.__path__)]
    for name in sorted(names, key=lambda one: (one != "defaults", one)):
        module = importlib.import_module(f"{configs.__name__}.{name}")
        if hasattr(module, "get_config"):
            try:
                found.append((name, flat(json.loads(module.get_config(method).to_json()), "")))
            except UserError:
                continue
    return tuple(found)


def _changed(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any] | None:
    """What differs from an experiment; None if it lacks a key, which no flag could add."""
    if not config.keys() <= base.keys():
        return None
    return {key: value for key, value in config.items() if base[key] != value}


def _quoted(flag: str) -> str:
    # Double quotes around the single ones of Python's texts are easier on the eye than what shlex makes of them.
    return f'"{flag}"' if "'" in flag and not re.search(r'["$`\\!]', flag) else shlex.quote(flag)
