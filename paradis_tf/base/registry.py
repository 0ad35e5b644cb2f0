"""Looking up by name what a config asks for, and making it from its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fusion.base.program import UserError

Product = TypeVar("Product")


def create(
    kind: str,
    families: Mapping[str, Callable[..., Product]],
    options_of: Callable[[Any], Sequence[str]],
    name: str,
    options: Mapping[str, Any],
) -> Product:
    """Makes what a name asks for, with these options.

    Args:
      kind: what is made, for the message.
      families: the known ones by name.
      options_of: the names of the options that a family takes.
      name: of what to make.
      options: its options.

    Raises:
      UserError: an unknown name or option, or an option out of range; the legal ones are listed.
    """
    family = families.get(name)
    if family is None:
        raise UserError(f"{kind} {name!r} is unknown; known are {', '.join(sorted(families))}.")
    known = options_of(family)
    for option in options:
        if option not in known:
            raise UserError(f"{kind} {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}.")
    return family(**options)
