"""Earlier verifications: read, or refused in one sentence; and what was lost since."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export.proof import baseline
from export.proof.records import SwitchCheck
from fusion.base.program import UserError

BUNDLE: Any = SimpleNamespace(
    folder="b", precisions=("int8",), switches=[SimpleNamespace(switch="1.0"), SimpleNamespace(switch="0.5+0.5")]
)


def entry(switch: str = "1.0", score: Any = 0.9, precision: str = "int8") -> dict[str, Any]:
    return {"switch": switch, "precision": precision, "runtime": "r 1.0, k", "score": score, "images": 100}


BAD = {
    "no JSON": ("{", "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "another list": ("[]", "is not the JSON of a verification"),
    "no switches": ('{"switches": {"1.0": 3}}', "is not the JSON of a verification"),
    "lists for names": (json.dumps({"switches": [entry() | {"switch": []}]}), "is not the JSON of a verification"),
    "text": (json.dumps({"switches": [entry(score="good")]}), "is not the JSON of a verification"),
    "not a number": (json.dumps({"switches": [entry(score=float("nan"))]}), "scores that are no finite numbers"),
    "huge": (json.dumps({"switches": [entry(score=10**400)]}), "is not the JSON of a verification"),
    "none": ('{"switches": []}', "has no switch and precision of bundle b"),
    "another bundle": (json.dumps({"switches": [entry("4x0.25")]}), "has no switch and precision of bundle b"),
    "another precision": (json.dumps({"switches": [entry(precision="float16")]}), "has no switch and precision"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_garbage_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text(text)
    with pytest.raises(UserError, match=said):
        baseline.read(str(tmp_path / "checks.json"), BUNDLE)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.json cannot be read: No such file"):
        baseline.read(str(tmp_path / "none.json"), BUNDLE)


def check(switch: str, score: float, runtime: str = "r 2.1b, k") -> SwitchCheck:
    return SwitchCheck(switch, "int8", runtime, False, 100, "accuracy", 100.0, 0.9, score)


def test_a_loss_since_then_is_told_whatever_the_runtimes_version(tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text(json.dumps({"switches": [entry(), entry("0.5+0.5", 0.8)]}))
    before = baseline.read(str(tmp_path / "checks.json"), BUNDLE)
    found = [check("1.0", 0.89), check("0.5+0.5", 0.7), check("0.25+0.75", 0.1), check("1.0", 0.1, "other 1, k")]
    assert baseline.regressions(found, before, 0.01, 100.0, "percentage points") == [
        "switch '0.5+0.5', int8 on r 2.1b, k: 70.00, and 80.00 earlier; it may lose 1 percentage points."
    ]


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    entries = [entry(), entry("4x0.25"), entry(precision="float16")]
    (tmp_path / "checks.json").write_text(json.dumps({"switches": entries}))
    before = baseline.read(str(tmp_path / "checks.json"), BUNDLE)
    assert baseline.regressions([check("1.0", 0.9)], before, 0.01, 100.0, "percentage points") == [
        "switch '1.0', float16: verified earlier, and not in this bundle.",
        "switch '4x0.25', int8: verified earlier, and not in this bundle.",
    ]


def test_other_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text(json.dumps({"switches": [entry()]}))
    before = baseline.read(str(tmp_path / "checks.json"), BUNDLE)
    before.require_images(100)
    with pytest.raises(UserError, match=r"checks.json is of 100 images, and this verification of 1,000; verify both"):
        before.require_images(1000)
