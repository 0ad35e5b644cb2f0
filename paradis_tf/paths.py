"""The paths of a network, from the arguments or the config that name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusion.base.program import UserError
from paradis_tf.cuts import Path, SwitchError
from paradis_tf.levels import Level, create_levels
from paradis_tf.switches import DEFAULT_GRID, Switch, parse_switches


def create_paths(
    switches: Iterable[Any], grid: int = DEFAULT_GRID, levels: int = 0, connectivity: str = "dense"
) -> tuple[Path, ...]:
    """The switches of these text forms on a grid, or so many levels.

    Raises:
      UserError: switches and levels, neither of them, or one that is illegal.
    """
    texts = [str(switch) for switch in switches]
    if not levels:
        if connectivity != "dense":
            raise UserError(f"connectivity is {connectivity!r}, which is of levels, and levels is 0; set it.")
        return parse_switches(texts, grid)
    if texts:
        raise UserError(
            f"a network has switches or levels, and this one gets switches {', '.join(texts)} and {levels} levels; "
            "leave one of them out (--config.switches='()' or --config.levels=0)."
        )
    return create_levels(levels, connectivity)


def path_named(name: str, paths: Sequence[Path], grid: int = DEFAULT_GRID) -> Path:
    """The path that a text names: a level among those of a network, or any switch on the grid.

    Raises:
      SwitchError: there is none; those that there are are named.
    """
    if isinstance(paths[0], Switch):
        return Switch.parse(name, grid)
    for path in paths:
        if str(path) == name:
            return path
    raise SwitchError(f"level {name!r} is not one of this network's: {', '.join(map(str, paths))}.")


def heading_of(names: Iterable[str]) -> str:
    """What a column of names of paths is headed: by their kind, or "path" where there are several."""
    kinds = {Level.kind if name.startswith("level_") else Switch.kind for name in names}
    return kinds.pop() if len(kinds) == 1 else "path"


def paths_of(config: Any) -> tuple[Path, ...]:
    """The paths of a config (a `ConfigDict`, or the dict of a run folder); raises as `create_paths`."""
    # A run that is older than levels has none.
    return create_paths(
        config["switches"], config["grid"], config.get("levels", 0), config.get("connectivity", "dense")
    )
