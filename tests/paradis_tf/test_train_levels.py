"""Networks of levels from the config to the finished, evaluated and reported run, on a few tiny images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from fusion.base.program import UserError
from paradis_tf.records.workdir import Workdir
from paradis_tf.reports.lines import make_lines
from paradis_tf.reports.runs import read_folder
from paradis_tf.training import run as training
from tests.paradis_tf.tiny_config import config_of

pytestmark = pytest.mark.usefixtures("tiny_known")


def config_for(data: Path, method: str = "anytime", connectivity: str = "triangular") -> ConfigDict:
    config = config_of(data, method)
    config.epochs = 2
    config.connectivity = connectivity
    return config


def program(name: str, *flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.paradis_tf.tiny_config", name, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("method", "connectivity"), [("anytime", "triangular"), ("nested", "dense")])
def test_a_resumed_training_of_levels_ends_where_an_undisturbed_one_does(
    tiny_data: Path, tmp_path: Path, method: str, connectivity: str
) -> None:
    config = config_for(tiny_data, method, connectivity)
    whole = training.train(config, str(tmp_path / "whole"))
    parted = Workdir.open(shutil.copytree(whole.path, tmp_path / "parted"))
    parted.model_file.unlink()
    (parted.checkpoints / "epoch_0002.keras").unlink()
    training.train(config, str(parted.path))
    first, second = whole.load_model(), parted.load_model()
    assert [str(path) for path in first.paths] == ["level_1", "level_2", "level_3", "level_4"]
    for mine, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    names = {f"val_{kind}/level_{level}" for kind in ("loss", "accuracy") for level in (1, 2, 3, 4)}
    assert names <= whole.metrics.rows()[0].keys()


def test_a_diagonal_run_is_evaluated_and_reported(tiny_data: Path, tmp_path: Path) -> None:
    workdir = training.train(config_for(tiny_data, connectivity="diagonal"), str(tmp_path / "run"))
    done = program("paradis_tf.evaluate", f"--workdir={workdir.path}")
    assert done.returncode == 0, done.stderr
    rows = json.loads(workdir.evaluation_file.read_text())
    assert [(row["switch"], row["devices"]) for row in rows] == [(f"level_{level}", level) for level in (1, 2, 3, 4)]
    assert {subset["level"] for row in rows[1:] for subset in row["live_subsets"]} <= {1, 2, 3, 4}
    run = read_folder(str(workdir.path))
    assert [(row.switch, len(row.live)) for row in run.rows] == [(f"level_{k}", 2**k - 1) for k in (1, 2, 3, 4)]
    (line,) = make_lines([run])
    assert line.label == "anytime"
    done = program("export.convert", f"--workdir={workdir.path}", f"--bundle={tmp_path / 'bundle'}")
    assert done.returncode == 2
    assert "is a run of 4 levels; bundles are made of switches." in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"switches": ("1.0",)}, "this one gets switches 1.0 and 4 levels; leave one of them out"),
        ({"levels": 3}, "level 'level_1' does not fit: layer 'stem_conv' has 8 channels"),
        ({"levels": 65}, "levels is 65; it is a whole number from 1 to 64"),
        ({"levels": -1}, "levels is -1; it is a whole number from 1 to 64"),
        ({"levels": 0}, "connectivity is 'triangular', which is of levels, and levels is 0"),
        ({"connectivity": "square"}, "connectivity is 'square'; it is one of dense, triangular, diagonal"),
        ({"connectivity": "dense"}, "anytime: connectivity is 'dense'; it trains networks of 'triangular'"),
    ],
)
def test_networks_that_cannot_be_are_refused(
    tiny_data: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    config = config_for(tiny_data)
    config.update(changes)
    with pytest.raises(UserError) as error:
        training.train(config, str(tmp_path / "run"))
    assert sentence in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_older_than_levels_is_read(tiny_run: Path, tmp_path: Path) -> None:
    workdir = Workdir.open(shutil.copytree(tiny_run, tmp_path / "run"))
    config = workdir.config()
    del config["levels"], config["connectivity"]
    workdir.config_file.write_text(json.dumps(config))
    model, _ = training.load_run(workdir, None)
    assert [str(path) for path in model.paths] == ["1.0", "0.5+0.5"]


def test_a_model_of_other_paths_than_the_config_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    workdir = Workdir.open(shutil.copytree(tiny_run, tmp_path / "run"))
    config = {**workdir.config(), "switches": [], "levels": 4}
    workdir.config_file.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"has paths \['1.0', '0.5\+0.5'\]; the run's config and dataset give \['level_1"
    ):
        training.load_run(workdir, None)
