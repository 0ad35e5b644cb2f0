"""The runner inside a bundle, in an environment that has the board's requirements and nothing else."""

import subprocess
import sys
import venv

import pytest


@pytest.fixture(scope="module")
def board_python(tmp_path_factory, bundle):
    """The interpreter of a virtual environment with only the runner's requirements."""
    folder = tmp_path_factory.mktemp("board") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    requirements = bundle / "fusion" / "requirements.txt"
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", "--requirement", requirements],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.parametrize("name", ["tensorflow", "keras", "paradis_tf", "export"])
def test_training_packages_are_not_there(board_python, bundle, name):
    done = subprocess.run([board_python, "-c", f"import {name}"], capture_output=True, text=True, cwd=bundle)
    assert f"No module named '{name}'" in done.stderr


def test_local_runs_in_the_bundle(board_python, bundle, runner):
    where = {"package": "fusion", "python": board_python, "cwd": bundle}
    done = runner("local", "--switch=0.5+0.5", **where)
    assert done.returncode == 0, done.stderr
    assert "switch 0.5+0.5, int8, tflite_runtime 2.14.0" in done.stdout
    assert "accuracy  100.00%" in done.stdout


def test_worker_takes_the_bundle_around_it(board_python, bundle, start, curl):
    program = start("worker", package="fusion", python=board_python, cwd=bundle)
    assert curl(f"{program.url}/v2/models/tiny-1.0-0/ready")[0] == 200
