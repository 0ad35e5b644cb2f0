"""What is shown and written of one answer, and the file that has a line of JSON for each."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from ..base.columns import accuracy_text
from ..base.files import check_json_target
from ..base.program import UserError
from ..protocol import oip

STDOUT = "-"
# Longer labels push what follows to the right.
_LABEL_WIDTH = 12


def served_by(parameters: oip.Parameters) -> dict[str, Any]:
    """What an answer says of how it was made, as far as it does: `switch`; `devices`, a name for each slice, empty
    where none came; `device_ms`, likewise, or None; `missing`, the slices' numbers; `degraded`, `early`,
    `expected_accuracy`."""
    names = ("switch", "devices", "device_ms", "missing", "degraded", "early", "expected_accuracy")
    row: dict[str, Any] = {name: parameters[name] for name in names if name in parameters}
    for name in ("devices", "device_ms", "missing"):
        if isinstance(row.get(name), str):
            values = row[name].split(",") if row[name] else []
            row[name] = values if name == "devices" else [_number(value) for value in values]
    return row


def texts(row: Mapping[str, Any]) -> tuple[str, str]:
    """The answer of a row as it is shown: label and confidence, or the enlarged image's file and size."""
    if "label" in row:
        early = "  early" if row.get("early") is True else ""
        return printable(row["label"]).ljust(_LABEL_WIDTH), f"{row['confidence']:6.1%}{early}"
    height, width, _ = row["shape"]
    return printable(row["target"]), f"{width}x{height}"


def lacking(row: Mapping[str, Any]) -> str:
    """Why an answer is worse than its switch's, as a phrase; empty for one that is not."""
    if row.get("degraded") is not True:
        return ""
    missing = ",".join(map(str, row.get("missing", ()))) or "?"
    accuracy = row.get("expected_accuracy")
    expected = f", expected accuracy {accuracy_text(accuracy)}" if isinstance(accuracy, (int, float)) else ""
    return f"degraded: without slice {missing} of {row.get('switch', '?')}{expected}"


def printable(text: str) -> str:
    """`text` as it may stand on a terminal: as Python writes it where it has control characters or is no Unicode."""
    return text if text.isprintable() else ascii(text)


@contextlib.contextmanager
def json_lines(path: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes a JSON object as a line of a new file, at once.

    Args:
      path: the file; "-" is standard output, and None or "" no file.

    Raises `UserError` when it cannot be written.
    """
    stream = _open(path)

    def write(row: Mapping[str, Any]) -> None:
        if stream is None:
            return
        try:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
        except OSError as error:
            if path == STDOUT:
                raise
            raise UserError(f"file {path!r} cannot be written: {error.strerror}.") from error

    try:
        yield write
    finally:
        if stream is not None and path != STDOUT:
            # What is left in its buffer could not be written before.
            with contextlib.suppress(OSError):
                stream.close()


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
