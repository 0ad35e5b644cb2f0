"""Calibrated early answers as tables for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.early.calibration import Arrived, Early, Outcomes, evaluate
from fusion.base import columns
from paradis_tf.evaluation.live_subsets import text_form


@dataclass(frozen=True)
class Calibrated:
    """A calibrated switch.

    Attributes:
      margins, bound: by set of arrived slices, what the leading class has to be ahead by more than, as calibrated and
        for the rest not to matter whatever it is; infinity where nothing is settled.
      validation, test: the outcomes that it was calibrated on, and those that it is reported on.
    """

    switch: str
    margins: Mapping[Arrived, float]
    bound: Mapping[Arrived, float]
    validation: Outcomes
    test: Outcomes

    def sets(self) -> list[Arrived]:
        """The sets of arrived slices, the smallest first."""
        return sorted(self.margins, key=lambda arrived: (len(arrived), sorted(arrived)))

    def as_json(self) -> dict[str, Any]:
        """What the tables show, as parts of 1."""
        return {
            "switch": self.switch,
            "sets": [
                {
                    "devices": sorted(arrived),
                    "margin": self.margins[arrived],
                    "bound_margin": self.bound[arrived] if math.isfinite(self.bound[arrived]) else None,
                    "validation_early": _share(self.validation, arrived, self.margins),
                    "test_early": _share(self.test, arrived, self.margins),
                    "test_lost": _lost(self.test, arrived, self.margins),
                    "test_bound": _share(self.test, arrived, self.bound),
                }
                for arrived in self.sets()
            ],
            "validation": asdict(evaluate(self.validation, self.margins)),
            "test": asdict(evaluate(self.test, self.margins)),
            "test_bound": asdict(evaluate(self.test, self.bound)),
        }


def render(found: Sequence[Calibrated]) -> str:
    """What each set of arrived slices settles, and what becomes of each switch over all orders of arrival."""
    return f"\n{_sets(found)}\n\n{_switches(found)}\n"


def broken(found: Sequence[Calibrated], max_drop: float) -> list[str]:
    """A sentence for each switch that loses more than `max_drop`, a part of 1, on the test part, though calibration
    kept that on the validation part."""
    said = []
    for one in found:
        early = evaluate(one.test, one.margins)
        lost = early.accuracy - early.least_accuracy
        if lost > max_drop + 1e-9:
            said.append(
                f"on the {len(one.test.full)} test images, early answers of switch '{one.switch}' lose up to "
                f"{100 * lost:.2f} points (averaged over all orders of arrival, "
                f"{100 * (early.accuracy - early.mean_accuracy):.2f}), more than --max_drop={100 * max_drop:g}, which "
                f"holds on the {len(one.validation.full)} validation images; expect that of new images, or calibrate "
                "with a smaller --max_drop"
            )
    return said


def _sets(found: Sequence[Calibrated]) -> str:
    header = ("switch", "arrived", "ahead by more than", "early (%)", "lost (points)", "bound: ahead by", "early (%)")
    rows = [
        (
            one.switch,
            text_form(sorted(arrived), one.test.devices),
            f"{one.margins[arrived]:.3f}",
            f"{100 * _share(one.test, arrived, one.margins):.2f}",
            f"{100 * _lost(one.test, arrived, one.margins):.2f}",
            f"{one.bound[arrived]:.3f}" if math.isfinite(one.bound[arrived]) else "-",
            f"{100 * _share(one.test, arrived, one.bound):.2f}",
        )
        for one in found
        for arrived in one.sets()
    ]
    return (
        f"{len(found[0].test.full)} test images: how far the leading class has to be ahead once these slices have "
        "arrived, how many images\nare answered then, and how many of them all slices would have been right about and "
        "these are not;\nand by the bound, where nothing can be lost\n" + columns.render(header, rows)
    )


def _switches(found: Sequence[Calibrated]) -> str:
    header = (
        *("switch", "all slices (%)", "with early answers (%)", "worst order (%)"),
        *("early (%)", "least (%)", "slices waited for", "bound: early (%)"),
    )
    rows = []
    for one in found:
        early: Early = evaluate(one.test, one.margins)
        rows.append(
            (
                one.switch,
                f"{100 * early.accuracy:.2f}",
                f"{100 * early.mean_accuracy:.2f}",
                f"{100 * early.least_accuracy:.2f}",
                f"{100 * early.mean_share:.2f}",
                f"{100 * early.least_share:.2f}",
                f"{early.mean_waited:.2f} of {one.test.devices}",
                f"{100 * evaluate(one.test, one.bound).mean_share:.2f}",
            )
        )
    return (
        "accuracy on them, and the answers that did not wait for the last slice: over all orders of arrival, and of\n"
        "the worst one\n" + columns.render(header, rows)
    )


def _share(found: Outcomes, arrived: Arrived, needed: Mapping[Arrived, float]) -> float:
    return float((found.lead[arrived] > needed[arrived]).mean())


def _lost(found: Outcomes, arrived: Arrived, needed: Mapping[Arrived, float]) -> float:
    return float((found.lost(arrived) & (found.lead[arrived] > needed[arrived])).mean())
