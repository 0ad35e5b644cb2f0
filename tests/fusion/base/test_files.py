"""Files that programs write."""

import json

import pytest

from fusion.base import files
from fusion.base.program import UserError


def test_checks_where_json_is_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (None, "", "out.json", tmp_path / "out.json"):
        files.check_json_target(path)
    (tmp_path / "file").touch()
    for path in ("none/out.json", tmp_path / "none" / "out.json", "file/out.json"):
        with pytest.raises(UserError, match="out.json' cannot be written: .* is no folder; legal: "):
            files.check_json_target(path)
    with pytest.raises(UserError, match="it is a folder; legal: "):
        files.check_json_target(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writes_json_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.json"
    files.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(UserError, match="cannot be written: No such file"):
        files.write_json(tmp_path / "none" / "out.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        files.write_json(tmp_path / "folder", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "out.json"]


@pytest.mark.parametrize("data", [b'{"a": 1}', "\ufeff{}".encode(), "猫".encode()])
def test_text_is_utf_8_with_or_without_a_mark(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert files.read_text(path, "file") == data.decode("utf-8-sig")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{}".encode("utf-16"), "is UTF-16 text; legal: UTF-8, as which an editor can save it."),
        ("\ufeff{}".encode("utf-16-be"), "is UTF-16 text; legal: UTF-8, as which an editor can save it."),
        ("{}".encode("utf-16-le"), "is UTF-16 text; legal: UTF-8, as which an editor can save it."),
        (b"\xe4", "is not UTF-8 text."),
    ],
)
def test_other_text_is_refused_by_name(tmp_path, data, said):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UserError) as raised:
        files.read_text(path, "file")
    assert str(raised.value) == f"file {str(path)!r} {said}"
