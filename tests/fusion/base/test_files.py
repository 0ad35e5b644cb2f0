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
