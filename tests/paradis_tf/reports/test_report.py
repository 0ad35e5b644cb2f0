"""The report program: its files, its page, results from a CSV, and bad input."""

from __future__ import annotations

import csv
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

HEADER = "name,method,seed,epochs,switch,devices,images,accuracy,madds_total,madds_largest"
ROW = "paradis_seed0,paradis,0,30,1.0,1,1000,0.9,100,100"


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
        "index.html",
        "report.csv",
        "report.json",
        "report.png",
        "report.svg",
    ]
    with (target / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 3 + 1 + 1 + 3 + 3 + 3
    measured = {(row["run"], row["switch"]): (row["accuracy"], row["madds_largest"], row["seed"]) for row in rows}
    assert measured["p1", "4x0.25"] == ("0.82", "1000000", "1")
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
    assert page.count("<svg") == 1
    assert not re.search(r'(?:src|href)="(?!#)', page)  # all of it is in this file
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for piece in (
        "81.00 ± 1.41",  # mean and spread of 4x0.25
        "+3.00",
        "-,1,-,3",
        "--config=paradis_tf/configs/defaults.py:paradis",
        "--config.seed=1",
        """"--config.switches=('1.0', '0.5+0.5', '4x0.25')" \\""",
        "python 3.11.9, keras 3.15.1",
    ):
        assert piece in text, piece
    for letter in "ABC":
        assert f"<h2>{letter}. Against" in page
    with Image.open(target / "report.png") as picture:
        assert min(picture.size) > 600

    # What it wrote as CSV gives the same lines again, and the same bytes come out of the same runs.
    again = tmp_path / "again"
    done = run(f"--results={target / 'report.csv'}", f"--target={again}")
    assert done.returncode == 0, done.stderr
    found = json.loads((again / "report.json").read_text())
    assert {(point["method"], point["switch"]): point["mean"] for point in found["points"]} == points
    assert [point["line"] for point in found["points"]] == [point["line"] for point in values["points"]]
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    done = run(*[f"--workdir={folder}" for folder in four_methods], f"--target={target}", "--title=A < B")
    assert done.returncode == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_csv_of_results(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(
        "\n".join(
            [
                HEADER + ",dataset,seconds",
                ROW + ",cifar10,5",
                "paradis_seed1,paradis,1,30,1.0,1,1000,0.8,100,100,cifar10,5",
                "individual_1.0,individual,0,30,1.0,1,1000,0.7,100,100,cifar10,5",
                "individual_0.5+0.5,individual,0,30,0.5+0.5,2,1000,0.6,60,30,cifar10,5",
                "",
            ]
        )
    )
    runs = read_csv(str(file))
    assert [(one.name, one.seed, one.label, one.rows[0].value) for one in runs] == [
        ("paradis_seed0", 0, "", 0.9),
        ("paradis_seed1", 1, "", 0.8),
        ("individual_1.0", 0, "", 0.7),
        ("individual_0.5+0.5", 0, "", 0.6),
    ]
    assert len({one.line for one in runs}) == 2
    assert runs[0].identity == {"dataset": "cifar10"}
    assert [one.name for one in read_csv(str(file), ["indiv*"])] == ["individual_1.0", "individual_0.5+0.5"]


def test_results_that_bring_their_config(tmp_path: Path) -> None:
    header = (
        "name,entry,method,seed,epochs,switch,devices,images,accuracy,madds_total,madds_largest,command,"
        "config.method.name,config.model.name,config.model.width_multiplier,config.dataset.validation_fraction,version.keras"
    )
    rest = "30,1.0,1,1000,0.9,100,100,make it,{},mobilenet_v1,0.5,0.{},3.15.1"
    names = (
        "p_seed0,p,ParaDiS,0",
        "h_seed0,h,hard labels,0",
        "h2_seed0,h2,twice,0",
        "h3_seed0,h3,twice,0",
        "i_seed0,i,alone,0",
    )
    methods = ("paradis", "paradis", "paradis", "paradis", "individual")
    lines = [f"{name},{rest.format(method, n)}" for n, (name, method) in enumerate(zip(names, methods, strict=True))]
    (tmp_path / "results.csv").write_text("\n".join([header, *lines, ""]))
    runs = read_csv(str(tmp_path / "results.csv"))
    assert [one.method for one in runs] == list(methods)
    assert [one.label for one in runs] == ["", "hard labels", "h2", "h3", "alone"]
    assert runs[0].identity == {
        "architecture": "mobilenet_v1",
        "config.model.name": "mobilenet_v1",
        "config.model.width_multiplier": "0.5",
    }
    assert (runs[0].command, runs[0].versions) == ("make it", {"keras": "3.15.1"})


def test_the_metric_is_the_rows_own(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(
        HEADER.replace("accuracy", "metric,psnr_y")
        + "\nwdsr,paradis,0,30,1.0,1,100,psnr_y,33.521,100,100\nwdsr,paradis,0,30,4x0.25,4,100,psnr_y,32.9,40,10\n"
    )
    target = tmp_path / "report"
    done = run(f"--results={file}", f"--target={target}")
    assert done.returncode == 0, done.stderr
    assert "PSNR-Y (dB)" in done.stdout
    assert "33.52" in (target / "index.html").read_text()
    assert "points" not in re.sub(r"<svg.*</svg>|<style.*</style>", "", (target / "index.html").read_text(), flags=re.S)


BAD_RESULTS = {
    "columns": ("a,b\n1,2\n", "lacks the columns name, method, seed"),
    "number": (f"{HEADER}\n{ROW.replace('0.9', 'good')}\n", "line 2: accuracy is 'good'; it is a number"),
    "finite": (f"{HEADER}\n{ROW.replace('0.9', 'nan')}\n", "line 2: accuracy is nan; it is a finite number"),
    "fields": (f"{HEADER}\n{ROW},1,2\n", "line 2 has another number of fields than the header, 10"),
    "short": (f"{HEADER}\n{ROW}\np,paradis\n", "line 3 has another number of fields"),
    "empty": (f"{HEADER}\n", "has no row; its names are none"),
    "metric": (f"{HEADER},metric\n{ROW},f1\n", "line 2: metric is 'f1'; known are accuracy, psnr_y"),
    "no value": (f"{HEADER},metric\n{ROW},psnr_y\n", "line 2: psnr_y is None; it is a number"),
    "column twice": (f"{HEADER},switch\n{ROW},1.0\n", "has the columns switch more than once"),
    "no switch": (f"{HEADER}\n{ROW.replace(',1.0,', ',,')}\n", "line 2: switch is ''; it is a switch's text form"),
    "percent": (f"{HEADER}\n{ROW.replace('0.9', '90')}\n", "line 2: accuracy is 90.0; it lies between 0 and 1"),
    "seed": (f"{HEADER}\n{ROW.replace(',0,30,', ',-1,30,')}\n", "line 2: seed is -1; it is a whole number of at"),
    "epochs": (f"{HEADER}\n{ROW.replace(',0,30,', ',0,0,')}\n", "line 2: epochs is 0; it is a whole number of at"),
    "huge cost": (f"{HEADER}\n{ROW.replace(',100,', ',1' + 400 * '0' + ',')}\n", "line 2: madds_total has 401 digits"),
    "cost": (f"{HEADER}\n{ROW.replace(',100,', ',0,')}\n", "line 2: madds_total is 0; it is a whole number"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
def test_results_that_cannot_be_used(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_csv(str(tmp_path / "results.csv"))


def test_a_mark_of_a_spreadsheet_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(f"{HEADER}\n{ROW}\n", encoding="utf-8-sig")
    assert [one.name for one in read_csv(str(tmp_path / "results.csv"))] == ["paradis_seed0"]


def test_names_that_fit_nothing_are_told_the_names(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(f"{HEADER}\n{ROW}\n")
    with pytest.raises(UserError, match="no row of a name like slim.*; its names are paradis_seed0"):
        read_csv(str(tmp_path / "results.csv"), ["slim*"])
    with pytest.raises(UserError, match="nowhere.csv cannot be read: No such file"):
        read_csv(str(tmp_path / "nowhere.csv"))


def test_flags_that_do_not_go_together(four_methods: list[Path]) -> None:
    folders = [str(folder) for folder in four_methods]
    for given, sentence in (
        (([], [], [], []), "there is no run to report"),
        (
            (folders, ["one"], [], []),
            "--labels has 1 names for 7 --workdir, which make 4 lines, as seeds of one config",
        ),
        ((folders, [], [], ["x"]), "--names chooses among --results"),
        (([folders[0], folders[0] + "/"], [], [], []), "is given twice"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_all(*given)


def test_labels_are_of_lines_or_of_folders(four_methods: list[Path]) -> None:
    folders = [str(folder) for folder in four_methods]
    by_line = ["a", "a", "b", "b", "c", "d", "d"]
    for labels in (["a", "b", "c", "d"], by_line):
        assert [one.label for one in read_all(folders, labels, [], [])] == by_line
    assert [one.label for one in read_all(folders[:2], ["mine"], [], [])] == ["mine", "mine"]


def test_somebody_elses_page_is_not_overwritten(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_run("run", "paradis", {"1.0": 0.9})
    (tmp_path / "index.html").write_text("my page")
    done = run(f"--workdir={folder}", f"--target={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "is not a report's page" in done.stderr
    assert (tmp_path / "index.html").read_text() == "my page"
