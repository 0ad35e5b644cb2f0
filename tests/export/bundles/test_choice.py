"""Which int8 files a switch gets, by given scores; and the scores of real files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from export.bundles import choice, writing
from export.compression.settings import Compression
from export.conversion.job import SliceFile
from export.conversion.making import FileMaker, FilePlan
from export.conversion.older import OlderBundle
from fusion.bundle import manifest
from paradis_tf.data import datasets
from paradis_tf.records.workdir import Workdir
from paradis_tf.switches import Switch
from paradis_tf.training import run as training

ONE, TWO = Switch.parse("1.0"), Switch.parse("0.5+0.5")
FILES = [SliceFile(ONE, 0, "int8"), SliceFile(TWO, 0, "int8"), SliceFile(TWO, 1, "int8"), SliceFile(TWO, 1, "float32")]
TRAINING = Compression(quantization_aware=True, steps=7)
# The fraction of images that Keras and the files are right on.
KERAS, PTQ, QAT = {ONE: 0.9, TWO: 0.8}, {ONE: 0.899, TWO: 0.7}, {ONE: 0.95, TWO: 0.79}


class StubScorer:
    """Gives the scores above, and keeps the plans whose files were scored."""

    judge: Any = SimpleNamespace(
        images=np.zeros((3, 2, 2, 3), np.uint8), count=3, metric="accuracy", unit="points", per_unit=100.0
    )

    def __init__(self, qat: dict[Switch, float]) -> None:
        self.qat, self.plans = qat, list[FilePlan]()

    def score_network(self, switch: Switch) -> float:
        return KERAS[switch]

    def score_files(self, plan: FilePlan) -> dict[Switch, float]:
        self.plans.append(plan)
        return {file.switch: (PTQ if one is None else self.qat)[file.switch] for file, one in plan.items()}


class StubMaker:
    def recipe(self, file: SliceFile, compression: Compression | None) -> str:
        return f"{file} {compression}"

    def make(self, plan: FilePlan) -> None:
        """Everything is there."""


def choose(max_drop: float, older: Any = None, qat: dict[Switch, float] | None = None) -> Any:
    """The plan, the choices, the plans whose files were scored, and what was reported."""
    scorer, reports, maker = StubScorer(qat or QAT), list[str](), cast(FileMaker, StubMaker())
    plan, choices = choice.choose_quantization(
        maker, dict.fromkeys(FILES), TRAINING, max_drop, scorer, older or {}, reports.append
    )
    return plan, choices, scorer.plans, reports


def test_trains_only_what_loses_too_much() -> None:
    plan, choices, scored, reports = choose(0.005)
    assert plan == {FILES[0]: None, FILES[1]: TRAINING, FILES[2]: TRAINING, FILES[3]: None}
    assert (choices[ONE].chosen, choices[ONE].qat) == ("ptq", None)
    assert (choices[TWO].chosen, choices[TWO].qat) == ("qat", 0.79)
    assert choices[TWO].lost == pytest.approx(0.01, rel=1e-4)
    assert [set(files) for files in scored] == [set(FILES[:3]), {FILES[1], FILES[2]}]
    assert "switch '0.5+0.5': post-training quantization loses 10.00 points; quantization-aware training" in reports


def test_keeps_what_was_better_before_the_training() -> None:
    plan, choices, _, _ = choose(0.005, qat={TWO: 0.6})
    assert plan == dict.fromkeys(FILES)
    assert (choices[TWO].chosen, choices[TWO].qat) == ("ptq", 0.6)


def test_an_older_choice_is_taken_if_nothing_has_changed(tmp_path: Path) -> None:
    _, choices, _, _ = choose(0.005)
    entries = [{"switch": str(switch), "quantization": vars(one)} for switch, one in choices.items()]
    (tmp_path / "manifest.json").write_text(json.dumps({"switches": entries}))
    older = choice.older_choices(OlderBundle(tmp_path))
    plan, again, scored, reports = choose(0.005, older)
    assert (again, scored, reports) == (choices, [], [])
    assert plan[FILES[1]] == TRAINING
    # With another limit all is judged anew.
    _, _, scored, _ = choose(0.2, older)
    assert len(scored) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"switches": [{}]}', '{"switches": 3}'])
def test_a_broken_manifest_has_no_choices(tmp_path: Path, text: str) -> None:
    assert choice.older_choices(OlderBundle(tmp_path)) == {}
    (tmp_path / "manifest.json").write_text(text)
    assert choice.older_choices(OlderBundle(tmp_path)) == {}


CHOICE = {"key": "k", "metric": "m", "images": 3, "keras": 1.0, "ptq": 0.5, "qat": 0.75, "chosen": "qat"}


@pytest.mark.parametrize(
    "change",
    [{"chosen": "float16"}, {"ptq": "0.5"}, {"qat": None}, {"keras": None}, {"images": -1}, {"key": None}],
    ids=str,
)
def test_an_edited_choice_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    entries = [
        {"switch": "1.0", "quantization": CHOICE | change},
        {"switch": "0.5+0.5", "quantization": CHOICE},
        {"switch": "4x0.25", "quantization": [1]},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"switches": entries}))
    assert choice.older_choices(OlderBundle(tmp_path)) == {"0.5+0.5": choice.QuantizationChoice(**CHOICE)}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judged(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[], list[str]]]:
    """A bundle whose int8 files were judged, and what makes it anew and gives the reports."""
    folder = exported.copy(tmp_path_factory.mktemp("judged") / "bundle")
    model, dataset = training.load_run(Workdir.open(str(exported.workdir)), None)
    # With nothing to lose none is trained.
    settings = writing.BundleSettings("digits", ("int8",), (16, 16), 256, False, "auto", 1.0, Compression(), 64, 1)

    def write() -> list[str]:
        reports: list[str] = []
        writing.write(folder, settings, model, exported.workdir / "model.keras", dataset, reports.append)
        return reports

    assert "4 of 4 slice files are as they were" in write()
    return folder, write


def test_scores_are_those_of_network_and_files_on_the_validation_part(exported: Any, judged: Any) -> None:
    """Against the model called whole, and the files run by TensorFlow's interpreter."""
    part = datasets.load("digits").validation
    bundle = manifest.load(judged[0])
    for entry, written in zip(bundle.switches, read_switches(judged[0]), strict=True):
        logits = exported.model(part.images, path=entry.switch)["prediction"].numpy()
        summed = sum(run_file(judged[0] / slice_.files["int8"].path, part.images) for slice_ in entry.slices)
        scores = written["quantization"]
        assert scores["keras"] == pytest.approx((logits.argmax(axis=1) == part.labels).mean())
        assert scores["ptq"] == pytest.approx((summed.argmax(axis=1) == part.labels).mean(), abs=1.01 / len(part))
        assert (scores["qat"], scores["chosen"], scores["images"]) == (None, "ptq", len(part))


