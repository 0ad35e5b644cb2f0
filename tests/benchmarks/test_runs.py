"""The program that carries on a list of runs: its processes, what it survives, and what it reports."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.runs import run_list, schedule, state
from fusion.base.program import UserError
from paradis_tf.records.workdir import Workdir

sys.path.insert(0, str(Path(__file__).parent))
from stub_runs import CONFIG  # noqa: E402  its folder is no package

STUB = Path(__file__).parent / "stub_runs.py"


def make_list(folder: Path, entries: str) -> Path:
    (folder / "config.py").write_text(CONFIG)
    (folder / "list.toml").write_text(f'[defaults]\nconfig = "{folder / "config.py"}"\n{entries}')
    return folder / "list.toml"


def command(folder: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, str(STUB), "program", f"--list={folder / 'list.toml'}", f"--runs_dir={folder / 'runs'}"),
        *(flags or ("--parallel=2",)),
    ]


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.run(command(folder, *flags), capture_output=True, text=True, timeout=60, env=environment)


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    pipe = subprocess.PIPE
    return subprocess.Popen(command(folder, *flags), stdout=pipe, stderr=pipe, text=True, env=environment)


def started(folder: Path) -> list[dict[str, Any]]:
    file = folder / "runs" / "started.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_until(true: Any, what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def summary(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "results_summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


several = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


@several
def test_every_run_is_trained_and_evaluated_once_on_cores_of_its_own(tmp_path: Path) -> None:
    make_list(tmp_path, '[[runs]]\nname = "a"\nseeds = [0, 1]\n[[runs]]\nname = "b"\n')
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    found = started(tmp_path)
    assert sorted((row["run"], row["stage"]) for row in found) == sorted(
        (name, stage) for name in ("a_seed0", "a_seed1", "b_seed0") for stage in ("train", "evaluate")
    )
    cores = {row["run"]: set(row["cores"]) for row in found}
    usable = os.sched_getaffinity(0)
    assert cores["a_seed0"] & cores["a_seed1"] == set()
    assert cores["a_seed0"] | cores["a_seed1"] == usable
    assert all(row["threads"] == [str(len(row["cores"]))] * 2 for row in found)
    assert "50.00 ± 0.00 (2)" in done.stdout
    assert [(row["entry"], row["switch"], row["n"]) for row in summary(tmp_path)] == [
        ("a", "1.0", "2"),
        ("a", "0.5+0.5", "2"),
        ("b", "1.0", "1"),
        ("b", "0.5+0.5", "1"),
    ]
    again = run(tmp_path)
    assert again.returncode == 0
    assert started(tmp_path) == found


def test_sigkill_of_the_program_ends_its_processes_and_the_next_start_carries_on(tmp_path: Path) -> None:
    make_list(
        tmp_path,
        '[[runs]]\nname = "quick"\n[[runs]]\nname = "slow"\noverrides = {epochs = 12, pause = 0.25}\n'
        '[[runs]]\nname = "last"\n',
    )
    runs = tmp_path / "runs"
    with start(tmp_path, "--parallel=1") as program:
        wait_until((runs / "slow_seed0" / "checkpoints" / "epoch_0002.keras").exists, "the second epoch")
        children = [row["pid"] for row in started(tmp_path)]
        program.kill()
    again = start(tmp_path, "--parallel=1")
    output, errors = again.communicate(timeout=60)
    assert again.returncode == 0, output + errors
    assert not any(alive(pid) for pid in children)
    stages = [(row["run"].removesuffix("_seed0"), row["stage"]) for row in started(tmp_path)]
    assert stages == [
        ("quick", "train"),
        ("quick", "evaluate"),
        ("slow", "train"),
        ("slow", "train"),
        ("slow", "evaluate"),
        ("last", "train"),
        ("last", "evaluate"),
    ]
    assert "quick_seed0 is done" in output
    resumed = next(line for line in output.splitlines() if "slow_seed0: training from epoch" in line)
    assert int(resumed.split("epoch ")[1].split()[0]) >= 3
    with (runs / "slow_seed0" / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(1, 13)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_program_stops_its_processes(tmp_path: Path, number: signal.Signals, status: int) -> None:
    make_list(tmp_path, '[[runs]]\nname = "a"\noverrides = {epochs = 100, pause = 0.2}\n')
    with start(tmp_path, "--parallel=1") as program:
        wait_until((tmp_path / "runs/a_seed0/checkpoints/epoch_0001.keras").exists, "the first epoch")
        began = time.monotonic()
        program.send_signal(number)
        output, errors = program.communicate(timeout=30)
    assert program.returncode == status
    assert time.monotonic() - began < 8
    assert not alive(started(tmp_path)[0]["pid"])
    assert "Traceback" not in output + errors
    assert ("the same command carries each run on" in output) == (number == signal.SIGINT)
    assert "terminated" in (tmp_path / "runs/logs/a_seed0.log").read_text()


FAULTS = {
    "diverge": "ended with status 2: error: training has diverged",
    "die": "killed by signal 9: $ ",
    "no model": "ended with status 0",
}


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.items(), ids=FAULTS.keys())
def test_a_failed_run_does_not_stop_the_others(tmp_path: Path, fault: str, sentence: str) -> None:
    make_list(tmp_path, f'[[runs]]\nname = "bad"\noverrides.fault = "{fault}"\n[[runs]]\nname = "good"\n')
    done = run(tmp_path, "--parallel=1")
    assert done.returncode == 1
    assert f"bad_seed0 FAILED: {sentence}" in done.stdout
    assert "1 of 2 runs are not done: bad_seed0" in done.stdout
    assert {row["entry"] for row in summary(tmp_path)} == {"good"}
    assert "Traceback" not in done.stdout + done.stderr


def test_a_log_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    make_list(tmp_path, '[[runs]]\nname = "bad"\n[[runs]]\nname = "good"\n')
    (tmp_path / "runs" / "logs" / "bad_seed0.log").mkdir(parents=True)
    done = run(tmp_path, "--parallel=1")
    assert done.returncode == 1
    assert "bad_seed0.log or its program cannot be opened: Is a directory" in done.stdout
    assert {row["entry"] for row in summary(tmp_path)} == {"good"}


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_LET_GO_S", 0.3)
    (only,) = run_list.load(make_list(tmp_path, '[[runs]]\nname = "a"\n'))
    workdir = Workdir.create(tmp_path / "runs" / "a_seed0", only.config)
    said: list[str] = []
    with workdir.locked():
        scheduler = schedule.Scheduler([only], tmp_path / "runs", None, [0], 1, report=said.append)
        assert scheduler.carry_on() == ["a_seed0"]
        assert state.read(only, tmp_path / "runs").in_use
    assert len(said) == 1 and "is in use by another training" in said[0]
    assert not state.read(only, tmp_path / "runs").in_use


def test_the_folder_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    make_list(tmp_path, '[[runs]]\nname = "a"\n')
    assert run(tmp_path, "--parallel=1").returncode == 0
    make_list(tmp_path, '[[runs]]\nname = "a"\noverrides.model.width = 0.5\n')
    done = run(tmp_path, "--parallel=1")
    assert done.returncode == 1
    assert "holds a run with config.model.width=1.0, and the list says 0.5" in done.stdout
    assert len(started(tmp_path)) == 2


def test_damaged_files_beside_the_model_cost_no_more_than_their_content(tmp_path: Path) -> None:
    make_list(tmp_path, '[[runs]]\nname = "a"\n')
    assert run(tmp_path, "--parallel=1").returncode == 0
    folder = tmp_path / "runs" / "a_seed0"
    (folder / "metrics.csv").write_text("x" * 200_000)
    (folder / "versions.json").write_text("[" * 99_999)
    done = run(tmp_path, "--parallel=1")
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "config.json").write_text("[" * 99_999)
    done = run(tmp_path, "--status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "config.json is not JSON" in done.stdout


def test_an_evaluation_that_is_damaged_or_older_than_the_model_is_made_again(tmp_path: Path) -> None:
    make_list(tmp_path, '[[runs]]\nname = "a"\n')
    assert run(tmp_path, "--parallel=1").returncode == 0
    folder = tmp_path / "runs" / "a_seed0"
    (folder / "evaluation.json").write_text("[{")
    assert run(tmp_path, "--parallel=1").returncode == 0
    os.utime(folder / "model.keras", (time.time() + 5, time.time() + 5))
    (only,) = run_list.load(tmp_path / "list.toml")
    assert not state.read(only, tmp_path / "runs").evaluated
    os.utime(folder / "model.keras")
    assert run(tmp_path, "--parallel=1").returncode == 0
    assert [row["stage"] for row in started(tmp_path)] == ["train", "evaluate", "evaluate", "evaluate"]


@several
def test_a_run_waits_for_its_teacher(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "wide"\noverrides = {pause = 0.5}\n[[runs]]\nname = "taught"\nteacher = "wide"\n'
    make_list(tmp_path, entries + '[[runs]]\nname = "alone"\n')
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    trained = [row["run"] for row in started(tmp_path) if row["stage"] == "train"]
    assert sorted(trained[:2]) == ["alone_seed0", "wide_seed0"]
    evaluated = {row["run"]: row["at"] for row in started(tmp_path) if row["stage"] == "evaluate"}
    (begun,) = (row["at"] for row in started(tmp_path) if (row["run"], row["stage"]) == ("taught_seed0", "train"))
    assert begun > evaluated["wide_seed0"]


def test_a_run_without_its_teacher_is_given_up(tmp_path: Path) -> None:
    entries = '[[runs]]\nname = "wide"\noverrides = {fault = "diverge"}\n[[runs]]\nname = "taught"\nteacher = "wide"\n'
    make_list(tmp_path, entries)
    done = run(tmp_path, "--parallel=1")
    assert done.returncode == 1
    assert "taught_seed0 FAILED: its teacher wide_seed0 is not trained" in done.stdout


def test_status_and_status_lines(tmp_path: Path) -> None:
    make_list(tmp_path, '[[runs]]\nname = "a"\nseeds = [0, 1]\n[[runs]]\nname = "b"\n')
    assert run(tmp_path, "--parallel=1", "--only=a_seed0").returncode == 0
    done = run(tmp_path, "--status")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:5]}
    # Two epochs of half an hour each, one run of three done.
    assert rows["a_seed0"] == ["2/2", "finished", "yes", "1.00", "0.00", "1.0", "20.0"]
    assert rows["a_seed1"] == ["0/2", "not", "begun", "no", "0.00", "1.00"]
    assert "1 of 3 runs trained and evaluated; about 2.0 core-hours left at 1 core(s) per run" in done.stdout
    said: list[str] = []
    programs = schedule.Programs((sys.executable, str(STUB), "train"), (sys.executable, str(STUB), "evaluate"))
    runs = run_list.load(tmp_path / "list.toml")[1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.getcwd())
        cores = sorted(os.sched_getaffinity(0))[:1]
        options: dict[str, Any] = {"report": said.append, "status_s": 0.0}
        assert schedule.Scheduler(runs, tmp_path / "runs", None, cores, 1, programs, **options).carry_on() == []
    assert any("a_seed1 0/2" in line and line.endswith("| 1 waiting") for line in said)


def test_cores_are_dealt_out_evenly() -> None:
    assert schedule.shares([0, 1, 2, 3], 4) == [(0,), (1,), (2,), (3,)]
    assert sorted(map(len, schedule.shares([2, 3, 5, 7, 9], 2))) == [2, 3]
    assert sorted(core for share in schedule.shares([2, 3, 5, 7, 9], 2) for core in share) == [2, 3, 5, 7, 9]
    for parallel in (0, 3):
        with pytest.raises(UserError, match=f"--parallel={parallel}; it lies between 1 and the 2 usable cores"):
            schedule.shares([0, 1], parallel)


@pytest.mark.slow
def test_real_runs_end_in_a_table(tmp_path: Path) -> None:
    overrides = 'overrides = {epochs = 1, optimizer.warmup_epochs = 0.5, model.width_multiplier = 0.125, switches = ["'
    config = '[defaults]\nconfig = "paradis_tf/configs/digits_mobilenet_v1.py"\n[defaults.overrides]\nbatch_size = 64\n'
    entries = [
        f'[[runs]]\nname = "{n}"\n{overrides}{s}"]}}\n' for n, s in (("joint", '1.0", "0.5+0.5'), ("one", "1.0"))
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
        ("one_seed0", "1.0", "359"),
    ]
    assert all(0 <= float(row["accuracy"]) <= 1 and int(row["madds_total"]) > 0 for row in rows)
