"""A tiny real bundle for the programs that measure clusters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKER = Path(__file__).resolve().parents[1] / "fusion" / "make_bundle.py"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The folder of the tiny bundle of the runner's tests. Not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    made = subprocess.run([sys.executable, MAKER, folder], capture_output=True, text=True, env=quiet)
    assert made.returncode == 0, made.stderr
    return folder
