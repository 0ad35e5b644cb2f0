"""Slices and switches: which channels of every layer belong to which device.

Pure Python with exact fractions; nothing here knows about tensors. Source: ours, after the reconstruction of
the ParaDiS switch as an ordered tuple of contiguous, non-overlapping channel intervals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

from fusion.base.program import UserError

DEFAULT_GRID = 4
_LONGEST_LIST = 16
_TERM = re.compile(r"(?:(?P<count>\d{1,3})x)?(?P<width>\d{0,3}\.\d{1,9}|\d{1,3}/\d{1,3}|\d{1,3})", re.ASCII)


class SwitchError(UserError):
    """An illegal slice or switch; the message says what would be legal."""


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
            cut = bound * count
            if cut.denominator != 1:
                raise SwitchError(
                    f"layer {layer!r} has {count} channels, and slice {self} would cut it at channel "
                    f"{float(cut):g}; make its channels a multiple of {bound.denominator}."
                )
            bounds.append(int(cut))
        return bounds[0], bounds[1]

    @property
    def texts(self) -> tuple[str, str]:
        """Both bounds as text, exact: decimals where they end, else fractions."""
        return _text(self.start), _text(self.stop)

    def __str__(self) -> str:
        return "[" + ", ".join(self.texts) + ")"


FULL = Slice(Fraction(0), Fraction(1))


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

    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        if not self.slices:
            raise SwitchError("a switch needs at least one slice, such as '1.0'.")
        expected = Fraction(0)
        for part in self.slices:
            if part.start != expected:
                fault = "overlaps" if part.start < expected else "leaves a gap before"
                raise SwitchError(
                    f"slices {', '.join(map(str, self.slices))}: the switch {fault} slice {part}, which "
                    f"must start at {_text(expected)}."
                )
            expected = part.stop
        widths = [part.width for part in self.slices]
        if widths != sorted(widths, reverse=True):
            raise SwitchError(f"widths {', '.join(map(_text, widths))} increase; order the slices from wide to narrow.")

    @classmethod
    def from_widths(cls, widths: Iterable[Fraction | int | str]) -> Switch:
        """The switch of these widths, put in canonical order (wide to narrow).

        Raises:
          SwitchError: no width, a width outside (0, 1], or widths that add up to more than 1.
        """
        ordered = sorted((Fraction(width) for width in widths), reverse=True)
        for width in ordered:
            if not 0 < width <= 1:
                raise SwitchError(f"width {_text(width)} is illegal; a width is above 0 and at most 1.")
        if sum(ordered) > 1:
            raise SwitchError(
                f"widths {'+'.join(map(_text, ordered))} add up to {_text(sum(ordered, Fraction(0)))}, so "
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
        if any((part.stop * grid).denominator != 1 for part in switch.slices):
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

    @property
    def slug(self) -> str:
        """The text form in characters that are safe in URLs: `0.5_0.25_0.25`, `3x1of3`."""
        return self.file_name.replace("+", "_")

    @property
    def file_name(self) -> str:
        """The text form as the name of a folder: as `str`, but `1of3` for 1/3."""
        return str(self).replace("/", "of")

    def validate(self, channel_counts: Mapping[str, int]) -> None:
        """Checks that the switch cuts every layer between channels.

        Args:
          channel_counts: full-width channels of each sliced layer, by layer name.

        Raises:
          SwitchError: a slice would cut inside a channel; the layer is named.
        """
        for layer, count in channel_counts.items():
            for part in self.slices:
                try:
                    part.channels(count, layer)
                except SwitchError as error:
                    raise SwitchError(f"switch '{self}' does not fit: {error}") from None

    def __str__(self) -> str:
        terms: list[str] = []
        for width, run in groupby(part.width for part in self.slices):
            count = len(list(run))
            terms += [f"{count}x{_text(width)}"] if count > 2 else [_text(width)] * count
        return "+".join(terms)


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
    return sorted(found, key=lambda s: (-s.width, s.devices, [-part.width for part in s.slices]))


def _legal(grid: int) -> str:
    if grid > 8:
        return f"legal are sums of multiples of 1/{grid} up to 1."
    switches = legal_switches(grid)
    shown = ", ".join(str(switch) for switch in switches[:_LONGEST_LIST])
    more = len(switches) - _LONGEST_LIST
    return f"legal on the grid of 1/{grid}: {shown}{f' and {more} more' if more > 0 else ''}."


def _text(value: Fraction) -> str:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(value)
    return f"{float(value):.1f}" if value.denominator == 1 else repr(float(value))
