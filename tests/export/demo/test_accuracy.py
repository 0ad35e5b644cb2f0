"""The demonstration's table of accuracies."""

from __future__ import annotations

from typing import Any

import pytest

from export.demo import accuracy
from fusion.bundle.contents import SliceModel, SwitchEntry


def entry(devices: int, shares: dict[tuple[int, ...], float]) -> SwitchEntry:
    slices = tuple(SliceModel(i, "0", "1", f"s-{i}", 1, 1, {}) for i in range(devices))
    subsets = [{"devices": list(live), "exported": {"int8": share, "float32": 0.0}} for live, share in shares.items()]
    return SwitchEntry("s", "s", devices, {"live_subsets": subsets}, slices)


@pytest.mark.parametrize(
    ("devices", "shares", "mean"),
    [
        (2, {(0, 1): 0.98, (0,): 0.9, (1,): 0.8}, 0.85),
        (3, {(0, 1, 2): 0.97, (0, 1): 0.9, (0, 2): 0.6, (1, 2): 0.3, (0,): 0.1, (1,): 0.1, (2,): 0.1}, 0.6),
        (1, {(0,): 0.99}, None),
        (2, {}, None),
    ],
)
def test_what_is_right_without_a_device_is_a_mean_over_which_one(
    devices: int, shares: dict[tuple[int, ...], float], mean: float | None
) -> None:
    assert accuracy.without_one(entry(devices, shares), "int8") == (None if mean is None else pytest.approx(mean))


def test_the_table_says_what_a_dead_device_costs() -> None:
    row: dict[str, Any] = {"devices": 1, "madds_total": 3e6, "madds_largest": 3e6, "bytes_largest": 9e5}
    rows = [
        {"switch": "1.0", **row, "float_accuracy": 0.99, "served_accuracy": 0.98, "accuracy_without_one": None},
        {"switch": "0.5+0.5", **row, "float_accuracy": 0.97, "served_accuracy": 0.96, "accuracy_without_one": 0.9},
    ]
    header, _, whole, halves = accuracy.table(rows).splitlines()
    assert header.split("  ")[-3:] == ["float (%)", "served (%)", "one device dead (%)"]
    assert (whole.split()[-3:], halves.split()[-3:]) == (["99.00", "98.00", "-"], ["97.00", "96.00", "90.00"])
