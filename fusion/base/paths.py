"""Paths as people write them: `~` is a home also where no shell has seen it, as after a flag's `=` or in a file."""

from __future__ import annotations

import os
from typing import Literal, overload

from absl import flags

from .program import UserError

# Flags defined by a function here belong to the module that calls it, and stand in that one's --help.
flags.disclaim_key_flags()

NO_HOME = "/nonexistent"
"""What HOME is for users without one, by a convention of Debian."""


def expand(path: str) -> str:
    """`path` with `~` and `~/...` in this user's home, and `~NAME/...` in that of a user of this machine.

    A file or folder that is there as `~NAME...` is itself, as where a shell has filled in `*`. Raises `UserError` for a
    home that nobody knows.
    """
    if not path.startswith("~"):
        return path
    name = path[1:].split("/")[0]
    if not name:
        expanded = in_home(path[1:].strip("/"))
        if expanded is None:
            raise UserError(f"path {path!r}: this user has no home here; legal: a path without ~, or HOME set.")
        return expanded
    expanded = os.path.expanduser(path)
    if expanded != path:
        return expanded
    if os.path.lexists(path):
        return path
    raise UserError(f"path {path!r}: this machine has no user {name!r}; legal: a path without ~, or {'./' + path!r}.")


def in_home(path: str) -> str | None:
    """`path`, relative, in this user's home; None where that is not known."""
    # Of an empty HOME Python would make the root.
    home = os.path.expanduser("~") if os.environ.get("HOME", "~") else "~"
    return None if home in ("~", NO_HOME) else os.path.join(home, path) if path else home


@overload
def define_path(name: str, default: None, text: str, required: Literal[True]) -> flags.FlagHolder[str]: ...
@overload
def define_path(name: str, default: str, text: str) -> flags.FlagHolder[str]: ...
@overload
def define_path(name: str, default: str | None, text: str) -> flags.FlagHolder[str | None]: ...


def define_path(
    name: str, default: str | None, text: str, required: bool = False
) -> flags.FlagHolder[str] | flags.FlagHolder[str | None]:
    """Defines a flag of the calling module that is a file's or folder's path, in which `expand` fills in `~`."""
    return flags.DEFINE(_Path(), name, default, text, required=required, serializer=flags.ArgumentSerializer())


def define_paths(
    name: str, default: list[str] | None, text: str, required: bool = False
) -> flags.FlagHolder[list[str]]:
    """As `define_path`, of a flag that may be given many times."""
    return flags.DEFINE_multi(_Path(), flags.ArgumentSerializer(), name, default, text, required=required)


class _Path(flags.ArgumentParser):
    def parse(self, argument: str) -> str:
        return expand(argument)
