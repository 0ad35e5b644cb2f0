"""Options that the families share: their checks, and the rounding of filters."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from fusion.base.program import UserError

_WIDEST = 8


def check_classifier(family: Any) -> None:
    """Checks `image_shape` (and makes a tuple of it), `classes` and `width_multiplier` of a frozen dataclass.

    Raises:
      UserError: one is out of range; the family, the option and what is legal are named.
    """
    shape = family.image_shape
    sides = tuple(shape) if isinstance(shape, list | tuple) else ()
    if len(sides) != 3 or not all(_is_int(side) and side >= 1 for side in sides) or sides[2] != 3:
        raise UserError(f"{family.name}: image_shape is {shape!r}; it is (height, width, 3).")
    object.__setattr__(family, "image_shape", sides)
    if not _is_int(family.classes) or family.classes < 2:
        raise UserError(f"{family.name}: classes is {family.classes!r}; it is an int of at least 2.")
    width = family.width_multiplier
    if not (_is_int(width) or isinstance(width, float)) or not 0 < width <= _WIDEST:
        raise UserError(f"{family.name}: width_multiplier is {width!r}; it lies in (0, {_WIDEST}].")


def check_choice(family: Any, option: str, legal: Collection[Any]) -> None:
    """Raises UserError, with the legal values, unless the option is one of them and of their type."""
    value = getattr(family, option)
    if not any(type(value) is type(one) and value == one for one in legal):
        raise UserError(f"{family.name}: {option} is {value!r}; it is one of {', '.join(map(repr, legal))}.")


def check_strides(family: Any, count: int) -> None:
    """Checks `strides` (and makes a tuple of it).

    Raises:
      UserError: neither empty nor so many numbers of 1 or 2.
    """
    strides = family.strides
    numbers = tuple(strides) if isinstance(strides, list | tuple) else (0,)
    if numbers and (len(numbers) != count or not all(_is_int(one) and one in (1, 2) for one in numbers)):
        raise UserError(f"{family.name}: strides is {strides!r}; it is empty, or {count} numbers of 1 or 2.")
    object.__setattr__(family, "strides", numbers)


def scaler(width_multiplier: float) -> Callable[[int], int]:
    """Filters at width 1 to whole filters, at least one, at this width."""
    return lambda filters: max(1, round(filters * width_multiplier))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
