"""`--help` of the exporter's programs tells what is legal."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.parametrize("program", ["export.convert", "export.verify", "export.compare", "export.demo"])
def test_every_number_has_a_range(run_program: Callable[..., subprocess.CompletedProcess[str]], program: str) -> None:
    text = run_program(program, "--help").stdout
    # How absl writes the bounds of a number: `(an integer in the range [1, 9])`, `(a positive integer)`.
    assert re.search(r"^    \((an integer in|an? (positive|non-negative) integer|a number in)", text, re.M)
    assert not re.search(r"^    \((an integer|a number)\)", text, re.M)


def test_conversion_lists_all_its_flags_in_the_order_of_use(
    run_program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    summary, _, listed = run_program("export.convert", "--help").stdout.partition("\nflags:\n")
    flags = set(re.findall(r"^  --(?:\[no\])?(\w+):", listed, re.M))
    assert set(re.findall(r"--(\w+)", summary.split("The flags")[1])) == flags
