"""A folder of odd pictures, on every way by which predict and clients of its own take images: one table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion.asking.client import FusionClient
from fusion.base.program import UserError
from fusion.images import reading as images
from fusion.protocol.oip import TensorSpec
from fusion.security.credentials import Credentials
from tests.fusion.predict.test_predict import CLASSES, Coordinator, predicting
from tests.odd_pictures import SIDE, Odd, agree, odd_pictures

ALL = odd_pictures()
# One of each format, taken and refused.
SOME = [odd for odd in ALL if "turned" in odd.name or "cut-off" in odd.name or "moving" in odd.name]
FEW = [odd for odd in SOME if odd.name.endswith((".tiff", ".webp", "cut-off.jpg"))]
INPUTS = (TensorSpec("image", "UINT8", (-1, SIDE, SIDE, 3)),)
TWICE = (TensorSpec("pixels", "UINT8", (-1, 2 * SIDE, 2 * SIDE, 3)),)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    with Coordinator(CLASSES, INPUTS) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "odd").mkdir()
    for odd in ALL:
        (tmp_path / "odd" / odd.name).write_bytes(odd.content)
    return tmp_path / "odd"


def table(coordinator: Coordinator, rows: Sequence[dict]) -> dict[str, np.ndarray | None]:
    """What the coordinator was asked about for each file; None for one that was refused by its name."""
    seen = iter(coordinator.images)
    assert all(row["file"] in row["error"] for row in rows if "error" in row)
    found = {Path(row["file"]).name: None if "error" in row else next(seen) for row in rows}
    assert next(seen, None) is None
    return found


def check(found: dict[str, np.ndarray | None], odds: Sequence[Odd] = ALL) -> None:
    assert list(found) == [odd.name for odd in odds]
    assert [odd.name for odd in odds if not agree(odd, found[odd.name])] == []


def rows_of(lines: str) -> list[dict]:
    return [json.loads(line) for line in lines.splitlines()]


def ask(coordinator: Coordinator, *arguments: object, **more: object) -> list[dict]:
    """The program's lines of JSON; it goes on after what it refuses, and says so at its end."""
    command = [sys.executable, "-m", "fusion.predict", f"--url={coordinator.url}", "--jsonl=-", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **more)  # type: ignore[call-overload]
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr and "Warning" not in done.stderr
    return rows_of(done.stdout)


def test_files(coordinator: Coordinator, folder: Path) -> None:
    check(table(coordinator, ask(coordinator, *(folder / odd.name for odd in ALL))))


@pytest.mark.parametrize("resize", [images.REFUSE, images.CROP])
def test_a_folder(coordinator: Coordinator, folder: Path, resize: str) -> None:
    check(table(coordinator, ask(coordinator, f"--resize={resize}", folder)))


def test_names_on_standard_input(coordinator: Coordinator, folder: Path) -> None:
    names = "".join(f"{folder / odd.name}\n" for odd in ALL)
    check(table(coordinator, ask(coordinator, "-", input=names)))


def test_images_on_standard_input(coordinator: Coordinator, folder: Path) -> None:
    taken = {}
    for odd in FEW:
        with (folder / odd.name).open("rb") as stream:
            (row,) = ask(coordinator, "--stdin=image", "-", stdin=stream)
        assert ("error" in row) == (odd.pixels is None)
        taken[odd.name] = None if "error" in row else coordinator.images[-1]
    check(taken, FEW)


def test_a_watched_folder(coordinator: Coordinator, tmp_path: Path) -> None:
    folder, rows = tmp_path / "inbox", []
    folder.mkdir()
    with predicting(coordinator, f"--watch={folder}", "--jsonl=-", stderr=subprocess.STDOUT) as program:
        assert program.stdout.readline() == f"watching {folder}\n"
        for odd in SOME:
            (tmp_path / odd.name).write_bytes(odd.content)
            (tmp_path / odd.name).rename(folder / odd.name)
            while not (line := program.stdout.readline()).startswith("{"):
                assert line.startswith("error: ")
            rows.append(json.loads(line))
        assert program.poll() is None
    check(table(coordinator, rows), SOME)


def test_a_client_of_ones_own(coordinator: Coordinator, folder: Path) -> None:
    found: dict[str, np.ndarray | None] = {}
    with FusionClient(coordinator.url, Credentials()) as client:
        for odd in ALL:
            try:
                client.infer(images.read(folder / odd.name, client.shape))
                found[odd.name] = coordinator.images[-1]
            except UserError as error:
                assert odd.name in str(error)
                found[odd.name] = None
    check(found)


def test_enlarged(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "large"
    target.mkdir()
    with Coordinator(TWICE, INPUTS) as coordinator:
        rows = ask(coordinator, f"--target={target}", folder)
    found = {
        Path(row["file"]).name: None if "error" in row else np.asarray(Image.open(row["target"]))[::2, ::2]
        for row in rows
    }
    check(found)
