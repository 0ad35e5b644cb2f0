"""What is asked of a compression."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from fusion.base.program import UserError

# By option: its type, the least and the most that is legal.
_RANGES: dict[str, tuple[type, float, float]] = {
    "sparsity": (float, 0.0, 0.99),
    "steps": (int, 1, 1_000_000),
    "batch_size": (int, 1, 65_536),
    "learning_rate": (float, 1e-9, 0.1),
    "seed": (int, 0, 2**31 - 1),
}
MOST_CLUSTERS = 256
_FLOAT_STAGES_FACTOR = 5


@dataclass(frozen=True)
class Compression:
    """How the slices of a switch are compressed. Every stage that is asked for trains for `steps` steps.

    Args:
      quantization_aware: whether the slices are trained with 8-bit weights and activations; if not, they are left in
        float, for post-training quantization.
      clusters: how many distinct values a convolution's kernel has in the int8 file, 2 to 256; 0 leaves them as many as
        they are. With `sparsity` zero is one of them, and 3 is the least.
      sparsity: the part of a convolution's weights that are 0, 0 to 0.99; 0 prunes nothing.
      steps: optimizer steps of a stage, 1 to 1,000,000.
      batch_size: images of a step, 1 to 65,536.
      learning_rate: of Adam at the first step of quantization-aware training, 1e-9 to 0.1; it falls to 0 over a stage
        as a cosine. Pruning and clustering, which have further to go, start from five times as much.
      seed: of the order of the images, 0 to 2^31 - 1.

    Raises:
      UserError: an option out of range or of the wrong type.
    """

    quantization_aware: bool = True
    clusters: int = 0
    sparsity: float = 0.0
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 2e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.quantization_aware, bool):
            raise UserError(f"compression: quantization_aware is {self.quantization_aware!r}; it is true or false.")
        for option, (kind, least, most) in _RANGES.items():
            value = getattr(self, option)
            types = (int, float) if kind is float else int
            if isinstance(value, bool) or not isinstance(value, types) or not _within(value, least, most):
                number = "a number" if kind is float else "a whole number"
                raise UserError(f"compression: {option} is {value!r}; it is {number} from {least:,} to {most:,}.")
        least_clusters = 3 if self.sparsity else 2
        clusters = self.clusters
        whole = isinstance(clusters, int) and not isinstance(clusters, bool)
        if not whole or (clusters != 0 and not least_clusters <= clusters <= MOST_CLUSTERS):
            legal = f"0 for none, or {least_clusters} to {MOST_CLUSTERS}"
            legal += ", of which zero is one beside sparsity" if self.sparsity else ""
            raise UserError(f"compression: clusters is {clusters!r}; it is {legal}.")

    @property
    def stages(self) -> tuple[str, ...]:
        """What is trained, in order: of "pruning", "clustering" and "quantization"."""
        asked = (("pruning", self.sparsity), ("clustering", self.clusters), ("quantization", self.quantization_aware))
        return tuple(stage for stage, wanted in asked if wanted)

    def start_rate(self, stage: str) -> float:
        """The learning rate at the first step of a stage."""
        return self.learning_rate * (1 if stage == "quantization" else _FLOAT_STAGES_FACTOR)

    def as_json(self) -> dict[str, Any]:
        """All options, JSON-ready."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, options: Any) -> Compression:
        """The reverse of `as_json`; options that are left out have their defaults.

        Raises:
          UserError: not an object of known options, or one out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(options, dict):
            raise UserError(f"compression is {options!r}; it is an object of {', '.join(known)}.")
        unknown = sorted(str(option) for option in options.keys() - set(known))
        if unknown:
            raise UserError(f"compression has no option {unknown[0]!r}; it has {', '.join(known)}.")
        return cls(**options)


def _within(value: float, least: float, most: float) -> bool:
    return math.isfinite(value) and least <= value <= most
