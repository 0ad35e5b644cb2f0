"""The accuracies that an older bundle has of switches whose files are still the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paradis_tf.evaluation.live_subsets import live_subsets

# What the answers of a switch depend on beside its own files.
_SHARED = ("model_id", "task", "input", "output", "fusion", "labels", "packages")


def still_true(older: Path, written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By switch, what `verify` measured of an older bundle, where a new one gives the same answers.

    Args:
      older: the older bundle's folder.
      written: the new bundle's manifest.

    Only of switches all of whose files have the same hashes, in bundles of one network, tail and set of packages;
    nothing of a bundle that is not there or cannot be read.
    """
    try:
        before = json.loads((older / "manifest.json").read_text(encoding="utf-8"))
        if any(before.get(key) != written.get(key) for key in _SHARED):
            return {}
        entries = {entry["switch"]: entry for entry in before["switches"]}
        return {
            entry["switch"]: entries[entry["switch"]]["accuracy"]
            for entry in written["switches"]
            if entry["switch"] in entries
            and _files(entry) == _files(entries[entry["switch"]])
            and _is_whole(entries[entry["switch"]]["accuracy"], entry)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _files(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """The hashes of a switch's files, by precision, in the order of its slices."""
    return [{precision: file["sha256"] for precision, file in part["files"].items()} for part in entry["slices"]]


def _is_whole(accuracy: Any, entry: Mapping[str, Any]) -> bool:
    """Whether it is there, of every precision and every set of devices, as `verify` writes it."""
    return (
        isinstance(accuracy, dict)
        and {"part", "images", "metric", "float", "exported", "live_subsets"} == set(accuracy)
        and isinstance(accuracy["part"], str)
        and type(accuracy["images"]) is int
        and isinstance(accuracy["metric"], str)
        and _are_scores(accuracy, entry)
        and isinstance(accuracy["live_subsets"], list)
        and all(_are_scores(one, entry) for one in accuracy["live_subsets"])
        and [one.get("devices") for one in accuracy["live_subsets"]]
        == [list(devices) for devices in live_subsets(len(entry["slices"]))]
    )


def _are_scores(found: Any, entry: Mapping[str, Any]) -> bool:
    """Whether `float` and `exported` of every precision are there, and numbers that JSON has."""
    return (
        isinstance(found, dict)
        and isinstance(found.get("exported"), dict)
        and set(found["exported"]) == set(entry["slices"][0]["files"])
        and all(
            isinstance(score, float) and math.isfinite(score)
            for score in (found.get("float"), *found["exported"].values())
        )
    )
