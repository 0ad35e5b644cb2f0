"""Cuts: what one device takes of every layer of a network; and paths, which are made of them.

Exact fractions; nothing here knows about tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import numpy as np

from fusion.base.program import UserError


class SwitchError(UserError):
    """An illegal slice, switch or level; the message says what would be legal."""


@dataclass(frozen=True, order=True)
class Slice:
    """The half-open interval [start, stop) of every sliced layer's channels, as fractions of the full width.

    Args:
      start: lower bound, 0 <= start < stop; anything `Fraction` accepts exactly.
      stop: upper bound, stop <= 1.

    Raises:
      SwitchError: the bounds are not 0 <= start < stop <= 1.
    """

    start: Fraction
    stop: Fraction

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "start", Fraction(self.start))
            object.__setattr__(self, "stop", Fraction(self.stop))
        except (TypeError, ValueError, ZeroDivisionError):
            raise SwitchError(
                f"slice bounds {self.start!r} and {self.stop!r} are not numbers; write them like Fraction(1, 4)."
            ) from None
        if not 0 <= self.start < self.stop <= 1:
            raise SwitchError(f"slice [{self.start}, {self.stop}) is illegal; it takes 0 <= start < stop <= 1.")

    @property
    def width(self) -> Fraction:
        """The fraction of the full width that this slice owns."""
        return self.stop - self.start

    def channels(self, count: int, layer: str) -> tuple[int, int]:
        """The Python ints [first, last) that this slice owns of a layer's channels.

        Args:
          count: channels of the whole layer, at full width.
          layer: the layer's name, for the message.

        Raises:
          SwitchError: a bound of this slice falls between two channels of the layer.
        """
        bounds = []
        for bound in (self.start, self.stop):
            channel = bound * count
            if channel.denominator != 1:
                raise SwitchError(
                    f"layer {layer!r} has {count} channels, and slice {self} would cut it at channel "
                    f"{float(channel):g}; make its channels a multiple of {bound.denominator}."
                )
            bounds.append(int(channel))
        return bounds[0], bounds[1]

    @property
    def texts(self) -> tuple[str, str]:
        """Both bounds as text, exact: decimals where they end, else fractions."""
        return text_of(self.start), text_of(self.stop)

    def __str__(self) -> str:
        return "[" + ", ".join(self.texts) + ")"


FULL = Slice(Fraction(0), Fraction(1))


class Cut(ABC):
    """What one device takes of every layer. Layers ask it, and know nothing of the system that it belongs to.

    Cuts are immutable and hashable. Channels are Python ints, so that each cut traces to static shapes.
    """

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the weights that a layer keeps for this cut alone, such as batch norm's statistics.

        Cuts of one key differ in their channels and heads alone: what they make of a channel is the same, and the
        widest of them makes all that the others do.
        """

    @property
    def head_key(self) -> str:
        """Names the head, such as a classifier, that answers for it; empty for the one that all cuts share."""
        return ""

    @property
    @abstractmethod
    def slug(self) -> str:
        """The key in characters that are safe in names of files and models."""

    @property
    @abstractmethod
    def width(self) -> Fraction:
        """The fraction of the full width that it makes."""

    @property
    @abstractmethod
    def owns_bias(self) -> bool:
        """Whether it has the bias of outputs that are summed over several cuts, which is added once."""

    @abstractmethod
    def inputs(self, layer: str, channels: int) -> tuple[int, int]:
        """The channels [first, last) that it takes of a layer's input of so many; raises `SwitchError`."""

    @abstractmethod
    def outputs(self, layer: str, channels: int) -> tuple[int, int]:
        """The channels [first, last) that it makes of a layer's output of so many; raises `SwitchError`."""

    def mask(self, layer: str, inputs: int, outputs: int) -> np.ndarray | None:
        """Which of its inputs each of its outputs reads, in a layer of so many that slices both.

        Returns:
          float32 (inputs of the cut, outputs of the cut) of 0 and 1; None where each output reads all inputs.
        """
        return None

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """What makes it again, JSON-ready."""


@dataclass(frozen=True)
class SliceCut(Cut):
    """One device of a switch: it takes the same slice of every layer, of its input and of its output.

    Args:
      switch: the text form of the switch.
      device: index of the device in the switch.
      slice: the slice that the device owns.
    """

    switch: str
    device: int
    slice: Slice

    @property
    def key(self) -> str:
        return f"{self.switch}/{self.device}"

    @property
    def slug(self) -> str:
        return f"{self.switch.replace('/', 'of').replace('+', '_')}_{self.device}"

    @property
    def width(self) -> Fraction:
        return self.slice.width

    @property
    def owns_bias(self) -> bool:
        return self.slice.start == 0

    def inputs(self, layer: str, channels: int) -> tuple[int, int]:
        return self.slice.channels(channels, layer)

    def outputs(self, layer: str, channels: int) -> tuple[int, int]:
        return self.slice.channels(channels, layer)

    def get_config(self) -> dict[str, Any]:
        return {"switch": self.switch, "device": self.device, "slice": [str(self.slice.start), str(self.slice.stop)]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SliceCut:
        start, stop = config["slice"]
        return cls(config["switch"], config["device"], Slice(Fraction(start), Fraction(stop)))

    def __str__(self) -> str:
        return f"device {self.device} of switch '{self.switch}'"


# The whole network on one device.
WHOLE = SliceCut("1.0", 0, FULL)


class Path(Protocol):
    """A named way through the shared weights that has an answer of its own; `str` gives its name. Hashable.

    Attributes:
      kind: what sentences call such paths, as "switch".
    """

    kind: ClassVar[str]

    @property
    def title(self) -> str:
        """What sentences call it, as "switch 0.5+0.5"."""

    @property
    def cuts(self) -> Sequence[Cut]:
        """What each of its devices takes, in device order."""

    @property
    def devices(self) -> int:
        """How many devices it runs on."""

    @property
    def width(self) -> Fraction:
        """The fraction of the full width that its devices own together."""

    @property
    def slug(self) -> str:
        """The name in characters that are safe in URLs."""

    @property
    def file_name(self) -> str:
        """The name as the name of a folder."""


def text_of(value: Fraction) -> str:
    """A fraction as text, exact: a decimal where that ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(value)
    return f"{float(value):.1f}" if value.denominator == 1 else repr(float(value))
