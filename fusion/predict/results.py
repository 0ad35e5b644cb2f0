"""What is written of one answer, and the file that has a line of JSON for each."""

from __future__ import annotations

import contextlib
import json
import sys
from types import TracebackType
from typing import IO, Any

from ..base.columns import accuracy_text
from ..base.files import check_json_target
from ..base.program import UserError
from ..protocol import oip

STDOUT = "-"


def served_by(parameters: oip.Parameters) -> dict[str, Any]:
    """What an answer says of how it was made, as far as it does: `switch`; `devices`, a name for each slice, empty
    where none came; `device_ms`, likewise, or None; `missing`, the slices' numbers; `degraded`, `early`,
    `expected_accuracy`."""
    row: dict[str, Any] = {}
    for name in ("switch", "devices", "device_ms", "missing", "degraded", "early", "expected_accuracy"):
        if name in parameters:
            row[name] = parameters[name]
    for name in ("devices", "device_ms", "missing"):
        if isinstance(row.get(name), str):
            row[name] = row[name].split(",") if row[name] else []
    for name in ("device_ms", "missing"):
        if name in row:
            row[name] = [_number(one) for one in row[name]]
    return row


def lacking(parameters: oip.Parameters) -> str:
    """Why an answer is worse than its switch's, as a phrase; empty for one that is not."""
    if parameters.get("degraded") is not True:
        return ""
    missing = parameters.get("missing") or "?"
    accuracy = parameters.get("expected_accuracy")
    expected = f", expected accuracy {accuracy_text(accuracy)}" if isinstance(accuracy, (int, float)) else ""
    return f"degraded: without slice {missing} of {parameters.get('switch', '?')}{expected}"


def shown(text: str) -> str:
    """`text` as it may stand on a terminal: as Python writes it where it has control characters or is no Unicode."""
    return text if text.isprintable() else ascii(text)


class JsonLines:
    """A file with one JSON object per line, made anew, each line written at once; a context manager.

    Args:
      path: the file; "-" is standard output, and None or "" no file.

    Raises `UserError` when it cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._path, self._stream = path, _open(path)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None and self._path != STDOUT:
            # What is left in its buffer could not be written before.
            with contextlib.suppress(OSError):
                self._stream.close()

    def write(self, row: dict[str, Any]) -> None:
        """Adds a line."""
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(row) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"file {self._path!r} cannot be written: {error.strerror}.") from error


def _open(path: str | None) -> IO[str] | None:
    if not path:
        return None
    if path == STDOUT:
        return sys.stdout
    check_json_target(path)
    try:
        return open(path, "w", encoding="ascii")
    except OSError as error:
        raise UserError(f"file {path!r} cannot be written: {error.strerror}.") from error


def _number(text: str) -> Any:
    """The number that `text` is, None where it is empty, or itself."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text or None
