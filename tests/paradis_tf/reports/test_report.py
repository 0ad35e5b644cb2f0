"""The report program: its files, its page, results from a CSV, and bad input."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fusion.base.program import UserError
from paradis_tf.reports.results import read_all, read_csv

HEADER = (
    "name,entry,method,seed,epochs,switch,devices,images,metric,accuracy,madds_total,madds_largest,parameters,"
    "config.method.name"
)
ROW = "p_seed0,p,ParaDiS,0,30,1.0,1,1000,accuracy,0.9,100,100,,paradis"


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "paradis_tf.report", *flags], capture_output=True, text=True, timeout=300
    )


def test_the_files_of_a_report(four_methods: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report"
    done = run(*[f"--workdir={folder}" for folder in four_methods], f"--target={target}", "--title=A < B")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(path.name for path in target.iterdir()) == [
        "devices_left.png",
        "devices_left.svg",
        "index.html",
        "report.json",
        "report.png",
        "report.svg",
    ]
    values = json.loads((target / "report.json").read_text())
    points = {(point["method"], point["switch"]): point["mean"] for point in values["points"]}
    assert points["paradis", "4x0.25"] == pytest.approx(0.81)
    differences = {
        (one["claim"], one["switch"], one["reference_line"]): one["difference"]["mean"]
        for one in values["comparisons"]
        if one["difference"]
    }
    assert differences["c", "4x0.25", "slimmable"] == pytest.approx(0.11)

    page = (target / "index.html").read_text()
    assert "<h1>A &lt; B</h1>" in page
    assert page.count("<svg") == page.count('<svg role="img" aria-label="') == 2
    assert not re.search(r'(?:src|href)="(?!#)', page)  # all of it is in this file
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    for piece in (
        "81.00 ± 1.41",  # mean and spread of 4x0.25
        "+3.00",
        "-,1,-,3",
        "4x0.25 2 40.50 ± 0.71",  # two left: half of 81.00 ± 1.41
        "python 3.11.9, keras 3.15.1",
    ):
        assert piece in text, piece
    for letter in "ABC":
        assert f"<h2>{letter}. Against" in page
    for name in ("report.png", "devices_left.png"):
        with Image.open(target / name) as picture:
            assert min(picture.size) > 600

    # The same bytes come out of the same runs.
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    done = run(*[f"--workdir={folder}" for folder in four_methods], f"--target={target}", "--title=A < B")
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_csv_of_results(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    columns = ",seconds,command,config.model.name,config.dataset.name,config.dataset.validation_fraction,version.keras"
    rest = ",5,make it,mobilenet_v1,cifar10,0.1,3.15.1"
    lines = [
        ROW,
        "p_seed1,p,ParaDiS,1,30,1.0,1,1000,accuracy,0.8,100,100,7,paradis",
        "h_seed0,h,twice,0,30,1.0,1,1000,accuracy,0.75,100,100,7,paradis",
        "g_seed0,g,twice,0,30,1.0,1,1000,accuracy,0.75,100,100,7,paradis",
        "i_1,individual_1,individual,0,30,1.0,1,1000,accuracy,0.7,100,100,7,individual",
        "i_2,individual_2,individual,0,30,0.5+0.5,2,1000,accuracy,0.6,60,30,7,individual",
    ]
    file.write_text("\n".join([HEADER + columns, *(line + rest for line in lines), ""]))
    runs = read_csv(str(file))
    assert [(one.name, one.seed, one.label, one.rows[0].value) for one in runs] == [
        ("p_seed0", 0, "ParaDiS", 0.9),
        ("p_seed1", 1, "ParaDiS", 0.8),
        ("h_seed0", 0, "h", 0.75),
        ("g_seed0", 0, "g", 0.75),
        ("i_1", 0, "individual", 0.7),
        ("i_2", 0, "individual", 0.6),
    ]
    assert [one.method for one in runs] == ["paradis"] * 4 + ["individual"] * 2
    assert len({one.line for one in runs}) == 4
    assert (runs[0].rows[0].parameters, runs[1].rows[0].parameters) == (None, 7)
    assert runs[0].identity == {"config.model.name": "mobilenet_v1", "config.dataset.name": "cifar10"}
    assert (runs[0].command, runs[0].versions) == ("make it", {"keras": "3.15.1"})


def test_the_results_of_the_project_can_be_reported(tmp_path: Path) -> None:
    target = tmp_path / "report"
    done = run("--results=benchmarks/results/wdsr_x2.csv", f"--target={target}")
    assert done.returncode == 0, done.stderr
    assert "PSNR-Y (dB)" in done.stdout
    assert not (target / "devices_left.png").exists()  # that table is older than the column of live devices
    page = (target / "index.html").read_text()
    assert "33.68" in page and "python -m paradis_tf.train" in page
    assert "points" not in re.sub(r"<svg.*</svg>|<style.*</style>", "", page, flags=re.S)


BAD_RESULTS = {
    "columns": ("a,b\n1,2\n", "lacks the columns name, entry, method, switch"),
    "number": (f"{HEADER}\n{ROW.replace('0.9', 'good')}\n", "line 2: accuracy is 'good'; it is a number"),
    "finite": (f"{HEADER}\n{ROW.replace('0.9', 'nan')}\n", "line 2: accuracy is nan; it is a finite number"),
    "fields": (f"{HEADER}\n{ROW},1,2\n", "line 2 has another number of fields than the header, 14"),
    "short": (f"{HEADER}\n{ROW}\np,paradis\n", "line 3 has another number of fields"),
    "empty": (f"{HEADER}\n", "has no row."),
    "metric": (f"{HEADER},f1\n{ROW},1\n".replace(",accuracy,0.9", ",f1,0.9"), "metric is 'f1'; known are accuracy"),
    "no value": (f"{HEADER}\n{ROW.replace(',accuracy,', ',psnr_y,')}\n", "line 2: psnr_y is None; it is a number"),
    "column twice": (f"{HEADER},switch\n{ROW},1.0\n", "has the columns switch more than once"),
    "no switch": (
        f"{HEADER}\n{ROW.replace(',30,1.0,', ',30,,')}\n",
        "line 2: switch is ''; it is a",
    ),
    "percent": (f"{HEADER}\n{ROW.replace('0.9', '90')}\n", "line 2: accuracy is 90.0; it lies between 0 and 1"),
    "seed": (f"{HEADER}\n{ROW.replace(',0,30,', ',-1,30,')}\n", "line 2: seed is -1; it is a whole number of at"),
    "epochs": (f"{HEADER}\n{ROW.replace(',0,30,', ',0,0,')}\n", "line 2: epochs is 0; it is a whole number of at"),
    "huge cost": (f"{HEADER}\n{ROW.replace(',100,', ',1' + 400 * '0' + ',')}\n", "line 2: madds_total has 401 digits"),
    "cost": (f"{HEADER}\n{ROW.replace(',100,', ',0,')}\n", "line 2: madds_total is 0; it is a whole number"),
}


TWO = ROW.replace(",1.0,1,", ",0.5+0.5,2,")
BAD_LIVE = {
    "no JSON": ("0: 0.5", "line 2: live_subsets is not JSON (Extra data"),
    "brackets": ("[" * 100_000, "line 2: live_subsets is not JSON ("),
    "long": ("[" + " " * 200_000, "line 2: live_subsets is not JSON ("),
    "no list": ('{"0": 0.5}', "line 2: live_subsets is not a list of devices and accuracy."),
    "truth": ('[{"devices": [0], "accuracy": true}]', "live_subsets is not a list of devices and accuracy."),
    "beyond": (
        '[{"devices": [0, 2], "accuracy": 0.5}]',
        "has devices [0, 2]; they are one or more from 0 to 1, ascending",
    ),
    "order": ('[{"devices": [1, 0], "accuracy": 0.5}]', "live_subsets has devices [1, 0]; they are one or more from 0"),
    "none": ('[{"devices": [], "accuracy": 0.5}]', "live_subsets has devices []; they are one or more from 0 to 1"),
    "parts": ('[{"devices": [0.0], "accuracy": 0.5}]', "live_subsets has devices [0.0]; they are one or more from 0"),
    "twice": (
        '[{"devices": [1], "accuracy": 0.5}, {"devices": [1], "accuracy": 0.6}]',
        "live_subsets has devices [1] twice.",
    ),
    "percent": ('[{"devices": [0], "accuracy": 50}]', "devices [0]: accuracy is 50; it lies between 0 and 1"),
    "finite": ('[{"devices": [0], "accuracy": NaN}]', "devices [0]: accuracy is nan; it is a finite number"),
    "huge": (f'[{{"devices": [0], "accuracy": 1{400 * "0"}}}]', "0; it is a finite number"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD_LIVE.values(), ids=BAD_LIVE.keys())
def test_sets_of_live_devices_that_cannot_be_used(text: str, sentence: str, tmp_path: Path) -> None:
    quoted = text.replace('"', '""')
    (tmp_path / "results.csv").write_text(f'{HEADER},live_subsets\n{TWO},"{quoted}"\n')
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_csv(str(tmp_path / "results.csv"))


def test_rows_without_sets_of_live_devices(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(f"{HEADER}\n{TWO}\n")
    (tmp_path / "empty.csv").write_text(f"{HEADER},live_subsets\n{TWO},\n")
    assert [one.rows[0].live for name in ("old", "empty") for one in read_csv(str(tmp_path / f"{name}.csv"))] == [
        {},
        {},
    ]


@pytest.mark.parametrize(("text", "sentence"), BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
def test_results_that_cannot_be_used(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_csv(str(tmp_path / "results.csv"))


def test_a_mark_of_a_spreadsheet_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(f"{HEADER}\n{ROW}\n", encoding="utf-8-sig")
    assert [one.name for one in read_csv(str(tmp_path / "results.csv"))] == ["p_seed0"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.csv cannot be read: No such file"):
        read_csv(str(tmp_path / "nowhere.csv"))


def test_flags_that_do_not_go_together(four_methods: list[Path]) -> None:
    folders = [str(folder) for folder in four_methods]
    with pytest.raises(UserError, match="there is no run to report"):
        read_all([], [], [])
    with pytest.raises(UserError, match="--labels has 1 names for 7 --workdir, which make 4 lines, as seeds of one"):
        read_all(folders, ["one"], [])
    with pytest.raises(UserError, match="is given twice"):
        read_all([folders[0], folders[0] + "/"], [], [])


def test_labels_are_of_lines(four_methods: list[Path]) -> None:
    folders = [str(folder) for folder in four_methods]
    labels = [one.label for one in read_all(folders, ["a", "b", "c", "d"], [])]
    assert labels == ["a", "a", "b", "b", "c", "d", "d"]
    assert [one.label for one in read_all(folders[:2], ["mine"], [])] == ["mine", "mine"]


def test_somebody_elses_page_is_not_overwritten(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run("run", "paradis", {"1.0": 0.9})
    (tmp_path / "index.html").write_text("my page")
    done = run(f"--workdir={folder}", f"--target={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "is not a report's page" in done.stderr
    assert (tmp_path / "index.html").read_text() == "my page"
