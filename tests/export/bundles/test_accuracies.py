"""Accuracies outlive a conversion where they are still true, and nowhere else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.bundles.accuracies import kept_accuracies
from export.conversion.older import OlderBundle

LIVE = {"1.0": [[0]], "0.5+0.5": [[0, 1], [0], [1]]}


def accuracy(score: float, *live: list[int]) -> dict[str, Any]:
    exported = {"int8": score - 0.01, "float32": score}
    return {
        "part": "test",
        "images": 300,
        "metric": "accuracy",
        "float": score,
        "exported": exported,
        "live_subsets": [{"devices": devices, "float": score, "exported": dict(exported)} for devices in live],
    }


def written() -> dict[str, Any]:
    def entry(switch: str, devices: int, score: float) -> dict[str, Any]:
        files = [{p: {"sha256": f"{switch} {device} {p}"} for p in ("int8", "float32")} for device in range(devices)]
        return {
            "switch": switch,
            "accuracy": accuracy(score, *LIVE[switch]),
            "slices": [{"files": one} for one in files],
        }

    shared = {"model_id": "a", "task": "classification", "labels": ["0", "1"], "fusion": {"rule": "sum"}}
    return {**shared, "packages": {"keras": "3"}, "switches": [entry("1.0", 1, 0.9), entry("0.5+0.5", 2, 0.8)]}


def kept(folder: Path, change: Callable[[dict[str, Any]], Any], now: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """What is kept of a bundle changed by `change`, as its next conversion comes out changed by `now`."""
    older, new = written(), written()
    change(older)
    now(new)
    for entry in new["switches"]:
        entry["accuracy"] = None
    before = copy.deepcopy(new)
    (folder / "manifest.json").write_text(json.dumps(older))
    found = kept_accuracies(OlderBundle(folder), new)
    assert new == before
    return found


def nothing(manifest: dict[str, Any]) -> None:
    """Leaves it as it is."""


def test_all_of_the_same_files(tmp_path: Path) -> None:
    assert kept(tmp_path, nothing, nothing) == {
        "1.0": accuracy(0.9, *LIVE["1.0"]),
        "0.5+0.5": accuracy(0.8, *LIVE["0.5+0.5"]),
    }
    # A name, and another switch, are no matter.
    assert set(kept(tmp_path, lambda m: m.update(name="old"), lambda m: m["switches"].pop())) == {"1.0"}
    assert set(kept(tmp_path, lambda m: m["switches"].pop(0), nothing)) == {"0.5+0.5"}


@pytest.mark.parametrize(
    "now",
    [
        lambda m: m["switches"][1]["slices"][1]["files"]["int8"].update(sha256="new"),
        lambda m: m["switches"][1]["slices"][0]["files"].pop("float32"),
        lambda m: m["switches"][1]["slices"].reverse(),
        lambda m: m["switches"][1]["slices"].pop(),
    ],
)
def test_not_of_a_switch_with_other_files(tmp_path: Path, now: Callable[[dict[str, Any]], Any]) -> None:
    assert set(kept(tmp_path, nothing, now)) == {"1.0"}


@pytest.mark.parametrize(
    "now",
    [
        lambda m: m.update(model_id="b"),
        lambda m: m.update(packages={"keras": "4"}),
        lambda m: m["fusion"].update(tail={"sha256": "new"}),
        lambda m: m.update(labels=["1", "0"]),
    ],
)
def test_not_of_another_network_tail_or_runtime(tmp_path: Path, now: Callable[[dict[str, Any]], Any]) -> None:
    assert kept(tmp_path, nothing, now) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["switches"][1].update(accuracy=None),
        lambda m: m["switches"][1]["accuracy"].pop("metric"),
        lambda m: m["switches"][1]["accuracy"].update(float="0.9"),
        lambda m: m["switches"][1]["accuracy"]["exported"].pop("int8"),
        lambda m: m["switches"][1]["accuracy"].update(float=float("nan")),
        lambda m: m["switches"][1]["accuracy"].update(images="300"),
        lambda m: m["switches"][1]["accuracy"].update(metric=None),
        lambda m: m["switches"][1]["accuracy"].update(live_subsets=[[0]]),
        lambda m: m["switches"][1]["accuracy"]["live_subsets"][0].pop("devices"),
        lambda m: m["switches"][1]["accuracy"]["live_subsets"].pop(),
        lambda m: m["switches"][1]["accuracy"]["live_subsets"][0].update(devices=["0"]),
        lambda m: m["switches"][1]["accuracy"]["live_subsets"][0].update(devices=[2]),
        lambda m: m["switches"][1]["accuracy"]["live_subsets"][0]["exported"].update(int8=float("inf")),
    ],
)
def test_not_what_is_missing_or_was_edited(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    assert set(kept(tmp_path, change, nothing)) == {"1.0"}


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"switches": 3}', '{"switches": [{"switch": []}]}'])
def test_nothing_of_a_broken_manifest(tmp_path: Path, text: str) -> None:
    assert kept_accuracies(OlderBundle(tmp_path), written()) == {}
    (tmp_path / "manifest.json").write_text(text)
    assert kept_accuracies(OlderBundle(tmp_path), written()) == {}
