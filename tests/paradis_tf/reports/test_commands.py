"""The command of a run gives its config again, whatever experiment it began from."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from typing import Any

import pytest

from paradis_tf.reports.commands import command
from paradis_tf.reports.runs import Run

# The config that flags give, as `paradis_tf.train` reads them.
_PARSED = """
from paradis_tf.base import program
holder = program.define_config("")
program.run(lambda argv: print(program.config_of(holder).to_json()))
"""


def run_of(method: str, config: dict[str, Any] | None, made_by: str = "") -> Run:
    return Run("runs/a b", "a b", method, 0, 1, "accuracy", "", {}, (), config=config, command=made_by)


@pytest.mark.parametrize(
    ("name", "method", "changes"),
    [
        ("cifar10_mobilenet_v1", "us_slimmable", {}),
        ("cifar10_resnet", "individual", {"switches": ["4x0.25"], "seed": 3}),
        ("wdsr_x2", "paradis", {"epochs": 7}),
        ("defaults", "slimmable", {"precision": "mixed_float16"}),
    ],
)
def test_it_gives_the_config_again(name: str, method: str, changes: dict[str, Any]) -> None:
    module = importlib.import_module(f"paradis_tf.configs.{name}")
    config = json.loads(module.get_config(method).to_json()) | changes
    text = command(run_of(method, config))
    python, module_flag, program, *flags = shlex.split(text.replace("\\\n", ""))
    assert (python, module_flag, program) == ("python", "-m", "paradis_tf.train")
    assert flags[0] == f"--config=paradis_tf/configs/{name}.py:{method}"
    assert len(flags) == 2 + len(changes)
    assert flags.pop() == "--workdir=runs/a b"
    done = subprocess.run([sys.executable, "-c", _PARSED, *flags], capture_output=True, text=True)
    assert json.loads(done.stdout) == config, done.stderr


def test_a_row_of_a_table_has_the_command_that_stands_there() -> None:
    assert command(run_of("paradis", None, "python make.py")) == "python make.py"


def test_a_key_that_no_experiment_has_cannot_be_given() -> None:
    config = json.loads(importlib.import_module("paradis_tf.configs.defaults").get_config("paradis").to_json())
    assert command(run_of("paradis", config | {"new": 1})) == ""
