"""Which int8 files a switch gets, judged by stubs; and one real choice, trained and converted."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundles import choice
from export.bundles import writing as bundle
from export.compression.settings import Compression
from export.conversion.job import Job
from export.proof import checks as verification
from fusion.bundle import manifest
from paradis_tf.records.workdir import Workdir
from paradis_tf.switches import Switch
from paradis_tf.training import run as training

ONE, TWO = Switch.parse("1.0"), Switch.parse("0.5+0.5")
JOBS = [Job(ONE, 0, "int8"), Job(TWO, 0, "int8"), Job(TWO, 1, "int8"), Job(TWO, 1, "float32")]
TRAINING = Compression(steps=7)
# The fraction of images that Keras and the files are right on.
KERAS, PTQ, QAT = {ONE: 0.9, TWO: 0.8}, {ONE: 0.899, TWO: 0.7}, {ONE: 0.95, TWO: 0.79}


class StubJudge:
    images = np.zeros((3, 2, 2, 3), np.uint8)
    count, metric, unit, per_unit, agreement_unit, most_lost = 3, "accuracy", "points", 100.0, "", 0.01

    def answers(self, summed: Any) -> Any:
        return summed

    def score(self, answers: Any) -> float:
        return float(answers)

    def agreement(self, answers: Any, wanted: Any) -> float:
        raise NotImplementedError


class StubMaker:
    def recipe(self, job: Job, compression: Compression | None) -> str:
        return f"{job} {compression}"

    def make(self, plan: Any) -> None:
        self.made = set(plan)


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    written: list[Any] = []
    said: list[str] = []

    def scores(write: Any, plan: Any, judge: Any) -> dict[Switch, float]:
        write(plan)
        return {job.switch: (PTQ if one is None else QAT)[job.switch] for job, one in plan.items()}

    monkeypatch.setattr(choice, "_scores", scores)
    monkeypatch.setattr(verification, "partial_outputs", lambda model, switch, images: [np.float64(KERAS[switch])])

    def choose(max_drop: float, older: Any = None) -> Any:
        written.clear()
        said.clear()
        plan: dict[Job, Compression | None] = dict.fromkeys(JOBS)
        maker: Any = StubMaker()
        model: Any = None
        write: Any = written.append
        found = choice.choose(maker, plan, TRAINING, max_drop, model, StubJudge(), write, older or {}, said.append)
        return *found, list(written), list(said)

    return choose


def test_trains_only_what_loses_too_much(choosing: Callable[..., Any]) -> None:
    plan, verdicts, written, said = choosing(0.005)
    assert plan == {JOBS[0]: None, JOBS[1]: TRAINING, JOBS[2]: TRAINING, JOBS[3]: None}
    assert (verdicts[ONE].chosen, verdicts[ONE].qat) == ("ptq", None)
    assert (verdicts[TWO].chosen, verdicts[TWO].qat) == ("qat", 0.79)
    assert verdicts[TWO].lost == pytest.approx(0.01, rel=1e-4)
    assert [set(part) for part in written] == [set(JOBS[:3]), {JOBS[1], JOBS[2]}]
    assert "switch '0.5+0.5': post-training quantization loses 10.00 points; quantization-aware training" in said


def test_keeps_what_was_better_before_the_training(
    choosing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QAT, TWO, 0.6)
    plan, verdicts, _, _ = choosing(0.005)
    assert plan == dict.fromkeys(JOBS)
    assert (verdicts[TWO].chosen, verdicts[TWO].qat) == ("ptq", 0.6)


def test_an_older_verdict_is_taken_if_nothing_has_changed(choosing: Callable[..., Any], tmp_path: Path) -> None:
    _, verdicts, _, _ = choosing(0.005)
    entries = [{"switch": str(switch), "quantization": vars(one)} for switch, one in verdicts.items()]
    (tmp_path / "manifest.json").write_text(json.dumps({"switches": entries}))
    older = choice.older_verdicts(tmp_path)
    plan, again, written, said = choosing(0.005, older)
    assert (again, written, said) == (verdicts, [], [])
    assert plan[JOBS[1]] == TRAINING
    # With another limit all is judged anew.
    _, _, written, _ = choosing(0.2, older)
    assert len(written) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"switches": [{}]}', '{"switches": 3}'])
def test_a_broken_manifest_has_no_verdicts(tmp_path: Path, text: str) -> None:
    assert choice.older_verdicts(tmp_path) == {}
    (tmp_path / "manifest.json").write_text(text)
    assert choice.older_verdicts(tmp_path) == {}


VERDICT = {"key": "k", "metric": "m", "images": 3, "keras": 1.0, "ptq": 0.5, "qat": 0.75, "chosen": "qat"}


@pytest.mark.parametrize(
    "change",
    [{"chosen": "float16"}, {"ptq": "0.5"}, {"qat": None}, {"keras": None}, {"images": -1}, {"key": None}],
    ids=str,
)
def test_an_edited_verdict_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    entries = [
        {"switch": "1.0", "quantization": VERDICT | change},
        {"switch": "0.5+0.5", "quantization": VERDICT},
        {"switch": "4x0.25", "quantization": [1]},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"switches": entries}))
    assert choice.older_verdicts(tmp_path) == {"0.5+0.5": choice.Verdict(**VERDICT)}  # type: ignore[arg-type]


def test_float16_comes_first_where_int8_loses_too_much(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an injected loss: the files of one switch are right on none of the images."""
    scores = {str(switch): float(switch == exported.model.switches[0]) for switch in exported.model.switches}
    monkeypatch.setattr(
        choice, "_scores", lambda write, plan, judge: {s: scores[str(s)] for s in exported.model.switches}
    )
    shutil.copytree(exported.bundle, tmp_path / "bundle")
    compression = Compression()
    model, dataset = training.load_run(Workdir.open(str(exported.workdir)), None)
    # Nothing is trained, so that it is this loss that decides.
    settings = bundle.Settings("digits", ("int8",), (16, 16), 256, False, "auto", 1.0, compression, 64, 2)
    said: list[str] = []
    model_file = exported.workdir / "model.keras"
    unknown = bundle.write(tmp_path / "bundle", settings, model, model_file, dataset, said.append)
    made = manifest.load(tmp_path / "bundle")
    assert made.precisions == ("float16", "int8")
    assert made.check_precision(None) == "float16"
    for entry in made.switches:
        assert entry.switch in unknown
        assert all(set(part.files) == {"float16", "int8"} for part in entry.slices)
    keras = json.loads((tmp_path / "bundle/manifest.json").read_text())["switches"][1]["quantization"]["keras"]
    poor = f"int8 loses up to {100 * keras:.2f} percentage points on '0.5+0.25+0.25'"
    assert f"{poor}: float16 files come first in this bundle" in said
    assert "4 of 4 slice files are as they were" in said
    assert "`float16` is what the programs run unless told" in (tmp_path / "bundle/README.md").read_text()


