"""Which files of a folder are pictures, which are left out, and that every folder is met once."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusion.base.program import UserError
from fusion.base.walk import left_out_text, walk

ENDS = (".png", ".jpg")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def inside(folder: Path, files: list[str]) -> list[str]:
    return [os.path.relpath(file, folder) for file in files]


def test_pictures_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.JPG", "b/10.png", "a/x.png", "a.b/y.png", "z.Png", "b.png/deep/deeper/1.jpg")
    found = walk([tmp_path], ENDS)
    files = found.files[str(tmp_path)]
    # As pathlib orders them, name by name.
    assert [Path(file) for file in files] == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert inside(tmp_path, files)[:3] == ["a/x.png", "a.b/y.png", "b/10.png"]
    assert not found.left_out and not found.unreadable


def test_hidden_names_are_out(tmp_path: Path) -> None:
    fill(tmp_path, ".ipynb_checkpoints/0.png", ".thumbnails/0.png", "deep/.Trash-1000/0.png", "._0.png", "deep/.x.png")
    fill(tmp_path, "0.png")
    found = walk([tmp_path], ENDS)
    assert inside(tmp_path, found.files[str(tmp_path)]) == ["0.png"]
    assert found.left_out == Counter(hidden=5)
    # A folder that is named itself is looked into.
    assert len(walk([tmp_path / ".thumbnails"], ENDS).files[str(tmp_path / ".thumbnails")]) == 1


def test_other_kinds_are_counted_by_their_ends(tmp_path: Path) -> None:
    fill(tmp_path, "0.png", *(f"{number}.webp" for number in range(60)), "a.WEBP", "note.txt", "README", "x.a b")
    found = walk([tmp_path], ENDS)
    assert found.left_out == Counter({".webp": 61, ".txt": 1, "other file": 2})
    assert left_out_text(found.left_out) == "61 .webp, 1 .txt and 2 other files"


@pytest.mark.parametrize(("target", "below"), [(".", 0), ("..", 0), ("../..", 1), ("deep", 0)])
def test_a_folder_is_met_once(tmp_path: Path, target: str, below: int) -> None:
    folder = fill(tmp_path / "set", *(f"deep/{number}.png" for number in range(5)), "0.png")
    fill(tmp_path, "beside.png")
    (folder / "deep" / "link").symlink_to(target, target_is_directory=True)
    (folder / "other").symlink_to("deep", target_is_directory=True)
    found = walk([folder], ENDS)
    names = inside(folder, found.files[str(folder)])
    assert len(names) == 6 + below
    # By their own names, and not by those of links.
    assert {"0.png", *(f"deep/{number}.png" for number in range(5))} <= set(names)
    assert found.left_out["folder met before"] >= 1


def test_links_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "below/1.png", "2.png")
    folder = fill(tmp_path / "set", "0.png")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere" / "below")
    (folder / "3.png").symlink_to("0.png")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    found = walk([folder], ENDS)
    assert inside(folder, found.files[str(folder)]) == [
        *("0.png", "3.png", "again/1.png", "gone.png", "loop.png", "more/2.png")
    ]
    assert found.left_out == Counter({"folder met before": 1})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_sockets_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("b.png")
    (tmp_path / "d.png").symlink_to("/dev/zero")
    # The names of sockets are short ones.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind("e.jpg")
        found = walk([tmp_path], ENDS)
    assert inside(tmp_path, found.files[str(tmp_path)]) == ["a.png"]
    assert left_out_text(found.left_out) == "4 pipes or devices"


def test_several_folders_share_no_part(tmp_path: Path) -> None:
    fill(tmp_path, "ant/1.png", "bee/2.png", "bee/deep/3.png", "ant/z/4.png")
    (tmp_path / "ant" / "bees").symlink_to("../bee")
    (tmp_path / "ant" / "deep").symlink_to("../bee/deep")
    (tmp_path / "bee" / "up").symlink_to("..")
    ant, bee = str(tmp_path / "ant"), str(tmp_path / "bee")
    found = walk([ant, bee], ENDS, met=[tmp_path])
    assert inside(tmp_path, found.files[ant]) == ["ant/1.png", "ant/z/4.png"]
    assert inside(tmp_path, found.files[bee]) == ["bee/2.png", "bee/deep/3.png"]
    assert found.left_out == Counter({"folder met before": 3})


def test_a_flat_walk_counts_the_folders(tmp_path: Path) -> None:
    fill(tmp_path, "1.png", "below/2.png", "other.png/3.png")
    found = walk([tmp_path], ENDS, below=False)
    assert inside(tmp_path, found.files[str(tmp_path)]) == ["1.png"]
    assert left_out_text(found.left_out) == "2 folders"


@contextlib.contextmanager
def anyone() -> Iterator[Path]:
    """A folder, and for as long as it is there no rights beyond those of any user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_folders_that_cannot_be_read_are_named() -> None:
    with anyone() as folder:
        fill(folder, "a/1.png", "b/2.png", "c/3.png")
        (folder / "b").chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        found = walk([folder], ENDS)
        assert inside(folder, found.files[str(folder)]) == ["a/1.png", "c/3.png"]
        assert found.unreadable == [f"folder '{folder / 'b'}' cannot be read: Permission denied."]
        assert left_out_text(found.left_out) == "1 unreadable folder"
        with pytest.raises(UserError, match=r"b' cannot be read: Permission denied\."):
            walk([folder / "b"], ENDS)


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), ("file", "Not a directory")])
def test_no_folder_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    fill(tmp_path, "file")
    with pytest.raises(UserError, match=f"{name}' cannot be read: {reason}"):
        walk([tmp_path / name], ENDS)


@pytest.mark.parametrize(
    ("left_out", "text"),
    [
        ({}, ""),
        ({".gif": 1}, "1 .gif"),
        ({"hidden": 3, ".webp": 1200}, "1,200 .webp and 3 hidden"),
        ({"folder met before": 1, "hidden": 1, ".txt": 4}, "4 .txt, 1 hidden and 1 folder met before"),
        (
            {".g": 2, ".f": 3, ".e": 4, ".d": 5, ".c": 6, ".b": 7, ".a": 8, "other file": 1},
            "8 .a, 7 .b, 6 .c, 5 .d, 4 .e and 6 other files",
        ),
    ],
)
def test_what_is_left_out_is_told(left_out: dict[str, int], text: str) -> None:
    assert left_out_text(left_out) == text
