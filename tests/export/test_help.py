"""`--help` of the exporter's programs tells what is legal, at once."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

# Without what takes seconds to load: flags are refused before.
HELP = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("{program}", run_name="__main__", alter_sys=True)
finally:
    print("loaded:", sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""


def help_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", HELP.format(program=program)], capture_output=True, text=True).stdout


@pytest.mark.parametrize("program", ["convert", "verify", "compare", "calibrate", "demo"])
def test_every_number_has_a_range(program: str) -> None:
    text = help_of(f"export.{program}")
    # How absl writes the bounds of a number: `(an integer in the range [1, 9])`, `(a positive integer)`.
    assert re.search(r"^    \((an integer in|an? (positive|non-negative) integer|a number in)", text, re.M)
    assert not re.search(r"^    \((an integer|a number)\)", text, re.M)
    if program != "demo":
        assert "loaded: []" in text


def test_conversion_lists_all_its_flags_in_the_order_of_use() -> None:
    summary, _, listed = help_of("export.convert").partition("\nflags:\n")
    flags = set(re.findall(r"^  --(?:\[no\])?(\w+):", listed, re.M))
    assert set(re.findall(r"--(\w+)", summary.split("The flags")[1])) == flags