def run_file(path: Path, images: np.ndarray) -> Any:
    """Its dequantized logits, (n, classes), by the reference kernels."""
    kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
    with pytest.warns(UserWarning, match="Interpreter is deprecated"):
        interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=kernels)
    run, (scale, zero) = interpreter.get_signature_runner(), interpreter.get_output_details()[0]["quantization"]
    return np.stack([(run(image=image[np.newaxis])["logits"][0].astype(float) - zero) * scale for image in images])


def read_switches(bundle: Path) -> list[dict[str, Any]]:
    switches: list[dict[str, Any]] = json.loads((bundle / "manifest.json").read_text())["switches"]
    return switches


def test_float16_comes_first_where_int8_loses_too_much(judged: Any) -> None:
    """An older choice with the same key is believed, here first one by which a switch loses all, then nothing."""
    folder, write = judged
    for lost, precisions in ((1.0, ("float16", "int8")), (0.0, ("int8",))):
        written = json.loads((folder / "manifest.json").read_text())
        for entry in written["switches"]:
            entry["quantization"]["ptq"] = entry["quantization"]["keras"] * (1 - lost)
        (folder / "manifest.json").write_text(json.dumps(written))
        reports = write()
        made = manifest.load(folder)
        assert (made.precisions, made.check_precision(None)) == (precisions, precisions[0])
        assert {tuple(slice_.files) for entry in made.switches for slice_ in entry.slices} == {precisions}
        told = [report for report in reports if "float16 files come first in this bundle" in report]
        assert len(told) == (lost > 0) and all("percentage points on '1.0', '0.5+0.25+0.25': " in one for one in told)
        assert not any("judging" in report for report in reports)
        assert f"`{precisions[0]}` is what the programs run unless told" in (folder / "README.md").read_text()


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
