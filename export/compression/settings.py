"""How the slices of a switch are compressed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fusion.base.program import UserError

MOST_CLUSTERS = 256
_FLOAT_STAGES_FACTOR = 5


@dataclass(frozen=True)
class Compression:
    """How the slices of a switch are compressed, by stages of `steps` steps each.

    Args:
      quantization_aware: whether the slices are trained with 8-bit weights and activations; if not, they are left in
        float, for post-training quantization.
      clusters: how many distinct values a convolution's kernel has in the int8 file, 2 to 256; 0 leaves them as many as
        they are. With `sparsity` zero is one of them, and 3 is the least. Not beside `quantization_aware`, which moves
        weights apart.
      sparsity: the fraction of a convolution's weights that are 0, 0 to 0.99; 0 prunes nothing.
      steps: optimizer steps of a stage.
      batch_size: images of a step.
      learning_rate: of Adam at the first step of quantization-aware training; it falls to 0 over a stage as a cosine.
        Pruning and clustering, which have further to go, start from five times as much.
      seed: of the order of the images.

    Raises:
      UserError: a number of clusters that cannot be had.
    """

    quantization_aware: bool = False
    clusters: int = 0
    sparsity: float = 0.0
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 2e-4
    seed: int = 0

    def __post_init__(self) -> None:
        least = 3 if self.sparsity else 2
        if self.clusters and not least <= self.clusters <= MOST_CLUSTERS:
            zero = ", of which zero is one beside sparsity" if self.sparsity else ""
            legal = f"0 for none, or {least} to {MOST_CLUSTERS}{zero}"
            raise UserError(f"compression: clusters is {self.clusters!r}; it is {legal}.")
        if self.clusters and self.quantization_aware:
            raise UserError(
                f"compression: clusters is {self.clusters}, and quantization-aware training would part equal weights; "
                "legal: clusters with post-training quantization."
            )

    @property
    def stages(self) -> tuple[str, ...]:
        """What is trained, in order: of "pruning", "clustering" and "quantization"."""
        stages = {"pruning": self.sparsity, "clustering": self.clusters, "quantization": self.quantization_aware}
        return tuple(stage for stage, asked in stages.items() if asked)

    def start_rate(self, stage: str) -> float:
        """The learning rate at the first step of a stage."""
        return self.learning_rate * (1 if stage == "quantization" else _FLOAT_STAGES_FACTOR)

    def as_json(self) -> dict[str, Any]:
        """All options, JSON-ready."""
        return dataclasses.asdict(self)
