"""The README of a bundle says what holds of that bundle."""

from __future__ import annotations

import json
import re

from export.bundles import board_readme


def test_commands_have_flags_that_are_there(exported, run_program) -> None:
    """Every flag of a command is one that the program's help lists."""
    text = board_readme.render(json.loads((exported.bundle / "manifest.json").read_text())).replace("\\\n", "")
    commands = re.findall(r"^.*python3? -m (fusion\.\w+)(.*)$", text, re.MULTILINE)
    named = {program for program, _ in commands}
    kinds = "selftest local worker coordinator predict plan certificates systemd"
    assert named == {f"fusion.{name}" for name in kinds.split()}
    flags = {name: run_program(name, "--help").stdout for name in named}
    for program, options in commands:
        own, _, others = options.partition("#")[0].partition(" -- ")
        for flag in re.findall(r"--(\w+)", own):
            assert f"--{flag}:" in flags[program] or f"--[no]{flag}:" in flags[program], (program, flag)
        # Of systemd, what stands after -- is the service's.
        for flag in re.findall(r"--(\w+)", others):
            kind = re.findall(r"--kind=(\w+)", own)[0]
            assert f"--{flag}:" in flags[f"fusion.{kind}"], (kind, flag)


def test_another_switch_is_spoken_of_where_there_is_one(exported) -> None:
    written = json.loads((exported.bundle / "manifest.json").read_text())
    assert "moves to another by itself" in board_readme.render(written)
    del written["switches"][1:]
    text = board_readme.render(written)
    assert "another" not in text and "\n\n\n" not in text
    assert text.count("| `slices/") == 2
