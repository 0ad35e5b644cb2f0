"""Super-resolution in a report: a table for each set of test images, beside bicubic enlargement."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fusion.base.program import UserError
from paradis_tf.base.metrics import METRICS
from paradis_tf.records.workdir import flat
from paradis_tf.reports import figures, page, tables
from paradis_tf.reports.image_sets import ImageSet, shown, whole
from paradis_tf.reports.results import read_csv
from paradis_tf.reports.runs import Run, read_folder

PSNR = METRICS["psnr_y"]


@pytest.fixture
def write_pairs(write_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run with, by switch, the PSNR on 3 images of Wide and 1 of Set5."""

    def write(name: str, method: str, found: dict[str, tuple[float, float]], seed: int = 0) -> Path:
        folder = write_run(name, method, dict.fromkeys(found, 0.5), seed=seed)
        rows = json.loads((folder / "evaluation.json").read_text())
        for row in rows:
            wide, five = found[row["switch"]]
            del row["accuracy"]
            row |= {
                "metric": "psnr_y",
                "images": 4,
                "psnr_y": (3 * wide + five) / 4,
                "live_subsets": [{"devices": [0], "psnr_y": 7.0}],
                "sets": {"Wide": {"images": 3, "psnr_y": wide}, "Set5": {"images": 1, "psnr_y": five}},
                "bicubic": {"psnr_y": 28.5, "sets": {"Wide": {"psnr_y": 28.0}, "Set5": {"psnr_y": 30.0}}},
            }
        (folder / "evaluation.json").write_text(json.dumps(rows))
        return folder

    return write


@pytest.fixture
def runs(write_pairs: Callable[..., Path]) -> list[Run]:
    folders = [
        write_pairs("p0", "paradis", {"1.0": (31.0, 33.0), "4x0.25": (30.0, 32.0)}),
        write_pairs("p1", "paradis", {"1.0": (31.2, 33.2), "4x0.25": (30.4, 32.4)}, seed=1),
        write_pairs("i", "individual", {"1.0": (31.1, 33.5)}),
    ]
    return [read_folder(str(folder)) for folder in folders]


def test_each_set_has_its_table_with_bicubic_first(runs: list[Run]) -> None:
    five, wide = shown(runs)
    assert [(one.name, one.images, one.bicubic) for one in (five, wide)] == [("Set5", 1, 30.0), ("Wide", 3, 28.0)]
    rows = tables.means(five, PSNR).rows
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("bicubic", "–", "30.00"),
        ("ParaDiS", "1.0", "33.10 ± 0.14"),
        ("ParaDiS", "4x0.25", "32.20 ± 0.28"),
        ("individual networks", "1.0", "33.50"),
    ]
    assert [row[-1] for row in tables.means(wide, PSNR).rows] == ["28.00", "31.10 ± 0.14", "30.20 ± 0.28", "31.10"]
    alone = next(one for one in five.comparisons if one.switch == "1.0")
    assert alone.difference and alone.difference.mean == pytest.approx(-0.4)


def test_the_page_and_the_files_tell_the_sets(runs: list[Run]) -> None:
    sets = shown(runs)
    html = page.render("title", whole(runs), sets, PSNR, "<svg></svg>")
    text = re.sub(r"<[^>]+>", " ", html)
    assert text.index("Set5, 1 images") < text.index("Wide, 3 images")
    assert text.count("bicubic") == 2
    assert "A. Against individual networks, Wide" in text
    assert "The mean over the images of all sets" in text and "7.00" in text
    values = tables.results_json(whole(runs), sets, PSNR)
    assert values["points"][0]["mean"] == pytest.approx((3 * 31.1 + 33.1) / 4)
    assert values["sets"]["Set5"]["points"][1]["mean"] == pytest.approx(32.2)


