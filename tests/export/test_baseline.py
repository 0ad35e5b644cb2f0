"""Earlier verifications: read, or refused in one sentence; and what was lost since."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export import baseline
from export.fusion.program import UserError
from export.verification import SwitchCheck

BUNDLE: Any = SimpleNamespace(
    folder="b", precisions=("int8",), switches=[SimpleNamespace(switch="1.0"), SimpleNamespace(switch="0.5+0.5")]
)


def entry(switch: str = "1.0", score: Any = 0.9, precision: str = "int8") -> dict[str, Any]:
    return {"switch": switch, "precision": precision, "runtime": "r", "score": score}


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


def test_a_loss_since_then_is_told(tmp_path: Path) -> None:
    (tmp_path / "checks.json").write_text(json.dumps({"switches": [entry(), entry("0.5+0.5", 0.8), entry("4x0.25")]}))
    before = baseline.read(str(tmp_path / "checks.json"), BUNDLE)
    found = [
        SwitchCheck(switch, "int8", "r", False, 100, "accuracy", 100.0, 0.9, score)
        for switch, score in (("1.0", 0.89), ("0.5+0.5", 0.7), ("0.25+0.75", 0.1))
    ]
    assert baseline.regressions(found, before, 0.01, 100.0, "percentage points") == [
        "switch '0.5+0.5', int8 on r: 70.00, and 80.00 earlier; it may lose 1 percentage points."
    ]
