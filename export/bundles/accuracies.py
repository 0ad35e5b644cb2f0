"""The accuracies that an older bundle has of switches whose files are still the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from export.conversion.older import OlderBundle
from paradis_tf.evaluation.live_subsets import live_subsets

# What the answers of a switch depend on beside its own files.
_SHARED = ("model_id", "task", "input", "output", "fusion", "labels", "packages")


def kept_accuracies(older: OlderBundle, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By switch, what `export.verify` measured of an older bundle, where a new one gives the same answers.

    Args:
      older: the older bundle.
      manifest: of the new bundle.

    Only of switches all of whose files have the same hashes, in bundles of one network, tail and set of packages.
    """
    if any(older.manifest.get(key) != manifest.get(key) for key in _SHARED):
        return {}
    kept = {}
    for entry in manifest["switches"]:
        before = older.switches.get(entry["switch"], {})
        try:
            if _hashes(before) == _hashes(entry) and _is_complete(before["accuracy"], entry):
                kept[entry["switch"]] = before["accuracy"]
        except (KeyError, TypeError, AttributeError):
            continue
    return kept


def _hashes(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    """The hashes of a switch's files, by precision, in the order of its slices."""
    return [{precision: file["sha256"] for precision, file in slice_["files"].items()} for slice_ in entry["slices"]]


def _is_complete(accuracy: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether it is as `export.verify` writes it, with every precision and every set of devices."""
    subsets = accuracy["live_subsets"]
    return (
        {"part", "images", "metric", "float", "exported", "live_subsets"} == set(accuracy)
        and (type(accuracy["part"]), type(accuracy["images"]), type(accuracy["metric"])) == (str, int, str)
        and [one["devices"] for one in subsets] == [list(live) for live in live_subsets(len(entry["slices"]))]
        and all(_has_scores(one, entry) for one in (accuracy, *subsets))
    )


def _has_scores(scores: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether `float` and `exported` of every precision are there, and numbers that JSON has."""
    exported = scores["exported"]
    numbers = (scores["float"], *exported.values())
    return set(exported) == set(entry["slices"][0]["files"]) and all(
        isinstance(number, float) and math.isfinite(number) for number in numbers
    )
