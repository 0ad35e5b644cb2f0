"""Levels: nested thin sub-networks of the full depth, each with a head of its own, for anytime prediction.

A network of K levels cuts every layer into K slices of one width; level k is answered from slices 1 to k. A
reconstruction of Slicing Networks Vertically (Lee & Shin 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from paradis_tf.cuts import Cut, Path, Slice, SwitchError

MOST_LEVELS = 64
# What slice j reads of a layer that slices its inputs: all slices of the level, slices 1 to j, slice j alone.
CONNECTIVITIES = ("dense", "triangular", "diagonal")


@dataclass(frozen=True)
class LevelCut(Cut):
    """What one device takes for a level: the first slices of every layer, or of a diagonal network one of them.

    Args:
      level: the level that it answers for, from 1.
      levels: levels of the network.
      connectivity: one of `CONNECTIVITIES`.
      device: of a diagonal level the slice that it owns, from 0; else 0.
    """

    level: int
    levels: int
    connectivity: str
    device: int = 0

    @cached_property
    def slice(self) -> Slice:
        """Its part of every layer."""
        if self.connectivity == "diagonal":
            return Slice(Fraction(self.device, self.levels), Fraction(self.device + 1, self.levels))
        return Slice(Fraction(0), Fraction(self.level, self.levels))

    @property
    def key(self) -> str:
        if self.connectivity == "dense":
            return self.head_key
        # A channel of a triangular network has the same inputs at every level, one of a diagonal network likewise.
        return "triangular" if self.connectivity == "triangular" else f"slice_{self.device + 1}"

    @property
    def head_key(self) -> str:
        return f"level_{self.level}"

    @property
    def slug(self) -> str:
        return f"{self.head_key}_{self.device}"

    @property
    def width(self) -> Fraction:
        return self.slice.width

    @property
    def owns_bias(self) -> bool:
        return self.device == 0

    def inputs(self, layer: str, channels: int) -> tuple[int, int]:
        return self.slice.channels(channels, layer)

    def outputs(self, layer: str, channels: int) -> tuple[int, int]:
        return self.slice.channels(channels, layer)

    def mask(self, layer: str, inputs: int, outputs: int) -> np.ndarray | None:
        if self.connectivity != "triangular" or self.level == 1:
            return None
        slices = np.arange(self.level)
        of_inputs, of_outputs = (
            np.repeat(slices, self.slice.channels(count, layer)[1] // self.level) for count in (inputs, outputs)
        )
        return (of_inputs[:, None] <= of_outputs).astype(np.float32)

    def get_config(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "levels": self.levels,
            "connectivity": self.connectivity,
            "device": self.device,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LevelCut:
        return cls(**config)

    def __str__(self) -> str:
        device = f"device {self.device} of " if self.connectivity == "diagonal" else ""
        return f"{device}level {self.level} of {self.levels}"


@dataclass(frozen=True)
class StepCut(Cut):
    """What level k of a triangular network adds to level k - 1: slice k of every layer, and the head of level k.

    A layer that mixes channels reads slices 1 to k, of which those before k come from the steps before.

    Args:
      step: k, from 1.
      levels: levels of the network.
    """

    step: int
    levels: int

    @property
    def key(self) -> str:
        return self._level.key

    @property
    def head_key(self) -> str:
        return self._level.head_key

    @property
    def slug(self) -> str:
        return f"step_{self.step}"

    @property
    def width(self) -> Fraction:
        return self._own.width

    @property
    def owns_bias(self) -> bool:
        return True

    def inputs(self, layer: str, channels: int) -> tuple[int, int]:
        return self._level.inputs(layer, channels)

    def outputs(self, layer: str, channels: int) -> tuple[int, int]:
        return self._own.channels(channels, layer)

    def get_config(self) -> dict[str, Any]:
        return {"step": self.step, "levels": self.levels}

    @cached_property
    def _level(self) -> LevelCut:
        return LevelCut(self.step, self.levels, "triangular")

    @cached_property
    def _own(self) -> Slice:
        return Slice(Fraction(self.step - 1, self.levels), Fraction(self.step, self.levels))

    def __str__(self) -> str:
        return f"step {self.step} of {self.levels}"


@dataclass(frozen=True)
class Level:
    """Level k of K: what slices 1 to k of every layer answer, by a head of their own.

    Args:
      level: k, 1 to `levels`.
      levels: K, 1 to 64.
      connectivity: what slice j reads. `dense`: all slices of the level, with batch norm private to the level.
        `triangular`: slices 1 to j, with one batch norm per channel, so that a level is computed from the one before
        it. `diagonal`: slice j alone, so that each slice may run on a device of its own and the levels' answers are
        sums of what these give.

    Raises:
      SwitchError: an argument out of range.
    """

    kind: ClassVar[str] = "level"

    level: int
    levels: int
    connectivity: str

    def __post_init__(self) -> None:
        if not _is_int(self.levels) or not 1 <= self.levels <= MOST_LEVELS:
            raise SwitchError(f"levels is {self.levels!r}; it is a whole number from 1 to {MOST_LEVELS}.")
        if self.connectivity not in CONNECTIVITIES:
            raise SwitchError(f"connectivity is {self.connectivity!r}; it is one of {', '.join(CONNECTIVITIES)}.")
        if not _is_int(self.level) or not 1 <= self.level <= self.levels:
            raise SwitchError(f"level is {self.level!r}; the levels are 1 to {self.levels}.")

    @property
    def devices(self) -> int:
        """How many devices it runs on."""
        return self.level if self.connectivity == "diagonal" else 1

    @property
    def width(self) -> Fraction:
        """The fraction of the full width that it has."""
        return Fraction(self.level, self.levels)

    @cached_property
    def cuts(self) -> tuple[LevelCut, ...]:
        """What each device takes of every layer."""
        return tuple(LevelCut(self.level, self.levels, self.connectivity, device) for device in range(self.devices))

    @property
    def steps(self) -> tuple[StepCut, ...]:
        """Of a triangular level, the steps that lead to it, each from what those before it made; of others nothing."""
        if self.connectivity != "triangular":
            return ()
        return tuple(StepCut(step, self.levels) for step in range(1, self.level + 1))

    @property
    def title(self) -> str:
        """What sentences call it."""
        return f"level {self.level}"

    @property
    def slug(self) -> str:
        """Its name."""
        return str(self)

    @property
    def file_name(self) -> str:
        """Its name."""
        return str(self)

    def __str__(self) -> str:
        return f"level_{self.level}"


def answers_of(path: Path, live: Sequence[int]) -> list[tuple[Cut, ...]]:
    """What the sum of a set of a path's devices can answer with: their cuts for each head that some of them have.

    There is one answer, unless devices of a diagonal level are missing: what slices are left may be better put to use
    by the head of a level before it.

    Args:
      path: the path.
      live: the devices that answer, ascending, at least one.
    """
    if not (isinstance(path, Level) and path.connectivity == "diagonal" and len(live) < path.devices):
        return [tuple(path.cuts[device] for device in live)]
    heads = create_levels(path.levels, path.connectivity)[: path.level]
    answers = [tuple(head.cuts[device] for device in live if device < head.devices) for head in heads]
    return [answer for answer in answers if answer]


def create_levels(levels: int, connectivity: str) -> tuple[Level, ...]:
    """All levels of a network, from the first to the last.

    Raises:
      SwitchError: an argument out of range, as of `Level`.
    """
    last = Level(1, levels, connectivity).levels
    return tuple(Level(level, levels, connectivity) for level in range(1, last + 1))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
