"""Work in several processes: what comes back, and what is said of one that fails or dies."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fusion.base.program import UserError
from paradis_tf.base.processes import run_all


def test_all_jobs_are_done_apart() -> None:
    found: dict[int, int] = {}
    run_all(math.factorial, list(range(6)), 2, found.__setitem__)
    assert found == {job: math.factorial(job) for job in range(6)}


def test_a_process_is_started_before_its_work(tmp_path: Path) -> None:
    found: dict[str, list[str]] = {}
    (tmp_path / "here").touch()
    run_all(os.listdir, ["."], 1, found.__setitem__, os.chdir, (tmp_path,))
    assert found == {".": ["here"]}
    assert Path.cwd() != tmp_path


def test_a_failure_is_passed_on() -> None:
    with pytest.raises(ValueError, match="not defined for negative values"):
        run_all(math.factorial, [1, -1, 2], 2, lambda job, result: None)


def test_a_process_that_dies_is_told_with_what_it_did() -> None:
    with pytest.raises(UserError, match=r"^job 3: the process died \(exit status 3\), perhaps .*--processes=1"):
        run_all(os._exit, [3], 1, lambda job, result: None, name=lambda job: f"job {job}")


def test_a_native_crash_is_told_with_its_signal() -> None:
    jobs = [0, signal.SIGABRT]
    with pytest.raises(UserError, match=r"^(0; or )?6: the process died \(Aborted\), "):
        run_all(_raise_signal, jobs, 2, lambda job, result: None, name=lambda job: str(int(job)))


def _raise_signal(number: int) -> None:
    if number:
        signal.raise_signal(number)


IMPORTING = """
import signal
import sys
from fusion.base import program
from paradis_tf.base.processes import run_all
if __name__ == "__mp_main__":
    print("importing", flush=True)
    signal.pause()
def main(argv):
    run_all(len, ["job"], 1, print)
if __name__ == "__main__":
    program.run(main)
"""


def test_control_c_while_a_process_imports_is_the_parents_alone(tmp_path: Path) -> None:
    (tmp_path / "importing.py").write_text(IMPORTING)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "importing.py")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "interrupted\n")
