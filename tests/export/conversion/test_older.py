"""Files of an older bundle are found by what made them, and never by what somebody wrote of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export.conversion.older import OlderBundle, seal


def bundle(folder: Path, *entries: Any) -> OlderBundle:
    (folder / "one.tflite").write_bytes(b"one")
    (folder / "two.tflite").write_bytes(b"two")
    files = {"switches": [{"switch": "1.0", "slices": [{"files": dict(enumerate(entries))}]}]}
    (folder / "manifest.json").write_text(json.dumps(files))
    return OlderBundle(folder)


def test_a_file_is_found_by_its_recipe(tmp_path: Path) -> None:
    older = bundle(tmp_path, {"path": "one.tflite", "recipe": seal("r", b"one")})
    assert older.find_file("r") == b"one"
    assert older.find_file("s") is None


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "two.tflite", "recipe": seal("r", b"one")},
        {"path": "one.tflite", "recipe": "r"},
        {"path": "one.tflite"},
        {"path": "one.tflite", "recipe": ["r"]},
        {"path": "none.tflite", "recipe": seal("r", b"one")},
        {"path": "\0", "recipe": seal("r", b"one")},
        {"path": None, "recipe": seal("r", b"one")},
        [],
        None,
    ],
)
def test_an_edited_manifest_has_no_such_file(tmp_path: Path, entry: Any) -> None:
    good = {"path": "two.tflite", "recipe": seal("s", b"two")}
    older = bundle(tmp_path, entry, good)
    assert older.find_file("r") is None
    assert older.find_file("s") == b"two"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"switches": null}', '{"switches": [{"switch": "1.0", "slices": [{"files": []}]}]}']
)
def test_a_broken_manifest_has_no_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert OlderBundle(tmp_path).find_file("r") is None