@pytest.mark.slow
def test_files_of_a_training_are_taken_over(
    exported: Any, run_program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    flags = [f"--workdir={exported.workdir}", f"--bundle={tmp_path / 'bundle'}", "--sparsity=0.5", "--name=small"]
    flags += ["--compression_steps=4", "--compression_images=64", "--calibration_images=16"]
    done = run_program("export.convert", *flags, "--quantization=qat")
    assert done.returncode == 0, done.stderr
    assert "compressing 1.0, 0.5+0.25+0.25" in done.stdout
    written = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    for entry in written["switches"]:
        for part in entry["slices"]:
            file = part["files"]["int8"]
            assert file["quantization"] == "qat"
            assert (file["compression"]["sparsity"], file["compression"]["steps"]) == (0.5, 4)
            assert file["compression"]["found_sparsity"] >= 0.5
    done = run_program("export.convert", *flags, "--quantization=qat")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 slice files are as they were" in done.stdout and "compressing" not in done.stdout
    again = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert again["switches"] == written["switches"]
    # Judged by what was trained before, and with nothing to lose, none is trained.
    done = run_program("export.convert", *flags, "--quantization=auto", "--max_drop=100")
    assert done.returncode == 0, done.stderr
    assert "judging int8 files of 2 switches by 144 validation images" in done.stdout
    again = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert [entry["quantization"]["chosen"] for entry in again["switches"]] == ["ptq", "ptq"]
    done = run_program("export.convert", *flags, "--quantization=auto", "--max_drop=100")
    assert "judging" not in done.stdout
