"""Typed access to the JSON objects of a manifest: a wrong one is refused by where it stands."""

from __future__ import annotations

import json
import re
from typing import Any

from ..base.program import UserError

# The largest integer that every reader of JSON, and NumPy, can hold.
_LARGEST = 2**63 - 1


class Table:
    """A JSON object together with where it stands, so that every refusal can say where."""

    def __init__(self, value: Any, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise UserError(f"{where} is {_brief(value)}; legal: an object.")
        self._value = value

    def get(self, key: str, kind: type, optional: bool = False) -> Any:
        if key not in self._value:
            raise UserError(f"{self.where} has no key {key!r}.")
        value = self._value[key]
        if value is None and optional:
            return None
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise self.refuse(key, value, "a number of 64 bits")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and not _is_plain(value):
            raise self.refuse(key, value, "a string of Unicode characters without NUL")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.refuse(key, value, {dict: "an object", list: "a list", str: "a string",
                                           int: "an integer", float: "a number"}[kind])  # fmt: skip
        return value

    def chosen(self, key: str, legal: tuple[Any, ...]) -> Any:
        value = self.get(key, type(legal[0]))
        if value not in legal:
            raise self.refuse(key, value, " or ".join(map(str, legal)))
        return value

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        value: str = self.get(key, str)
        if not pattern.fullmatch(value):
            raise self.refuse(key, value, pattern.pattern)
        return value

    def count(self, key: str) -> int:
        value: int = self.get(key, int)
        if value < 0:
            raise self.refuse(key, value, "0 or more")
        return value

    def table(self, key: str) -> Table:
        return Table(self.get(key, dict), f"{self.where}: {key}")

    def tables(self, key: str) -> list[Table]:
        values = self.get(key, list)
        return [Table(value, f"{self.where}: {key}[{i}]") for i, value in enumerate(values)]

    def names(self) -> list[str]:
        return list(self._value)

    def array(self, key: str, kind: type, size: int | None = None) -> tuple[Any, ...]:
        values = self.get(key, list)
        table = Table({str(i): value for i, value in enumerate(values)}, f"{self.where}: {key}")
        if not values or (size is not None and len(values) != size):
            raise self.refuse(key, values, f"a list of {size or 'one or more'}")
        return tuple(table.get(str(i), kind) for i in range(len(values)))

    def refuse(self, key: str, value: Any, legal: str) -> UserError:
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
