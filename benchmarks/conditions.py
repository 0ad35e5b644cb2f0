"""Tables of figures as CSV, with the conditions they were measured under in every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fusion.base.files import write_text
from fusion.runtime import machine


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], options: Mapping[str, Any] | None = None
) -> None:
    """Writes rows; behind their columns come those of `options`, the same in each, and `conditions`.

    The file is written aside, then renamed, its folder made.

    Raises:
      UserError: it cannot be written.
    """
    options = options or {}
    said = describe()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*header, *options, "conditions"))
    writer.writerows((*row, *options.values(), said) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def describe() -> str:
    """The cores this process may use, their kind, and the versions of TensorFlow and Keras."""
    here = machine.describe()
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("tensorflow", "keras"))
    return f"{here.cores} cores {here.model} {here.architecture}, {versions}"
