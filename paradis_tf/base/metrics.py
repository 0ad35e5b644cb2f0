"""How each task's metric is written for people: its name, its unit and its digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fusion.base.program import UserError


@dataclass(frozen=True)
class Metric:
    """A metric of evaluated rows; more is better.

    Attributes:
      key: its key in a row.
      title: its name in running text.
      unit: of the values as shown.
      scale: what a row's value is multiplied by before it is shown.
      difference_unit: of a difference of two shown values.
    """

    key: str
    title: str
    unit: str
    scale: float
    difference_unit: str

    @property
    def heading(self) -> str:
        """For axes and table heads: `accuracy (%)`."""
        return f"{self.title} ({self.unit})"

    def text(self, value: float) -> str:
        """A row's value as it is shown, without its unit."""
        return f"{self.scale * value:.2f}"


_METRICS = (
    Metric("accuracy", "accuracy", "%", 100.0, "points"),
    Metric("psnr_y", "PSNR-Y", "dB", 1.0, "dB"),
)
METRICS = {metric.key: metric for metric in _METRICS}


def metric_of(row: Mapping[str, Any], where: str) -> Metric:
    """The metric of an evaluated row; rows of older evaluations, which do not name it, are of accuracy.

    Raises:
      UserError: it is unknown, or the row lacks its value.
    """
    name = row.get("metric", "accuracy")
    metric = METRICS.get(name) if isinstance(name, str) else None
    if metric is None:
        raise UserError(f"{where}: metric is {name!r}; known are {', '.join(METRICS)}.")
    if isinstance(row.get(name), bool) or not isinstance(row.get(name), int | float):
        raise UserError(f"{where}: {name} is {row.get(name)!r}; it is a number.")
    return metric
