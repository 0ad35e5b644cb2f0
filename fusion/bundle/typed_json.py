"""Typed access to the JSON objects of a manifest: a wrong one is refused by where it stands."""

from __future__ import annotations

import json
import re
from typing import Any

from ..base.program import UserError

# The largest integer that every reader of JSON, and NumPy, can hold.
_LARGEST = 2**63 - 1
# What a value of each kind may be in Python, and what it is called.
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    dict: ((dict,), "an object"),
    list: ((list,), "a list"),
    str: ((str,), "a string"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
}


class JsonTable:
    """A JSON object together with where it stands, so that every refusal can say where."""

    def __init__(self, value: Any, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise UserError(f"{where} is {_brief(value)}; legal: an object.")
        self._value = value

    def get(self, key: str, kind: type, optional: bool = False) -> Any:
        """The value of a key: a dict, list, str, int or float, or None where that is legal too."""
        if key not in self._value:
            raise UserError(f"{self.where} has no key {key!r}.")
        value: Any = self._value[key]
        if value is None and optional:
            return None
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise self.refuse(key, value, "a number of 64 bits")
        if isinstance(value, str) and not _is_plain(value):
            raise self.refuse(key, value, "a string of Unicode characters without NUL")
        types, legal = _KINDS[kind]
        if not isinstance(value, types) or isinstance(value, bool):
            raise self.refuse(key, value, legal)
        return float(value) if kind is float and isinstance(value, int) else value

    def choice(self, key: str, legal: tuple[Any, ...]) -> Any:
        """One of the legal values."""
        value = self.get(key, type(legal[0]))
        if value not in legal:
            raise self.refuse(key, value, " or ".join(map(str, legal)))
        return value

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        """A string that matches a pattern."""
        value: str = self.get(key, str)
        if not pattern.fullmatch(value):
            raise self.refuse(key, value, pattern.pattern)
        return value

    def count(self, key: str) -> int:
        """An integer of 0 or more."""
        value: int = self.get(key, int)
        if value < 0:
            raise self.refuse(key, value, "0 or more")
        return value

    def table(self, key: str) -> JsonTable:
        """The object of a key."""
        return JsonTable(self.get(key, dict), f"{self.where}: {key}")

    def optional_table(self, key: str) -> JsonTable | None:
        """The object of a key, None where that is null."""
        return None if self.get(key, dict, optional=True) is None else self.table(key)

    def tables(self, key: str) -> list[JsonTable]:
        """The objects in the list of a key."""
        values = self.get(key, list)
        return [JsonTable(value, f"{self.where}: {key}[{i}]") for i, value in enumerate(values)]

    def names(self) -> list[str]:
        """Its keys."""
        return list(self._value)

    def array(self, key: str, kind: type, size: int | None = None) -> tuple[Any, ...]:
        """The values in the list of a key, one or more, or `size`."""
        values = self.get(key, list)
        table = JsonTable({str(i): value for i, value in enumerate(values)}, f"{self.where}: {key}")
        if not values or (size is not None and len(values) != size):
            raise self.refuse(key, values, f"a list of {size or 'one or more'}")
        return tuple(table.get(str(i), kind) for i in range(len(values)))

    def refuse(self, key: str, value: Any, legal: str) -> UserError:
        """The error that a value is not legal, to be raised."""
        return UserError(f"{self.where}: {key!r} is {_brief(value)}; legal: {legal}.")


def _is_plain(text: str) -> bool:
    """Whether a string can be a file's name or be sent: JSON may hold half of a pair of surrogates."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
