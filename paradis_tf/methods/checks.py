"""Checks that several methods make of their options and switches."""

from __future__ import annotations

from collections.abc import Sequence

from fusion.base.program import UserError
from paradis_tf.cuts import Path
from paradis_tf.levels import Level
from paradis_tf.switches import Switch

_OTHER = {"anytime": "nested", "nested": "anytime"}


def check_weights(method: str, **weights: float) -> None:
    """Raises UserError for a weight, named by its keyword, that is no number of 0 or more."""
    for name, weight in weights.items():
        if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
            raise UserError(f"{method}: {name} is {weight!r}; it is a number of 0 or more.")


def switches_of(method: str, paths: Sequence[Path]) -> list[Switch]:
    """The paths of a network of switches.

    Raises:
      UserError: they are something else.
    """
    switches = [path for path in paths if isinstance(path, Switch)]
    if len(switches) < len(paths):
        raise UserError(f"{method}: it trains switches, and the network has levels; take anytime or nested.")
    return switches


def levels_of(method: str, paths: Sequence[Path], connectivities: Sequence[str]) -> list[Level]:
    """The paths of a network of levels, from the first to the last.

    Raises:
      UserError: they are switches, or levels of another connectivity than these.
    """
    levels = [path for path in paths if isinstance(path, Level)]
    if len(levels) < len(paths):
        raise UserError(
            f"{method}: it trains levels, and the network has switches {', '.join(map(str, paths))}; set config.levels "
            "and config.switches='()', or take another method."
        )
    for level in levels:
        if level.connectivity not in connectivities:
            raise UserError(
                f"{method}: connectivity is {level.connectivity!r}; it trains networks of "
                f"{' or '.join(map(repr, connectivities))}, the others are of {_OTHER[method]}."
            )
    return levels


def widest_first(method: str, paths: Sequence[Path]) -> list[Switch]:
    """The switches of a network that is not distributed, from the widest to the narrowest.

    Raises:
      UserError: a switch of several devices, named, or a network of levels.
    """
    switches = switches_of(method, paths)
    for switch in switches:
        if switch.devices > 1:
            raise UserError(
                f"{method}: switch '{switch}' has {switch.devices} devices; a slimmable network takes widths of one "
                "device, such as 1.0, 0.75, 0.5, 0.25."
            )
    return sorted(switches, key=lambda switch: -switch.width)
