"""Pictures whose labels can be read: ticks at round numbers, and texts that keep off each other and off the data."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.text import Text

from fusion.base.program import UserError
from paradis_tf.pictures.style import Labels, madds_axis, plt, save


@pytest.mark.parametrize(
    ("madds", "ticks"),
    [
        ([3.2e6, 46.6e6], ["5", "10", "20", "50"]),
        ([1e3, 1e9], ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]),
        ([0.98e6, 3.05e6], ["1", "1.5", "2", "3"]),
    ],
)
def test_ticks_are_round_and_few(madds: list[float], ticks: list[str]) -> None:
    figure, axis = plt.subplots()
    madds_axis(axis, madds, "multiply-adds")
    assert [label.get_text() for label in axis.get_xticklabels()] == ticks
    low, high = axis.get_xlim()
    assert low < min(madds) / 1e6 and max(madds) / 1e6 < high
    plt.close(figure)


@pytest.mark.parametrize("madds", [[5e6], [5e6, 5.2e6]])
def test_values_close_together_still_have_ticks(madds: list[float]) -> None:
    figure, axis = plt.subplots()
    madds_axis(axis, madds, "multiply-adds")
    assert 2 <= len(axis.get_xticks()) <= 10
    plt.close(figure)


def test_labels_keep_off_each_other_and_off_the_points() -> None:
    figure, axis = plt.subplots(figsize=(6, 4))
    # The last two share an x and nearly a y, as switches with an equal largest device do.
    x, y = [1.0, 2.0, 2.1, 2.1], [1.0, 2.0, 2.05, 2.0]
    axis.plot(x, y, "o")
    labels = Labels(axis)
    labels.avoid(x, y)
    for number, point in enumerate(zip(x, y, strict=True)):
        assert labels.place(f"0.5+0.25+{number}", [point])
    figure.canvas.draw()
    # The extent of the text alone, without the thin line that may lead to its point.
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    points = axis.transData.transform(list(zip(x, y, strict=True)))
    assert not any(box.contains(*point) for box in boxes for point in points)
    plt.close(figure)


def test_labels_keep_off_the_axes() -> None:
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.plot([0.0, 1.0], [0.0, 1.0], "o")
    axis.set_xlim(-0.3, 1.3)
    # The text would fit between the point and the axis, and touch the axis.
    labels = Labels(axis)
    room = axis.transData.transform((0, 0))[0] - axis.get_window_extent().x0
    text = "x"
    while (extent := figure.text(0, 0, text + "x").get_window_extent().width) < room - 7 * figure.dpi / 72:
        text += "x"
    assert labels.place(text, [(0.0, 0.0)]), extent
    box = Text.get_window_extent(axis.texts[0])
    inside = axis.get_window_extent()
    assert min(box.x0 - inside.x0, inside.x1 - box.x1, box.y0 - inside.y0, inside.y1 - box.y1) > 7 * figure.dpi / 72
    plt.close(figure)


def test_a_lone_value_has_its_neighbours_about_it() -> None:
    figure, axis = plt.subplots()
    madds_axis(axis, [8.73e6], "multiply-adds")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["6", "7", "8", "9", "10"]
    plt.close(figure)


def test_a_label_without_room_is_left_out() -> None:
    figure, axis = plt.subplots(figsize=(2, 2))
    axis.plot([0.5], [0.5], "o")
    assert not Labels(axis).place("far too long a text for so small a picture", [(0.5, 0.5)])
    assert not axis.texts
    plt.close(figure)


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        figure, axis = plt.subplots()
        axis.plot([1, 2], [1, 2], label="line")
        axis.legend()
        save(figure, tmp_path / f"{name}.of.two")
    for suffix in ("png", "svg"):
        assert (tmp_path / f"one.of.two.{suffix}").read_bytes() == (tmp_path / f"other.of.two.{suffix}").read_bytes()
    with pytest.raises(UserError, match="cannot be written"):
        save(plt.figure(), tmp_path / "nowhere" / "picture")
