"""Switches: how the channels of every layer are divided among devices.

A reconstruction of the ParaDiS switch as an ordered tuple of contiguous, non-overlapping channel intervals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from typing import ClassVar

from paradis_tf.cuts import FULL, Slice, SliceCut, SwitchError, text_of

DEFAULT_GRID = 4
_LONGEST_LIST = 16
_TERM = re.compile(r"(?:(?P<count>\d{1,3})x)?(?P<width>\d{0,3}\.\d{1,9}|\d{1,3}/\d{1,3}|\d{1,3})", re.ASCII)


@dataclass(frozen=True)
class Switch:
    """An ordered tuple of adjoining slices from 0 up, one per device, widths not increasing.

    The text form folds runs of three or more equal widths: `1.0`, `0.5+0.5`, `0.5+0.25+0.25`, `4x0.25`.
    The widths may add up to less than 1 (a slimmable network's width 0.5 is the switch `0.5`).

    Args:
      slices: at least one `Slice`; the first starts at 0 and each starts where the one before it stops.

    Raises:
      SwitchError: empty, overlapping, with a gap, or with increasing widths.
    """

    kind: ClassVar[str] = "switch"

    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        if not self.slices:
            raise SwitchError("a switch needs at least one slice, such as '1.0'.")
        expected = Fraction(0)
        for slice_ in self.slices:
            if slice_.start != expected:
                fault = "overlaps" if slice_.start < expected else "leaves a gap before"
                raise SwitchError(
                    f"slices {', '.join(map(str, self.slices))}: the switch {fault} slice {slice_}, which "
                    f"must start at {text_of(expected)}."
                )
            expected = slice_.stop
        widths = [slice_.width for slice_ in self.slices]
        if widths != sorted(widths, reverse=True):
            raise SwitchError(
                f"widths {', '.join(map(text_of, widths))} increase; order the slices from wide to narrow."
            )

    @classmethod
    def from_widths(cls, widths: Iterable[Fraction | int | str]) -> Switch:
        """The switch of these widths, put in canonical order (wide to narrow).

        Raises:
          SwitchError: no width, a width outside (0, 1], or widths that add up to more than 1.
        """
        ordered = sorted((Fraction(width) for width in widths), reverse=True)
        for width in ordered:
            if not 0 < width <= 1:
                raise SwitchError(f"width {text_of(width)} is illegal; a width is above 0 and at most 1.")
        if sum(ordered) > 1:
            raise SwitchError(
                f"widths {'+'.join(map(text_of, ordered))} add up to {text_of(sum(ordered, Fraction(0)))}, so "
                "slices would overlap; they may add up to 1 at most."
            )
        slices, start = [], Fraction(0)
        for width in ordered:
            slices.append(Slice(start, start + width))
            start += width
        return cls(tuple(slices))

    @classmethod
    def parse(cls, text: str, grid: int = DEFAULT_GRID) -> Switch:
        """Reads the text form; any order of widths is accepted and put in canonical order.

        Args:
          text: terms `W` or `NxW` joined by `+`; W is a decimal (`0.25`) or a fraction (`1/3`).
          grid: every bound must be a multiple of 1/grid.

        Raises:
          SwitchError: not of that form, overlapping, or off the grid; the legal switches are listed.
        """
        if grid < 1:
            raise SwitchError(f"grid is {grid}; it is at least 1.")
        if not isinstance(text, str):
            raise SwitchError(f"switch {text!r} is not text; write it like '0.5+0.25+0.25'.")
        widths: list[str] = []
        for term in text.replace(" ", "").split("+"):
            match = _TERM.fullmatch(term)
            if not match or re.fullmatch(r"[0-9]+/0+", match["width"]):
                raise SwitchError(f"switch {text!r} is not understood at {term!r}; {_legal(grid)}")
            count = int(match["count"] or 1)
            if not 1 <= count <= grid:
                raise SwitchError(f"switch {text!r} repeats a slice {count} times; {_legal(grid)}")
            widths += [match["width"]] * count
        try:
            switch = cls.from_widths(widths)
        except SwitchError as error:
            raise SwitchError(f"switch {text!r}: {error} {_legal(grid).capitalize()}") from None
        if any((slice_.stop * grid).denominator != 1 for slice_ in switch.slices):
            raise SwitchError(f"switch {text!r} is off the grid of 1/{grid}; {_legal(grid)}")
        return switch

    @property
    def width(self) -> Fraction:
        """The fraction of the full width that the devices own together."""
        return self.slices[-1].stop

    @property
    def devices(self) -> int:
        """How many devices the switch runs on."""
        return len(self.slices)

    @cached_property
    def cuts(self) -> tuple[SliceCut, ...]:
        """What each device takes of every layer."""
        return tuple(SliceCut(str(self), device, own) for device, own in enumerate(self.slices))

    def cut(self, device: int) -> SliceCut:
        """What a device takes of every layer.

        Raises:
          SwitchError: the switch has no such device.
        """
        if not 0 <= device < self.devices:
            raise SwitchError(f"device {device} is not in switch '{self}'; its devices are 0 to {self.devices - 1}.")
        return self.cuts[device]

    @property
    def title(self) -> str:
        """What sentences call it."""
        return f"switch {self}"

    @property
    def slug(self) -> str:
        """The text form in characters that are safe in URLs: `0.5_0.25_0.25`, `3x1of3`."""
        return self.file_name.replace("+", "_")

    @property
    def file_name(self) -> str:
        """The text form as the name of a folder: as `str`, but `1of3` for 1/3."""
        return str(self).replace("/", "of")

    def __str__(self) -> str:
        terms: list[str] = []
        for width, run in groupby(slice_.width for slice_ in self.slices):
            count = len(list(run))
            terms += [f"{count}x{text_of(width)}"] if count > 2 else [text_of(width)] * count
        return "+".join(terms)


# The whole network on one device.
WHOLE_SWITCH = Switch((FULL,))


def parse_switches(texts: Iterable[str], grid: int = DEFAULT_GRID) -> tuple[Switch, ...]:
    """Reads a list of distinct switches and keeps its order.

    Raises:
      SwitchError: no switch, an illegal one, or the same one twice.
    """
    switches = tuple(Switch.parse(text, grid) for text in texts)
    if not switches:
        raise SwitchError(f"the list of switches is empty; {_legal(grid)}")
    for index, switch in enumerate(switches):
        if switch in switches[:index]:
            raise SwitchError(f"switch '{switch}' is listed twice; list each switch once.")
    return switches


def legal_switches(grid: int = DEFAULT_GRID) -> list[Switch]:
    """All switches on the grid, the widest first, then fewest devices first: 11 of them on quarters."""
    found: list[Switch] = []

    def extend(widths: list[int], left: int) -> None:
        if widths:
            found.append(Switch.from_widths(Fraction(width, grid) for width in widths))
        for width in range(min(left, widths[-1] if widths else left), 0, -1):
            extend([*widths, width], left - width)

    extend([], grid)
    return sorted(found, key=lambda s: (-s.width, s.devices, [-slice_.width for slice_ in s.slices]))


def _legal(grid: int) -> str:
    if grid > 8:
        return f"legal are sums of multiples of 1/{grid} up to 1."
    switches = legal_switches(grid)
    shown = ", ".join(str(switch) for switch in switches[:_LONGEST_LIST])
    more = len(switches) - _LONGEST_LIST
    return f"legal on the grid of 1/{grid}: {shown}{f' and {more} more' if more > 0 else ''}."
