"""A run and the bundle cut from it, made once for all tests of the export side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from paradis_tf.configs import digits_mobilenet_v1
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet
from paradis_tf.training import run as training

SWITCHES = ("1.0", "0.5+0.25+0.25")
_MADE = ("--name=digits", "--quantization=ptq")


class Exported(NamedTuple):
    """A run folder, its model, a bundle of it in both precisions, and the flags that decide its int8 files."""

    workdir: Path
    model: Supernet
    bundle: Path
    made: tuple[str, ...]


@pytest.fixture(scope="session")
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of the project as its user does."""

    def run(module: str, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, Supernet]]:
    """Makes the folder of a run that has trained a narrow network for a moment."""

    def make(seed: int) -> tuple[Path, Supernet]:
        config = digits_mobilenet_v1.get_config()
        config.update_from_flattened_dict(
            {"seed": seed, "switches": SWITCHES, "model.width_multiplier": 0.25, "epochs": 4, "batch_size": 64}
        )
        folder = tmp_path_factory.mktemp("exported") / "run"
        workdir: Workdir = training.train(config, str(folder))
        return folder, workdir.load_model()

    return make


@pytest.fixture(scope="session")
def exported(
    make_run: Callable[[int], tuple[Path, Supernet]], run_program: Callable[..., subprocess.CompletedProcess[str]]
) -> Exported:
    folder, model = make_run(0)
    bundle = folder.parent / "bundle"
    done = run_program(
        "export.convert",
        f"--workdir={folder}",
        f"--bundle={bundle}",
        "--precision=int8,float32",
        *_MADE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((bundle / "manifest.json").read_text())["name"] == "digits"
    return Exported(folder, model, bundle, _MADE)
