"""What is run for a board, by an emulator that only pretends, and both boards themselves."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from export.emulation import boards, installation
from export.emulation.boards import Board
from fusion.base.program import UserError
from fusion.bundle import manifest


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """A board whose emulator runs the host's Python instead, without what is meant for the board's."""
    emulator = tmp_path / "emulator"
    emulator.write_text(f'#!/bin/sh\nshift 3\nunset PYTHONHOME PYTHONPATH\nexec "{sys.executable}" "$@"\n')
    emulator.chmod(0o755)
    return Board("armhf", tmp_path / "armhf", emulator)


def test_the_emulator_gets_the_board_as_its_root(tmp_path: Path) -> None:
    board = Board("aarch64", tmp_path / "a", tmp_path / "qemu")
    assert board.command(["-m", "module"]) == [
        f"{tmp_path}/qemu",
        *("-L", f"{tmp_path}/a/root", f"{tmp_path}/a/root/usr/bin/python3.11"),
        *("-m", "module"),
    ]


def test_nothing_of_the_hosts_python_reaches_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH", "QEMU_CPU"):
        monkeypatch.setenv(name, "of the host")
    monkeypatch.setenv("OTHER", "of the host")
    found = Board("aarch64", tmp_path / "a", tmp_path / "qemu").environment()
    assert [name for name, value in found.items() if value == "of the host"] == ["OTHER"]
    assert found["PYTHONHOME"] == f"{tmp_path}/a/root/usr"
    assert found["PYTHONPATH"] == f"{tmp_path}/a/site"
    assert all(part.startswith(f"{tmp_path}/a/root/") for part in found["LD_LIBRARY_PATH"].split(":"))


def test_a_program_runs_in_its_folder_and_gives_its_status(board: Board, tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("import sys, os; print(os.getcwd(), sys.argv[1]); sys.exit('wrong')")
    done = boards.run(board, ["-m", "thing", "--flag"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{tmp_path} --flag\n", "wrong\n")
    with pytest.raises(subprocess.TimeoutExpired):
        boards.run(board, ["-c", "import time; time.sleep(60)"], timeout_s=0.5)


def test_a_module_runs_on_all_boards(board: Board, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "check.py").write_text("import sys; print('is', sys.argv[1]); sys.exit(sys.argv[1] == 'armhf.json')")
    both = [dataclasses.replace(board, name=name) for name in ("aarch64", "armhf")]
    assert boards.run_on_all(both, tmp_path, ["check", "{board}.json"]) == [0, 1]
    assert sorted(capfd.readouterr().out.splitlines()) == ["aarch64: is aarch64.json", "armhf: is armhf.json"]


def test_an_unknown_board_is_refused() -> None:
    with pytest.raises(UserError, match=r"^board 'mips' is unknown; legal: aarch64, armhf\.$"):
        installation.set_up(["aarch64", "mips"])


def test_another_host_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(UserError, match="^boards cannot be emulated on Darwin on arm64; legal: Linux on x86_64"):
        installation.set_up(["aarch64"], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_wrong_flags_are_refused_before_anything_is_set_up(tmp_path: Path) -> None:
    for arguments, error in (
        (["--", "fusion.selftest"], "a module is run with its bundle: --bundle=FOLDER -- MODULE"),
        ([f"--bundle={tmp_path}"], "a module is run with its bundle: --bundle=FOLDER -- MODULE"),
        ([f"--bundle={tmp_path}", "--", "fusion.selftest"], f"--bundle={tmp_path} is not a bundle; legal:"),
        (["--boards="], "--boards is empty; legal: one or more of aarch64, armhf."),
    ):
        command = [sys.executable, "-m", "export.emulation.run", f"--cache={tmp_path / 'cache'}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {error}")
        assert not (tmp_path / "cache").exists()


_WHAT = """
import json, numpy, platform, struct, PIL.Image, absl.app, aiohttp, prometheus_client, tflite_runtime
print(json.dumps([platform.machine(), 8 * struct.calcsize("P"), numpy.__version__, tflite_runtime.__version__]))
"""


@pytest.mark.slow
def test_both_boards_and_what_they_say_of_a_bundle(exported, run_program, tmp_path: Path) -> None:
    """Downloads 250 MB. A bundle's files give on both boards what they give here."""
    told: list[str] = []
    made = installation.set_up(["aarch64", "armhf"], tmp_path / "cache", report=told.append)
    for board, wanted in zip(made, (["aarch64", 64], ["armv7l", 32]), strict=True):
        done = boards.run(board, ["-c", _WHAT])
        assert done.returncode == 0, done.stderr
        machine, bits, numpy, runtime = json.loads(done.stdout)
        assert ([machine, bits], numpy.split(".")[0], runtime) == (wanted, "1", "2.14.0")
    said = len(told)
    assert installation.set_up(["aarch64", "armhf"], tmp_path / "cache", report=told.append) == made
    assert len(told) == said > 0
    for board in made:
        out = tmp_path / f"{board.name}.json"
        flags = ["--bundle=.", "--runs=1", f"--json={out}"]
        done = boards.run(board, ["-m", "fusion.selftest", *flags], exported.bundle, timeout_s=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        files = sum(len(part.files) for entry in manifest.load(exported.bundle).switches for part in entry.slices)
        assert f"passed: {files} slice files" in done.stdout
        checked = json.loads(out.read_text())["slices"]
        assert all(one["apart"] <= 1 and one["timing"]["count"] == 1 for one in checked)
    assert not list(exported.bundle.rglob("__pycache__"))
