"""Archives: refused where they would be lost, whole or not there."""

from __future__ import annotations

import fcntl
import zipfile
from pathlib import Path

import pytest

from export.bundles import archive
from fusion.base.program import UserError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle" / "slices").mkdir(parents=True)
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    return tmp_path / "bundle"


@pytest.mark.parametrize("place", ["bundle/bundle.zip", "bundle/slices/../slices/a.zip"])
def test_an_archive_in_the_bundle_is_refused(bundle: Path, place: str) -> None:
    with pytest.raises(UserError, match="lies in the bundle"):
        archive.check_target(str(bundle.parent / place), str(bundle))


@pytest.mark.parametrize("place", ["a.tar", "file/a.zip", "file/none/a.zip", "bundle", f"{'a' * 300}/b.zip"])
def test_bad_targets_are_refused(bundle: Path, place: str) -> None:
    (bundle.parent / "file").touch()
    with pytest.raises(UserError, match="--archive="):
        archive.check_target(str(bundle.parent / place), str(bundle))


def test_the_folder_is_made(bundle: Path) -> None:
    path = bundle.parent / "new" / "folder" / "a.zip"
    archive.check_target(str(path), str(bundle))
    assert not path.parent.exists()
    archive.write(bundle, path)
    assert "bundle/manifest.json" in zipfile.ZipFile(path).namelist()


def test_secrets_that_lie_in_the_bundle_stay_there(bundle: Path) -> None:
    for name in ("token.txt", "certificates/key.pem", "slices/notes.txt", "fusion/token.txt"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text("secret")
    (bundle / "slices" / "0.int8.tflite").write_bytes(b"slice")
    archive.write(bundle, bundle.parent / "a.zip")
    assert zipfile.ZipFile(bundle.parent / "a.zip").namelist() == [
        "bundle/manifest.json",
        "bundle/slices/0.int8.tflite",
    ]


def test_control_c_leaves_the_older_archive(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle.parent / "bundle.zip"
    path.write_bytes(b"older")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupt)
    with pytest.raises(KeyboardInterrupt):
        archive.write(bundle, path)
    assert path.read_bytes() == b"older"
    assert sorted(one.name for one in bundle.parent.iterdir()) == ["bundle", "bundle.zip"]


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(bundle: Path) -> None:
    path = bundle.parent / "bundle.zip"
    left, written = (bundle.parent / f".bundle.zip.aside-{end}" for end in ("left", "written"))
    left.write_bytes(b"half")
    with open(written, "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        archive.write(bundle, path)
    assert not left.exists() and written.exists()
    assert zipfile.ZipFile(path).namelist() == ["bundle/manifest.json"]
