"""JSON as the protocol takes it: no key twice, no NaN; and the error that refuses a message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn


class OipError(Exception):
    """A request that is refused, or an answer that cannot be given: `status` is the HTTP status, 400 to 599, `message`
    the sentence for the `error` key of the OIP error object, and `headers` what the answer's head says beside it, such
    as Retry-After."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `text`, which is of a `what`. Raises `OipError` (400) where there is none."""
    try:
        message = _DECODER.decode(text.decode("utf-8").removeprefix(_BYTE_ORDER_MARK))
    except UnicodeDecodeError as error:
        refuse(f"the JSON of the {what} is not UTF-8 at byte {error.start}")
    except RecursionError:
        refuse(f"the JSON of the {what} is nested too deeply")
    except json.JSONDecodeError as error:
        refuse(f"the {what} is not JSON: {error}")
    except ValueError:  # Python's own limit
        refuse(f"the JSON of the {what} has a number of thousands of digits; legal: numbers of 64 bits")
    if not isinstance(message, dict):
        refuse(f"the {what} is {brief(message)}; legal: a JSON object")
    return message


def dump(message: Any) -> bytes:
    """A message as JSON. Raises `ValueError` for NaN and infinity."""
    return _ENCODER.encode(message).encode("ascii")


def brief(value: Any) -> str:
    """A JSON value as it should stand in an error message: JSON of at most 60 characters, or what it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and (len(value) > 16 or any(isinstance(v, (list, dict)) for v in value)):
        return f"a list of {len(value)} values"
    text = json.dumps(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def refuse(message: str) -> NoReturn:
    """Raises `OipError` (400) with a sentence, given without its full stop."""
    raise OipError(400, message + ".")


def _constant(text: str) -> NoReturn:
    refuse(f"the JSON holds {text}, which is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        refuse(f"the JSON has the key {brief(next(k for k in keys if keys.count(k) > 1))} twice")
    return values


# Some programs write it before UTF-8.
_BYTE_ORDER_MARK = "\ufeff"
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=_object)
