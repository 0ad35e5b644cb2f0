"""The program that calibrates early answers: what it writes is what its promise recomputes to."""

from __future__ import annotations

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
def calibrated(exported, run_main, tmp_path_factory):
    """A calibrated copy of the bundle, the JSON, and what the program printed."""
    folder = tmp_path_factory.mktemp("calibrated")
    bundle = exported.copy(folder / "bundle")
    options = (f"--workdir={exported.workdir}", f"--bundle={bundle}", "--precision=int8", "--max_drop=3")
    done = run_main("export.calibrate", *options, f"--json={folder / 'a.json'}")
    assert done.returncode == 0, done.stderr
    return bundle, json.loads((folder / "a.json").read_text()), done.stdout


def test_the_manifest_keeps_the_promise(exported, calibrated):
    bundle = manifest.load(calibrated[0])
    one, three = bundle.switches
    assert not one.early and set(three.early) == {"int8"}
    config = Workdir.open(str(exported.workdir)).config()
    part = datasets.load(**config["dataset"], seed=config["seed"]).validation
    outputs = engines.run(bundle, engines.REFERENCE, part.images[:])
    outcomes = measure(outputs.real(three, "int8"), part.labels)
    margins = three.early["int8"]
    written = json.loads((calibrated[0] / "manifest.json").read_text())["switches"][1]["early"]["int8"]
    assert (written["images"], written["max_drop"], len(margins)) == (len(part), 0.03, 6)
    assert most_lost(outcomes, margins) <= 0.03 * len(part)
    # The runner reads them: in some set some images are settled, and others are not.
    answer = EarlyAnswer(bundle, three, "int8", "confidence")
    sums = sum(outputs.real(three, "int8")[:2])
    settled = [answer.settled(row[np.newaxis], frozenset({0, 1})) for row in np.asarray(sums)]
    ahead = outcomes.lead[frozenset({0, 1})] > margins[frozenset({0, 1})]
    assert np.mean(settled) == pytest.approx(ahead.mean())


def test_what_it_tells(calibrated):
    _, written, printed = calibrated
    (switch,) = written["switches"]
    assert switch["switch"] == "0.5+0.25+0.25"
    assert switch["validation"]["least_accuracy"] >= switch["validation"]["accuracy"] - 0.03 - 1e-9
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("0.5+0.25+0.25")]
    test = switch["test"]
    percents = [
        test["accuracy"],
        test["mean_accuracy"],
        test["least_accuracy"],
        test["mean_share"],
        test["least_share"],
    ]
    assert row[1:6] == [f"{100 * value:.2f}" for value in percents]
    assert "worst order" in printed and "note: --max_drop is" in printed


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


def test_bad_input(exported, calibrated, run_program):
    common = (f"--workdir={exported.workdir}", f"--bundle={calibrated[0]}")
    for flags, sentence in (
        (["--max_drop=nan"], "--max_drop"),
        (["--precision=float16"], "precision 'float16' is not in bundle"),
    ):
        done = run_program("export.calibrate", *common, *flags)
        assert done.returncode == 2 and sentence in done.stderr, done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
