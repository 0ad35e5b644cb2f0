"""Writes result files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .program import UserError


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON to `path`: aside first, then renamed over it.

    Raises `UserError` when that fails; an older file is then left as it was. Source: ours.
    """
    path = Path(path)
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        # mkstemp gives a private file; a result is for whoever may read its folder.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise UserError(f"file {str(path)!r} cannot be written: {error.strerror}.") from error
