"""The program that calibrates early answers: what it writes is what its promise recomputes to."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.early import record
from export.early.calibration import measure, most_lost
from export.proof import engines
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.rules.early import EarlyAnswer
from paradis_tf.data import datasets
from paradis_tf.records.workdir import Workdir


@pytest.fixture(scope="module")
def calibrated(exported, run_program, tmp_path_factory):
    """A calibrated copy of the bundle, the folder with its curve, the JSON, and what the program said."""
    folder = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(exported.bundle, folder / "bundle")
    options = (f"--workdir={exported.workdir}", f"--bundle={folder / 'bundle'}", "--precision=int8", "--max_drop=3")
    more = ("--latencies_ms=1,2,9", "--straggler=0.1,4", f"--target={folder / 'early'}", f"--json={folder / 'a.json'}")
    done = run_program("export.calibrate", *options, *more)
    assert done.returncode == 0, done.stderr
    return folder / "bundle", folder / "early", json.loads((folder / "a.json").read_text()), done.stdout


def test_the_manifest_keeps_the_promise(exported, calibrated):
    bundle = manifest.load(calibrated[0])
    one, three = bundle.switches
    assert not one.early and set(three.early) == {"int8"}
    config = Workdir.open(str(exported.workdir)).config()
    part = datasets.load(**config["dataset"], seed=config["seed"]).validation
    answers = engines.run(bundle, engines.REFERENCE, part.images[:])
    found = measure(answers.real(three, "int8"), part.labels)
    early = three.early["int8"]
    assert (early.images, early.max_drop, len(early.margins)) == (len(part), 0.03, 6)
    assert most_lost(found, early.margins) <= 0.03 * len(part)
    # The runner reads them: in some set some images are settled, and others are not.
    answer = EarlyAnswer(bundle, three, "int8", "confidence")
    sums = sum(answers.real(three, "int8")[:2])
    settled = [answer.settled(row[np.newaxis], frozenset({0, 1})) for row in np.asarray(sums)]
    assert np.mean(settled) == pytest.approx((found.lead[frozenset({0, 1})] > early.margins[frozenset({0, 1})]).mean())


def test_what_it_tells(calibrated):
    _, target, written, said = calibrated
    (switch,) = written["switches"]
    assert switch["switch"] == "0.5+0.25+0.25" and len(switch["sets"]) == 6
    assert switch["validation"]["least_accuracy"] >= switch["validation"]["accuracy"] - 0.03 - 1e-9
    assert "0,1,-" in said and "worst order" in said and "note: --max_drop is" in said
    with open(target / "early.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in row.items()} for row in written["curves"]] == rows
    assert rows[0]["slice_ms"] == "1 2 9" and {row["answers"] for row in rows} == {
        *("full", "bound", "calibrated", "confidence")
    }
    assert (target / "early.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (target / "early.svg").read_text()


def test_a_calibrated_bundle_is_known(exported, calibrated, tmp_path):
    assert record.has_calibration(calibrated[0])
    assert not record.has_calibration(exported.bundle)
    (tmp_path / "manifest.json").write_text('{"switches": [3]}')
    assert not record.has_calibration(tmp_path)


def test_a_bundle_that_changes_meanwhile_is_left_alone(calibrated, tmp_path):
    folder = Path(shutil.copytree(calibrated[0], tmp_path / "bundle"))
    bundle = manifest.load(folder)
    before = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(before + b"\n")
    with pytest.raises(UserError, match="was changed meanwhile; calibrate it again"):
        record.write(bundle, before, "int8", 0.01, [])
    assert (folder / "manifest.json").read_bytes() == before + b"\n"


def test_bad_input(exported, calibrated, run_program, tmp_path):
    common = (f"--workdir={exported.workdir}", f"--bundle={calibrated[0]}")
    for flags, said in (
        (["--max_drop=nan"], "--max_drop"),
        (["--precision=float16"], "precision 'float16' is not in bundle"),
        (["--straggler=0.1,2"], "--latencies_ms and --straggler are of the picture; give a folder for it by --target"),
        ([f"--target={tmp_path}", "--latencies_ms=1,2"], "legal: one per slice, 3 for 0.5+0.25+0.25"),
        ([f"--target={calibrated[0] / 'manifest.json'}"], "manifest.json cannot be made"),
    ):
        done = run_program("export.calibrate", *common, *flags)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
