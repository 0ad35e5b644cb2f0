"""A folder is there whole or not at all, and is made once."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from export.emulation.installed import install, run
from fusion.base.program import UserError


class Maker:
    """Writes one file, and counts how often it was asked."""

    def __init__(self, fails: bool = False) -> None:
        self.calls, self.fails = 0, fails
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "thing").write_text(str(self.calls))
        self.begun.set()
        self.go_on.wait(60)
        if self.fails:
            raise UserError("no.")


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_the_same_recipe_is_made_once_and_another_replaces_it(tmp_path: Path) -> None:
    make = Maker()
    for recipe in (["a"], ["a"], ["b"], ["b"]):
        install(tmp_path / "cache" / "x", recipe, make, print)
    assert make.calls == 2
    assert (tmp_path / "cache" / "x" / "thing").read_text() == "2"
    assert names(tmp_path / "cache") == {"x", ".x.lock"}


def test_a_failure_leaves_nothing_and_keeps_an_older_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no."):
        install(tmp_path / "x", ["a"], Maker(fails=True), print)
    assert names(tmp_path) == {".x.lock"}
    install(tmp_path / "x", ["a"], Maker(), print)
    with pytest.raises(UserError, match="no."):
        install(tmp_path / "x", ["b"], Maker(fails=True), print)
    assert names(tmp_path) == {"x", ".x.lock"}
    untouched = Maker()
    install(tmp_path / "x", ["a"], untouched, print)
    assert untouched.calls == 0


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.aside-1").mkdir()
    (tmp_path / ".y.aside-1").mkdir()
    (tmp_path / "x").mkdir()
    install(tmp_path / "x", ["a"], Maker(), print)
    assert names(tmp_path) == {"x", ".x.lock", ".y.aside-1"}
    assert names(tmp_path / "x") == {"thing", "recipe.json"}


def test_a_second_one_waits_and_finds_it_made(tmp_path: Path) -> None:
    first, second = Maker(), Maker()
    first.go_on.clear()
    told: list[str] = []
    waits = threading.Event()

    def report(text: str) -> None:
        told.append(text)
        waits.set()

    working = threading.Thread(target=install, args=(tmp_path / "x", ["a"], first, print))
    working.start()
    assert first.begun.wait(60)
    waiting = threading.Thread(target=install, args=(tmp_path / "x", ["a"], second, report))
    waiting.start()
    assert waits.wait(60)
    first.go_on.set()
    working.join(60)
    waiting.join(60)
    assert (first.calls, second.calls) == (1, 0)
    assert told == [f"waiting for another process that sets up {tmp_path / 'x'}"]


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"folder '.*/file/x' cannot be set up: (Not a directory|File exists); legal"):
        install(tmp_path / "file" / "x", ["a"], Maker(), print)


def test_a_failed_command_gives_its_cause() -> None:
    assert run([sys.executable, "-c", "print(3)"], "fails") == "3\n"
    script = "import sys; print('Reading'); sys.exit('W: slow\\nE: no route\\nE: given up')"
    with pytest.raises(UserError, match=r"^it fails \(E: no route\)\.$"):
        run([sys.executable, "-c", script], "it fails")
    with pytest.raises(UserError, match=r"^it fails \(exit status 7\)\.$"):
        run([sys.executable, "-c", "import sys; sys.exit(7)"], "it fails")
