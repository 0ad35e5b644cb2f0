"""The results of a list from run folders that are written by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runs import results, run_list
from fusion.base.program import UserError
from paradis_tf.records.workdir import Workdir
from paradis_tf.reports.results import read_csv

LIST = """
[defaults]
config = "paradis_tf/configs/digits_mobilenet_v1.py:individual"
seeds = [0, 1]
overrides = {optimizer.learning_rate = 0.05}
[[runs]]
name = "joint"
method = "ParaDiS"
config = "paradis_tf/configs/digits_mobilenet_v1.py"
[[runs]]
name = "one"
method = "individual"
overrides = {switches = ["1.0"]}
[[runs]]
name = "four"
method = "individual"
overrides = {switches = ["4x0.25"]}
"""
ACCURACIES = {
    "joint_seed0": {"1.0": 0.9, "4x0.25": 0.8},
    "joint_seed1": {"1.0": 0.92, "4x0.25": 0.86},
    "four_seed1": {"4x0.25": 0.75},
}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[run_list.ListedRun, ...]:
    (tmp_path / "list.toml").write_text(LIST)
    loaded = run_list.load(tmp_path / "list.toml")
    for run in loaded:
        if run.name in ACCURACIES:
            workdir = Workdir.create(tmp_path / run.name, run.config)
            workdir.metrics.append({"epoch": 1, "seconds": 5400.0})
            workdir.model_file.write_text("model")
            write_evaluation(workdir, ACCURACIES[run.name])
    return loaded


def write_evaluation(workdir: Workdir, accuracies: dict[str, float], **more: Any) -> None:
    rows = [
        {"model_id": "x", "switch": switch, "devices": 1, "images": 50, "accuracy": value, "madds_total": 7, **more}
        for switch, value in accuracies.items()
    ]
    workdir.evaluation_file.write_text(json.dumps(rows))


def test_a_row_per_switch_with_its_conditions(runs: tuple[run_list.ListedRun, ...], tmp_path: Path) -> None:
    results.write(tmp_path / "out.csv", results.collect(runs, tmp_path))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["switch"], row["accuracy"]) for row in rows] == [
        ("joint_seed0", "1.0", "0.9"),
        ("joint_seed0", "4x0.25", "0.8"),
        ("joint_seed1", "1.0", "0.92"),
        ("joint_seed1", "4x0.25", "0.86"),
        ("four_seed1", "4x0.25", "0.75"),
    ]
    last = rows[-1]
    assert (last["method"], last["seed"], last["epochs"], last["madds_total"]) == ("individual", "1", "60", "7")
    assert (last["config.optimizer.learning_rate"], last["config.model.form"]) == ("0.05", "32")
    assert (last["training_hours"], last["version.keras"][:2]) == ("1.5", "3.")
    assert last["command"] == (
        "python -m paradis_tf.train --config=paradis_tf/configs/digits_mobilenet_v1.py:individual --config.seed=1 "
        f"--config.optimizer.learning_rate=0.05 '--config.switches=(\"4x0.25\",)' --workdir={tmp_path}/four_seed1"
    )
    first = (tmp_path / "out.csv").read_bytes()
    results.write(tmp_path / "out.csv", results.collect(runs, tmp_path))
    assert (tmp_path / "out.csv").read_bytes() == first
    assert not list(tmp_path.glob("*.part"))


def test_sets_of_images_and_bicubic_have_columns(runs: tuple[run_list.ListedRun, ...], tmp_path: Path) -> None:
    sets = {"Set5": {"images": 5, "psnr_y": 36.5}}
    bicubic = {"psnr_y": 33.0, "sets": {"Set5": {"images": 5, "psnr_y": 33.7}}}
    write_evaluation(Workdir(tmp_path / "four_seed1"), ACCURACIES["four_seed1"], sets=sets, bicubic=bicubic)
    last = results.collect(runs, tmp_path)[-1]
    assert (last["sets.Set5.psnr_y"], last["bicubic.sets.Set5.psnr_y"], last["bicubic.psnr_y"]) == (36.5, 33.7, 33.0)


def test_sets_of_live_devices_are_read_back(runs: tuple[run_list.ListedRun, ...], tmp_path: Path) -> None:
    live = [{"devices": [0, 1], "accuracy": 0.75}, {"devices": [0], "accuracy": 0.5}, {"devices": [1], "accuracy": 0.3}]
    more = {"devices": 2, "metric": "accuracy", "madds_largest": 4, "parameters": 9}
    write_evaluation(Workdir(tmp_path / "four_seed1"), {"4x0.25": 0.75}, live_subsets=live, **more)
    rows = [row for row in results.collect(runs, tmp_path) if row["name"] == "four_seed1"]
    results.write(tmp_path / "out.csv", rows)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [json.loads(row["live_subsets"]) for row in csv.DictReader(file)] == [live]
    [run] = read_csv(str(tmp_path / "out.csv"))
    assert run.rows[0].live == {(0, 1): 0.75, (0,): 0.5, (1,): 0.3}


def test_other_measures_are_taken_as_they_are(runs: tuple[run_list.ListedRun, ...], tmp_path: Path) -> None:
    for name in ACCURACIES:
        more = {"top5": 0.99, "parameters": 11, "top2": None, "confusion": [[1]]}
        write_evaluation(Workdir(tmp_path / name), ACCURACIES[name], **more)
    rows = results.collect(runs, tmp_path)
    assert (rows[0]["top5"], rows[0]["parameters"]) == (0.99, 11)
    assert "confusion" not in rows[0] and "top2" not in rows[0]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="out.csv.* cannot be written"):
        results.write(tmp_path / "out.csv", [{"a": 1}])
