"""The program that carries on a list of runs: its processes, what it survives, and what it reports."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runs import results, run_list, schedule
from benchmarks.runs.run_list import ListedRun
from paradis_tf.records.workdir import Workdir

STUB = Path(__file__).parent / "stub_runs.py"
PROGRAMS = {stage: (sys.executable, "-S", str(STUB), stage) for stage in ("train", "evaluate")}
CONFIG = """
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({
        "seed": 0,
        "epochs": 2,
        "fault": "",
        "hold": False,
        "switches": ("1.0", "0.5+0.5"),
        "model": {"width": 1.0},
        "method": {"name": "paradis", "teacher": "", "live_weight": 0.0, "final_live_weight": 0.0, "live_sets": 4},
    })
"""


def load(folder: Path, entries: str) -> tuple[ListedRun, ...]:
    """The runs of a list, whose configs the stub finds beside the run folders."""
    (folder / "config.py").write_text(CONFIG)
    (folder / "list.toml").write_text(f'[defaults]\nconfig = "{folder / "config.py"}"\n{entries}')
    runs = run_list.load(folder / "list.toml")
    (folder / "runs").mkdir(exist_ok=True)
    for run in runs:
        (folder / "runs" / f"{run.name}.json").write_text(run.config.to_json())
    return runs


def carry_on(folder: Path, entries: str, parallel: int = 1) -> tuple[list[str], list[str]]:
    """(names of the runs that are not done, lines that were reported)."""
    lines: list[str] = []
    runs = load(folder, entries)
    failed = schedule.Scheduler(runs, folder / "runs", None, parallel, PROGRAMS, lines.append).carry_on()
    return failed, [line.split(" ", 1)[1] for line in lines]


def started(folder: Path) -> list[dict[str, Any]]:
    file = folder / "runs" / "started.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def stages(folder: Path) -> list[str]:
    return [f"{row['run'].removesuffix('_seed0')} {row['stage']}" for row in started(folder)]


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_every_run_is_trained_and_evaluated_once(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "a"\nseeds = [0, 1]\n[[runs]]\nname = "b"\n'
    failed, lines = carry_on(tmp_path, entries, parallel=2)
    assert failed == []
    names = ("a_seed0", "a_seed1", "b_seed0")
    assert sorted((row["run"], row["stage"]) for row in started(tmp_path)) == sorted(
        (name, stage) for name in names for stage in ("train", "evaluate")
    )
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert all(row["threads"] == [threads] * 2 for row in started(tmp_path))
    assert {f"{name} is done, 1.00 hours of training" for name in names} <= set(lines)
    rows = results.collect(load(tmp_path, entries), tmp_path / "runs")
    assert [(row["name"], row["switch"]) for row in rows[:2]] == [("a_seed0", "1.0"), ("a_seed0", "0.5+0.5")]
    before = started(tmp_path)
    assert carry_on(tmp_path, entries)[0] == [] and started(tmp_path) == before


PROGRAM = f"""
import sys
from benchmarks.runs import schedule
from benchmarks.runs import __main__ as runs
from paradis_tf.base import program
made = schedule.Scheduler
schedule.Scheduler = lambda *options: made(*options, programs={PROGRAMS!r})
program.run(runs.main)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    flags = [f"--list={folder / 'list.toml'}", f"--runs_dir={folder / 'runs'}", "--parallel=1"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_sigkill_of_the_program_ends_its_processes_and_the_next_start_carries_on(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "quick"\n[[runs]]\nname = "slow"\noverrides = {epochs = 4, hold = true}\n'
    load(tmp_path, entries)
    with start(tmp_path) as program:
        wait_until((tmp_path / "runs" / "held").exists, "the first epoch")
        children = [row["pid"] for row in started(tmp_path)]
        program.kill()
    wait_until(lambda: not any(alive(pid) for pid in children), "the end of its processes")
    with start(tmp_path) as program:
        output, errors = program.communicate(timeout=300)
    assert program.returncode == 0, output + errors
    assert stages(tmp_path) == ["quick train", "quick evaluate", "slow train", "slow train", "slow evaluate"]
    assert "quick_seed0 is done" in output and "slow_seed0: train from epoch 2 of 4" in output
    epochs = [row["epoch"] for row in Workdir(tmp_path / "runs" / "slow_seed0").metrics.rows()]
    assert epochs == [1, 2, 3, 4]
    with (tmp_path / "runs" / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_program_stops_its_processes(tmp_path: Path, number: signal.Signals, status: int) -> None:
    load(tmp_path, '[[runs]]\nname = "a"\noverrides = {hold = true}\n')
    with start(tmp_path) as program:
        wait_until((tmp_path / "runs" / "held").exists, "the first epoch")
        program.send_signal(number)
        output, errors = program.communicate(timeout=300)
    assert program.returncode == status
    wait_until(lambda: not alive(started(tmp_path)[0]["pid"]), "the end of its processes")
    assert "Traceback" not in output + errors
    assert "the same command carries each run on" in output


FAULTS = {
    "diverge": "ended with status 1: error: training has diverged",
    "die": "killed by signal 9: $ ",
    "no model": "train ended with status 0",
}


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.items(), ids=FAULTS.keys())
def test_a_failed_run_does_not_stop_the_others(tmp_path: Path, fault: str, sentence: str) -> None:
    failed, lines = carry_on(
        tmp_path, f'[[runs]]\nname = "bad"\noverrides.fault = "{fault}"\n[[runs]]\nname = "good"\n'
    )
    assert failed == ["bad_seed0"]
    assert any(line.startswith(f"bad_seed0 FAILED: {sentence}") for line in lines)
    assert stages(tmp_path)[-1] == "good evaluate"


def test_a_log_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "runs" / "logs" / "bad_seed0.log").mkdir(parents=True)
    failed, lines = carry_on(tmp_path, '[[runs]]\nname = "bad"\n[[runs]]\nname = "good"\n')
    assert failed == ["bad_seed0"]
    assert any("bad_seed0.log or its program cannot be opened: Is a directory" in line for line in lines)
    assert stages(tmp_path) == ["good train", "good evaluate"]


def test_the_folder_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    assert carry_on(tmp_path, '[[runs]]\nname = "a"\n')[0] == []
    failed, lines = carry_on(tmp_path, '[[runs]]\nname = "a"\noverrides.model.width = 0.5\n')
    assert failed == ["a_seed0"] and len(started(tmp_path)) == 2
    assert any("holds a run with config.model.width=1.0, and the list says 0.5" in line for line in lines)


def test_a_run_from_before_sets_of_live_devices_had_none(tmp_path: Path) -> None:
    without = '[[runs]]\nname = "a"\n'
    assert carry_on(tmp_path, without)[0] == []
    file = tmp_path / "runs" / "a_seed0" / "config.json"
    config = json.loads(file.read_text())
    config["method"] = {"name": "paradis", "teacher": ""}
    file.write_text(json.dumps(config))
    (run,) = load(tmp_path, without)
    assert schedule.read(run, tmp_path / "runs").complete
    (run,) = load(tmp_path, f"{without}overrides.method.live_weight = 1.0\n")
    assert "with config.method.live_weight=0.0, and the list says 1.0" in schedule.read(run, tmp_path / "runs").fault


def test_a_damaged_run_folder_is_refused_and_damaged_metrics_are_not(tmp_path: Path) -> None:
    (run,) = load(tmp_path, '[[runs]]\nname = "a"\n')
    assert carry_on(tmp_path, '[[runs]]\nname = "a"\n')[0] == []
    folder = tmp_path / "runs" / "a_seed0"
    (folder / "metrics.csv").write_text("x" * 200_000)
    (folder / "versions.json").write_text("[" * 99_999)
    assert schedule.read(run, tmp_path / "runs").complete
    assert len(results.collect([run], tmp_path / "runs")) == 2
    (folder / "config.json").write_text("[" * 99_999)
    assert "config.json is not JSON" in schedule.read(run, tmp_path / "runs").fault
    assert "config.json is not JSON" in schedule.render([run], tmp_path / "runs")


def test_an_evaluation_that_is_damaged_or_older_than_the_model_is_made_again(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "a"\n'
    assert carry_on(tmp_path, entries)[0] == []
    folder = tmp_path / "runs" / "a_seed0"
    (folder / "evaluation.json").write_text("[{")
    assert carry_on(tmp_path, entries)[0] == []
    os.utime(folder / "evaluation.json", (1, 1))
    assert carry_on(tmp_path, entries)[0] == []
    assert stages(tmp_path) == ["a train", "a evaluate", "a evaluate", "a evaluate"]


def test_a_run_waits_for_its_teacher(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "wide"\n[[runs]]\nname = "taught"\nteacher = "wide"\n[[runs]]\nname = "alone"\n'
    assert carry_on(tmp_path, entries, parallel=2)[0] == []
    order = stages(tmp_path)
    assert sorted(order[:2]) == ["alone train", "wide train"]
    assert order.index("taught train") > order.index("wide evaluate")


def test_a_run_without_its_teacher_is_given_up(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "wide"\noverrides = {fault = "diverge"}\n[[runs]]\nname = "taught"\nteacher = "wide"\n'
    failed, lines = carry_on(tmp_path, entries)
    assert failed == ["wide_seed0", "taught_seed0"]
    assert "taught_seed0 FAILED: its teacher wide_seed0 is not trained" in lines


def test_status(tmp_path: Path) -> None:
    assert carry_on(tmp_path, '[[runs]]\nname = "a"\n')[0] == []
    runs = load(tmp_path, '[[runs]]\nname = "a"\n[[runs]]\nname = "b"\n')
    table = schedule.render(runs, tmp_path / "runs").splitlines()
    assert [line.split() for line in table[2:4]] == [
        ["a_seed0", "2/2", "yes", "yes", "1.00"],
        ["b_seed0", "0/2", "no", "no", "0.00"],
    ]
    assert table[4:] == ["1 of 2 runs trained and evaluated"]


@pytest.mark.slow
def test_real_runs_end_in_a_table(tmp_path: Path) -> None:
    overrides = 'overrides = {epochs = 1, optimizer.warmup_epochs = 0.5, model.width_multiplier = 0.125, switches = ["'
    config = '[defaults]\nconfig = "paradis_tf/configs/digits_mobilenet_v1.py"\n[defaults.overrides]\nbatch_size = 64\n'
    entries = [
        f'[[runs]]\nname = "{n}"\n{overrides}{s}"]}}\n' for n, s in (("joint", '1.0", "0.5+0.5'), ("one", "0.5+0.5"))
    ]
    (tmp_path / "list.toml").write_text(config + "".join(entries))
    flags = [f"--list={tmp_path / 'list.toml'}", f"--runs_dir={tmp_path / 'runs'}", f"--results={tmp_path / 'r.csv'}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.runs", *flags], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["switch"], row["images"]) for row in rows] == [
        ("joint_seed0", "1.0", "359"),
        ("joint_seed0", "0.5+0.5", "359"),
        ("one_seed0", "0.5+0.5", "359"),
    ]
    assert all(0 <= float(row["accuracy"]) <= 1 and int(row["madds_total"]) > 0 for row in rows)
