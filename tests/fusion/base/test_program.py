"""How programs end when whoever reads their output has enough of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

MANY_LINES = """
from fusion.base import program
program.run(lambda argv: print("a line\\n" * 100_000))
"""


@pytest.mark.parametrize("command", [["-m", "fusion.selftest", "--help"], ["-c", MANY_LINES]], ids=["help", "output"])
def test_a_reader_that_leaves_ends_it_without_a_word(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 1
