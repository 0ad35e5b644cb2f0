"""What is left of switches with so many devices, averaged over sets and seeds by hand, in the table and the picture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from paradis_tf.base.metrics import METRICS
from paradis_tf.reports import figures, page, tables
from paradis_tf.reports.image_sets import ImageSet, whole
from paradis_tf.reports.runs import read_folder

ACCURACY = METRICS["accuracy"]


@pytest.fixture
def write_left(write_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run of `0.5+0.5`: its accuracy with both devices, with the first alone, and with the second alone."""

    def write(name: str, both: float, first: float, second: float, method: str = "paradis", **changes: Any) -> Path:
        folder = write_run(name, method, {"0.5+0.5": both}, **changes)
        live = [
            {"devices": [0, 1], "accuracy": both},
            {"devices": [0], "accuracy": first},
            {"devices": [1], "accuracy": second},
        ]
        [row] = json.loads((folder / "evaluation.json").read_text())
        (folder / "evaluation.json").write_text(json.dumps([row | {"live_subsets": live}]))
        return folder

    return write


@pytest.fixture
def both(write_left: Callable[..., Path], write_run: Callable[..., Path]) -> ImageSet:
    """A line without and a line with, two seeds each; an individual network, and a slimmable one of one device."""
    folders = [
        write_left("without0", 0.90, 0.60, 0.40),
        write_left("without1", 0.92, 0.64, 0.38, seed=1),
        write_left("with0", 0.90, 0.80, 0.84, epochs=7),
        write_left("with1", 0.94, 0.86, 0.90, epochs=7, seed=1),
        write_left("alone", 0.88, 0.30, 0.20, method="individual"),
        write_run("slim", "slimmable", {"1.0": 0.9, "0.5": 0.8}),
    ]
    return whole([read_folder(str(folder)) for folder in folders])


def test_each_seed_has_its_mean_over_the_sets(both: ImageSet) -> None:
    without, _, alone, slim = both.lines
    [point] = without.points
    # With one left, seed 0 has (60 + 40) / 2 and seed 1 (64 + 38) / 2: 50 and 51.
    assert list(point.left) == [2, 1]
    assert (point.left[2].mean, point.left[1].mean) == pytest.approx((0.91, 0.505))
    assert point.left[1].spread == pytest.approx(0.01 / 2**0.5)
    assert (alone.points[0].left[1].mean, alone.points[0].left[1].spread) == (0.25, None)
    assert slim.with_missing == () and len(without.with_missing) == 1


def test_the_table_shows_lines_side_by_side(both: ImageSet) -> None:
    table = tables.devices_left(both.lines, ACCURACY)
    names = ("ParaDiS (epochs=30)", "ParaDiS (epochs=7)", "individual networks")
    assert table.header == ("switch", "devices left", *names, "difference (points)")
    # With one left, the seeds of the second line have 82 and 88. Spreads: 1, 6 and their hypotenuse, over sqrt(2).
    assert table.rows == (
        ("0.5+0.5", "2", "91.00 ± 1.41", "92.00 ± 2.83", "88.00", "+1.00 ± 3.16"),
        ("0.5+0.5", "1", "50.50 ± 0.71", "85.00 ± 4.24", "25.00", "+34.50 ± 4.30"),
    )
    points = tables.results_json(both, [both], ACCURACY)["points"]
    assert [one["left"] for one in points[1]["devices_left"]] == [2, 1]
    assert points[1]["devices_left"][1]["mean"] == pytest.approx(0.85)


