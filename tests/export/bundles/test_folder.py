"""A bundle's folder: nothing of anybody is lost, whatever is killed, and nothing stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from export.bundles import folder
from fusion.base.program import UserError


def make_bundle(target: Path, text: str = '{"schema_version": 2, "model_id": "a"}') -> Path:
    (target / "slices" / "1.0").mkdir(parents=True)
    (target / "slices" / "1.0" / "0.int8.tflite").write_bytes(b"slice")
    (target / "manifest.json").write_text(text)
    return target


@pytest.fixture(params=["bundle", "a[b]*"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_bundle(tmp_path / request.param)


def test_a_bundle_that_a_killed_process_had_moved_aside_is_put_back(target: Path) -> None:
    # Killed between the two renames: the older bundle is aside, the new one is whole but has not its name.
    os.rename(target, target.with_name(f".{target.name}.aside-x.old"))
    make_bundle(target.with_name(f".{target.name}.aside-x"), "new")
    with pytest.raises(ZeroDivisionError), folder.written_aside(target):
        assert (target / "slices" / "1.0" / "0.int8.tflite").read_bytes() == b"slice"
        raise ZeroDivisionError
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_what_was_replaced_goes_with_the_next(target: Path) -> None:
    make_bundle(target.with_name(f".{target.name}.aside-x.old"), "old")
    with folder.written_aside(target) as new:
        (new / "manifest.json").write_text("new")
    assert (target / "manifest.json").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_what_another_process_writes_is_left_alone(target: Path) -> None:
    with folder.written_aside(target) as first:
        with folder.written_aside(target) as second:
            (second / "manifest.json").write_text('{"schema_version": 2, "model_id": "second"}')
        (first / "manifest.json").write_text("first")
    assert (target / "manifest.json").read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


REPLACE = """
import sys
from pathlib import Path
from export.bundles import folder
from fusion.base.program import UserError
for number in range(50):
    try:
        with folder.written_aside(Path(sys.argv[1])) as new:
            (new / "slices").mkdir()
            (new / "slices" / "0.int8.tflite").write_text(f"{sys.argv[2]}{number}")
            (new / "manifest.json").write_text('{"schema_version": 2, "model_id": "%s%d"}' % (sys.argv[2], number))
    except UserError as error:
        # Another one was faster.
        print(error)
"""


def test_of_two_processes_that_replace_a_bundle_each_has_a_whole_one_there(target: Path) -> None:
    shutil.rmtree(target / "slices" / "1.0")
    (target / "slices" / "0.int8.tflite").write_text("a")
    both = [
        subprocess.Popen([sys.executable, "-c", REPLACE, str(target), name], stderr=subprocess.PIPE, text=True)
        for name in ("left", "right")
    ]
    while any(process.poll() is None for process in both):
        # Through one descriptor, so that both files are of the same folder.
        handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            texts = []
            for name in ("manifest.json", "slices/0.int8.tflite"):
                with open(os.open(name, os.O_RDONLY, dir_fd=handle)) as file:
                    texts.append(file.read())
        except FileNotFoundError:
            # It was replaced, and removed, meanwhile.
            continue
        finally:
            os.close(handle)
        assert f'"model_id": "{texts[1]}"' in texts[0]
    assert [(process.wait(), process.communicate()[1]) for process in both] == [(0, ""), (0, "")]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    folder.check_target(target)


def test_a_file_that_nobody_may_remove_stops_nothing(target: Path) -> None:
    foreign = target.with_name(f".{target.name}.aside-notes")
    foreign.write_text("somebody's")
    with folder.written_aside(target):
        pass
    assert foreign.read_text() == "somebody's"


@pytest.mark.parametrize("name", ["slices/notes.txt", "samples/me/cluster.toml", "fusion/cluster.toml", "new/x.tflite"])
def test_files_of_somebody_else_are_kept(target: Path, name: str) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (target / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds '{name.removesuffix('/x.tflite')}', which is not part of a bundle"):
        folder.check_target(target)


def test_all_of_the_runner_is_part_of_a_bundle(target: Path) -> None:
    runner = Path(folder.__file__).parents[2] / "fusion"
    shutil.copytree(runner, target / "fusion", ignore=shutil.ignore_patterns("__pycache__"))
    folder.check_target(target)


def test_files_that_come_during_a_conversion_are_kept(target: Path) -> None:
    with pytest.raises(UserError, match="'mine.txt', which is not part of a bundle"), folder.written_aside(target):
        (target / "mine.txt").write_text("mine")
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "mine.txt", "slices"]
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"schema_version": 2}'])
def test_a_manifest_of_something_else_is_no_bundle(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="is not a bundle"):
        folder.check_target(make_bundle(tmp_path / "other", text))


def test_the_name_is_never_without_a_bundle(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a rename in two steps")

    with folder.written_aside(target) as new:
        (new / "manifest.json").write_text("new")
        monkeypatch.setattr(os, "rename", refuse)
    assert (target / "manifest.json").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_where_names_cannot_be_exchanged_they_are_changed_in_turn(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_exchange", lambda one, other: False)
    with folder.written_aside(target) as new:
        (new / "manifest.json").write_text("new")
    assert (target / "manifest.json").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_what_came_between_the_two_steps_is_kept(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def disturbed(one: Path, other: Path) -> None:
        rename(one, other)
        if one == target:
            make_bundle(target, '{"schema_version": 2, "model_id": "b"}')

    monkeypatch.setattr(folder, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", disturbed)
    with pytest.raises(UserError, match="cannot be written: Directory not empty"), folder.written_aside(target):
        pass
    assert '"b"' in (target / "manifest.json").read_text()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_what_a_killed_verification_left_is_nobodys(target: Path) -> None:
    for name in ("manifest.jsonab12.part", "README.md_x.part"):
        (target / name).write_text("half")
    folder.check_target(target)


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        folder.check_target(tmp_path / ("a" * 300))


def test_temporary_files_of_a_conversion_go_with_it(target: Path) -> None:
    # As TensorFlow's converter in a process that is killed.
    code = "import os, tempfile; tempfile.mkdtemp(); os._exit(9)"
    before = tempfile.gettempdir()
    with folder.written_aside(target) as new:
        with folder.temporary_files_in(new):
            subprocess.run([sys.executable, "-c", code])
            (place,) = new.iterdir()
            assert len(list(place.iterdir())) == 1
            assert Path(tempfile.mkdtemp()).parent == place
        assert list(new.iterdir()) == []
    assert tempfile.gettempdir() == before


def test_a_full_disk_while_a_tree_is_copied_is_one_reason(target: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\.$"), folder.written_aside(target):
        raise shutil.Error([("a", "b", "No space left on device"), ("c", "d", "No space left on device")])


def test_an_error_without_a_number_is_told_in_its_words(target: Path) -> None:
    # NumPy raises such a one on a full disk.
    with pytest.raises(UserError, match="cannot be written: 9 requested and 4 written"), folder.written_aside(target):
        raise OSError("9 requested and 4 written")
