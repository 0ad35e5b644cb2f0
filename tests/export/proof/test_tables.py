"""What a verification prints, of figures made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from export.proof import tables
from export.proof.records import SwitchCheck, Verification

Scores = dict[tuple[int, ...], tuple[float, float]]


def subsets(scores: Scores) -> list[dict[str, Any]]:
    return [
        {"devices": list(devices), "float": of_keras, "exported": {"int8": of_file}}
        for devices, (of_keras, of_file) in scores.items()
    ]


def printed(live: dict[str, Scores], metric: str) -> list[str]:
    """The tables after that of the whole switches."""
    judge: Any = SimpleNamespace(metric=metric, per_unit=100 if metric == "accuracy" else 1, agreement_unit="", count=9)
    checks = [SwitchCheck(switch, "int8", "r", True, 9, metric, 1.0, 0.5, 0.5) for switch in live]
    of_sets = {switch: subsets(scores) for switch, scores in live.items()}
    return tables.render(Verification((), tuple(checks), of_sets, ()), judge, False).split("\n\n")[1:]


THREE: Scores = {(0, 1, 2): (0.75, 0.5), (0, 1): (0.5, 0.25), (0, 2): (0.25, 0.25), (1, 2): (0.0, 0.25)}
THREE |= {(0,): (0.25, 0.0), (1,): (0.125, 0.0), (2,): (0.0, 0.75)}
TWO: Scores = {(0, 1): (1.0, 0.5), (0,): (0.5, 0.25), (1,): (0.75, 0.25)}


def test_means_over_the_sets_of_so_many_devices() -> None:
    live, left = printed({"1.0": {(0,): (1.0, 0.5)}, "0.5+0.25+0.25": THREE, "0.5+0.5": TWO}, "accuracy")
    assert live.splitlines()[0] == "accuracy (%) with devices missing, files on tflite-runtime"
    assert left.splitlines() == [
        "accuracy (%), the mean over the sets with so many devices left",
        "switch         of     3 left  2 left  1 left",
        "-------------  -----  ------  ------  ------",
        "0.5+0.25+0.25  Keras   75.00   25.00   12.50",
        "0.5+0.25+0.25  int8    50.00   25.00   25.00",
        "0.5+0.5        Keras          100.00   62.50",
        "0.5+0.5        int8            50.00   25.00",
    ]


def test_means_of_images() -> None:
    _, left = printed({"0.5+0.5": {(0, 1): (31.0, 30.5), (0,): (29.0, 28.0), (1,): (28.0, 28.5)}}, "psnr_y")
    assert left.splitlines()[0] == "PSNR-Y (dB), the mean over the sets with so many devices left"
    assert [line.split()[2:] for line in left.splitlines()[3:]] == [["31.00", "28.50"], ["30.50", "28.25"]]


@pytest.mark.parametrize("switch", ["1.0", "0.5"])
def test_one_device_has_none_to_lose(switch: str) -> None:
    assert printed({switch: {(0,): (1.0, 0.5)}}, "accuracy") == []
