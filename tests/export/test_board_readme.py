"""The README of a bundle says what holds of that bundle."""

from __future__ import annotations

import json

from export import board_readme


def test_another_switch_is_spoken_of_where_there_is_one(exported) -> None:
    written = json.loads((exported.bundle / "manifest.json").read_text())
    assert "moves to another by itself" in board_readme.render(written)
    del written["switches"][1:]
    text = board_readme.render(written)
    assert "another" not in text and "\n\n\n" not in text
    assert text.count("| `slices/") == 2
