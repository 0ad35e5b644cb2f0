"""Tables for the terminal."""

from __future__ import annotations

from fusion.base.columns import counted, render


def test_first_column_left_others_right() -> None:
    assert render(["switch", "n", "accuracy"], [["4x0.25", 4, 0.5], ["0.5+0.25+0.25", 10, "0.9712"]]) == (
        "switch          n  accuracy\n"
        "-------------  --  --------\n"
        "4x0.25          4       0.5\n"
        "0.5+0.25+0.25  10    0.9712"
    )


def test_no_rows_leave_the_header() -> None:
    assert render(["layer", "MAdds"], []) == "layer  MAdds\n-----  -----"


def test_one_column_has_no_trailing_spaces() -> None:
    assert render(["name"], [["a"], ["longest"]]) == "name\n-------\na\nlongest"


def test_counted() -> None:
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