def test_a_csv_gives_the_same_sets_again(runs: list[Run], tmp_path: Path) -> None:
    lines = []
    for run in runs:
        rows = json.loads((Path(run.where) / "evaluation.json").read_text())
        entry = run.name.rstrip("01")
        about = {"name": run.name, "entry": entry, "method": entry, "seed": run.seed, "epochs": run.epochs}
        method = {"config.method.name": run.method}
        for row in rows:
            del row["live_subsets"]
            lines.append(about | method | flat(row, ""))
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)
    again = shown(read_csv(str(tmp_path / "results.csv")))
    assert [(one.name, one.bicubic) for one in again] == [("Set5", 30.0), ("Wide", 28.0)]
    assert [[point.by_seed for line in one.lines for point in line.points] for one in again] == [
        [point.by_seed for line in one.lines for point in line.points] for one in shown(runs)
    ]


def test_a_set_that_one_run_lacks_is_left_out(runs: list[Run], write_run: Callable[..., Path]) -> None:
    plain = read_folder(str(write_run("plain", "paradis", {"1.0": 0.9})))
    assert [(one.name, one.bicubic, one.images) for one in shown([plain])] == [("", None, 1000)]
    assert [one.name for one in shown([*runs, plain])] == [""]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"images": 3, ', "", "set 'Wide' has no number of images or no psnr_y"),
        ('"images": 3, ', '"images": 0, ', "set 'Wide' has no image"),
        ('"psnr_y": 28.0', '"psnr_y": "much"', "set 'Wide' has no number of images or no psnr_y"),
        ('"psnr_y": 31.0', '"psnr_y": NaN', "set 'Wide' has no image, or a psnr_y that is not finite"),
    ],
)
def test_damaged_sets_are_named(write_pairs: Callable[..., Path], old: str, new: str, sentence: str) -> None:
    folder = write_pairs("p", "paradis", {"1.0": (31.0, 33.0)})
    text = (folder / "evaluation.json").read_text()
    assert old in text
    (folder / "evaluation.json").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=sentence):
        read_folder(str(folder))


def test_a_set_of_other_images_is_refused(write_pairs: Callable[..., Path]) -> None:
    folders = [write_pairs(f"p{seed}", "paradis", {"1.0": (31.0, 33.0)}, seed=seed) for seed in (0, 1)]
    file = folders[1] / "evaluation.json"
    file.write_text(file.read_text().replace('"psnr_y": 28.0', '"psnr_y": 27.0'))
    with pytest.raises(UserError, match="p0 and .*p1 differ in the images of set Wide"):
        shown([read_folder(str(folder)) for folder in folders])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[ImageSet], Figure]:
    """Draws a set and gives the figure in place of writing it."""
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, stem: kept.append(figure))

    def draw(of_set: ImageSet) -> Figure:
        figures.draw(of_set, PSNR, "title", Path("unused"))
        return kept[-1]

    return draw


def heights(axis: object) -> list[float]:
    """The dashed lines across a panel."""
    return [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"]  # type: ignore[attr-defined]


def test_bicubic_is_a_line_of_the_picture(runs: list[Run], drawn: Callable[[ImageSet], Figure]) -> None:
    # 2 dB below switches that lie 1.3 dB apart: in the legend alone.
    figure = drawn(shown(runs)[0])
    assert figure.get_suptitle() == "title: Set5, 1 images"
    assert [heights(axis) for axis in figure.axes] == [[], []]
    assert figure.axes[0].get_ylim()[0] > 31
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "bicubic, 30.00"
    near = ImageSet("Set5", 1, shown(runs)[0].lines, (), bicubic=31.5)
    assert [heights(axis) for axis in drawn(near).axes] == [[31.5], [31.5]]


def test_a_lone_individual_network_is_seen(write_run: Callable[..., Path], drawn: Callable[[ImageSet], Figure]) -> None:
    figure = drawn(whole([read_folder(str(write_run("i", "individual", {"1.0": 0.9})))]))
    for axis in figure.axes:
        assert any(line.get_marker() == "D" for line in axis.lines)
