"""Trains and evaluates a list of runs, carrying on with whatever is unfinished, and writes a table of the results.

    python -m benchmarks.runs --list=benchmarks/runs/cifar10_mobilenet_v1.toml --runs_dir=runs --data_dir=FOLDER

It may be stopped or killed at any moment and started again as often as needed: what is done is read from the run
folders, and a training resumes after its last finished epoch. A run's output goes to RUNS_DIR/logs/NAME.log.
`paradis_tf.report --results=FILE` makes tables and pictures of the results. Exit status 1: a run has failed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from benchmarks.runs import results, run_list, schedule
from benchmarks.runs.run_list import ListedRun
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program

_LIST = define_path("list", None, "TOML file of runs; see benchmarks/runs/run_list.py.", required=True)
_RUNS_DIR = define_path("runs_dir", "runs", "Folder of the run folders; made if it is not there.")
_DATA_DIR = define_path("data_dir", None, "Folder with <dataset>.npz files.")
_PARALLEL = flags.DEFINE_integer(
    "parallel",
    None,
    "Runs at once, which share the cores; a run per usable core if left out, as a small network cannot feed several "
    "threads. 1 with a GPU.",
    1,
)
_ONLY = flags.DEFINE_string("only", "", "Regular expression: train and show only runs with a name it is found in.")
_STATUS = flags.DEFINE_bool("status", False, "Print how far the runs are and start nothing.")
_RESULTS = define_path("results", "", "CSV of all evaluated runs of the list; default: RUNS_DIR/results.csv.")


def main(argv: list[str]) -> int:
    runs = run_list.load(_LIST.value, _RUNS_DIR.value)
    chosen = _chosen(runs)
    runs_dir = Path(_RUNS_DIR.value)
    target = Path(_RESULTS.value or runs_dir / "results.csv")
    if os.path.isdir(target):
        raise UserError(f"--results={target} is a folder; give a file.")
    if _STATUS.value:
        print(schedule.render(chosen, runs_dir))
        return 0
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {error.filename!r} cannot be made: {error.strerror}.") from None
    try:
        # Before the trainings, not after them.
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name):
            pass
    except OSError as error:
        raise UserError(f"--results={target} cannot be written: {error.strerror}.") from None
    try:
        parallel = _PARALLEL.value or len(os.sched_getaffinity(0))
        failed = schedule.Scheduler(chosen, runs_dir, _DATA_DIR.value, parallel).carry_on()
    except KeyboardInterrupt:
        say("\nstopped; the same command carries each run on after its last finished epoch")
        raise
    rows = results.collect(runs, runs_dir)
    if rows:
        results.write(target, rows)
    print(f"{len({row['name'] for row in rows})} of {len(runs)} runs of the list are evaluated, results in {target}")
    if failed:
        print(f"{len(failed)} of {len(chosen)} runs are not done: {', '.join(failed)}; started again, this carries on")
    return 1 if failed else 0


def _chosen(runs: Sequence[ListedRun]) -> list[ListedRun]:
    try:
        chosen = [run for run in runs if re.search(_ONLY.value, run.name)]
    except re.error as error:
        raise UserError(f"--only={_ONLY.value!r} is no regular expression: {error}.") from None
    if not chosen:
        names = ", ".join(run.name for run in runs)
        raise UserError(f"--only={_ONLY.value!r} is found in no run of the list, which has {names}.")
    return chosen


if __name__ == "__main__":
    program.run(main)
