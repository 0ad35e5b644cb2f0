"""Calibrated early answers as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.early.calibration import Arrived, Outcomes, evaluate
from fusion.base import columns


@dataclass(frozen=True)
class CalibratedSwitch:
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

    def as_json(self) -> dict[str, Any]:
        """What the table shows, as fractions, and the same of the validation part."""
        return {
            "switch": self.switch,
            "validation": asdict(evaluate(self.validation, self.margins)),
            "test": asdict(evaluate(self.test, self.margins)),
            "test_bound": asdict(evaluate(self.test, self.bound)),
        }


def render(switches: Sequence[CalibratedSwitch]) -> str:
    """What becomes of each switch on the test part, over all orders of arrival."""
    header = (
        *("switch", "all slices (%)", "with early answers (%)", "worst order (%)"),
        *("early (%)", "least (%)", "slices waited for", "bound: early (%)"),
    )
    rows = []
    for switch in switches:
        early = evaluate(switch.test, switch.margins)
        bound = evaluate(switch.test, switch.bound)
        percents = (early.accuracy, early.mean_accuracy, early.least_accuracy, early.mean_share, early.least_share)
        waited = f"{early.mean_waited:.2f} of {switch.test.devices}"
        texts = [f"{100 * value:.2f}" for value in percents]
        rows.append((switch.switch, *texts, waited, f"{100 * bound.mean_share:.2f}"))
    return (
        f"\naccuracy on the {len(switches[0].test.full)} test images, and the answers that did not wait for the last "
        f"slice: over all orders of arrival,\nand of the worst one\n{columns.render(header, rows)}\n"
    )


def broken_promises(switches: Sequence[CalibratedSwitch], max_drop: float) -> list[str]:
    """A sentence for each switch that loses more than `max_drop`, 0..1, on the test part, though calibration kept that
    on the validation part."""
    sentences = []
    for switch in switches:
        early = evaluate(switch.test, switch.margins)
        lost = early.accuracy - early.least_accuracy
        if lost > max_drop + 1e-9:
            sentences.append(
                f"on the {len(switch.test.full)} test images, early answers of switch '{switch.switch}' lose up to "
                f"{100 * lost:.2f} points (averaged over all orders of arrival, "
                f"{100 * (early.accuracy - early.mean_accuracy):.2f}), more than --max_drop={100 * max_drop:g}, which "
                f"holds on the {len(switch.validation.full)} validation images; expect that of new images, or "
                "calibrate with a smaller --max_drop"
            )
    return sentences