def test_lines_with_other_switches_leave_gaps(write_left: Callable[..., Path], write_run: Callable[..., Path]) -> None:
    folders = [write_run("four", "paradis", {"4x0.25": 0.8}), write_left("two", 0.9, 0.6, 0.5, epochs=7)]
    folders.append(write_left("third", 0.9, 0.6, 0.6, epochs=8))
    table = tables.devices_left(whole([read_folder(str(folder)) for folder in folders]).lines, ACCURACY)
    assert table.header[-2:] == tuple(f"{label}: difference (points)" for label in table.header[3:5])
    # The costliest switch first; the first line lacks it, so nothing is compared.
    assert table.rows == (
        ("0.5+0.5", "2", "–", "90.00", "90.00", "–", "–"),
        ("0.5+0.5", "1", "–", "55.00", "60.00", "–", "–"),
        ("4x0.25", "4", "80.00", "–", "–", "–", "–"),
        ("4x0.25", "3", "60.00", "–", "–", "–", "–"),
        ("4x0.25", "2", "40.00", "–", "–", "–", "–"),
        ("4x0.25", "1", "20.00", "–", "–", "–", "–"),
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """Draws a picture and gives the figure in place of writing it."""
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, stem: kept.append(figure))

    def draw(all_images: ImageSet, metric: str = "accuracy") -> Figure:
        figures.draw_devices_left(all_images, METRICS[metric], "title", Path("unused"))
        return kept[-1]

    return draw


def test_the_picture_has_a_panel_per_switch_and_a_curve_per_line(
    both: ImageSet, write_run: Callable[..., Path], drawn: Callable[..., Figure]
) -> None:
    figure = drawn(both)
    [axis] = [axis for axis in figure.axes if axis.get_visible()]
    curves = [line for line in axis.lines if line.get_linestyle() != "None"]
    places: list[Any] = [line.get_xydata() for line in curves]
    expected = [[[2.0, 91.0], [1.0, 50.5]], [[2.0, 92.0], [1.0, 85.0]], [[2.0, 88.0], [1.0, 25.0]]]
    np.testing.assert_allclose(places, expected)
    assert axis.get_title() == "0.5+0.5" and axis.xaxis_inverted()
    assert axis.get_ylabel() == "accuracy (%)"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["ParaDiS (epochs=30)", "ParaDiS (epochs=7)", "individual networks"]
    assert len({line.get_color() for line in curves}) == 3

    two = whole([read_folder(str(write_run("more", "paradis", {"0.5+0.5": 0.9, "4x0.25": 0.8})))])
    assert [axis.get_title() for axis in drawn(two).axes] == ["0.5+0.5", "4x0.25"]


def test_the_picture_of_super_resolution_is_in_decibels(
    write_left: Callable[..., Path], drawn: Callable[..., Figure]
) -> None:
    folder = write_left("p", 0.36, 0.24, 0.30)
    text = (folder / "evaluation.json").read_text()
    # 0.36 becomes 36 dB.
    rows = json.loads(re.sub(r'"accuracy": 0\.(\d\d?)', lambda found: f'"psnr_y": {found[1]:0<2}.0', text))
    (folder / "evaluation.json").write_text(json.dumps([row | {"metric": "psnr_y"} for row in rows]))
    pictures = whole([read_folder(str(folder))])
    table = tables.devices_left(pictures.lines, METRICS["psnr_y"])
    assert table.rows == (("0.5+0.5", "2", "36.00"), ("0.5+0.5", "1", "27.00"))
    [axis] = drawn(pictures, "psnr_y").axes
    assert axis.get_ylabel() == "PSNR-Y (dB)"
    places: Any = axis.lines[0].get_xydata()
    np.testing.assert_allclose(places, [(2, 36), (1, 27)])


def test_the_page_says_what_the_picture_shows(both: ImageSet, write_run: Callable[..., Path]) -> None:
    html = page.render("title", both, [both], ACCURACY, "<svg></svg>", '<?xml?><svg id="left"></svg>')
    [label] = re.findall(r'<svg role="img" aria-label="([^"]*)" id="left">', html)
    assert label == (
        "accuracy (%) against the number of devices left, a panel for each of 0.5+0.5; the table has the values."
    )
    assert "Differences are to ParaDiS (epochs=30)." in html and "<td>+34.50 ± 4.30</td>" in html
    plain = whole([read_folder(str(write_run("plain", "paradis", {"1.0": 0.9})))])
    assert "Devices left" not in page.render("title", plain, [plain], ACCURACY, "<svg></svg>")
    assert tables.devices_left(plain.lines, ACCURACY).rows == ()
