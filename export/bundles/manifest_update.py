"""Changes a bundle's manifest, and its README with it, while the files stay as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from export.bundles import board_readme
from export.bundles.folder import locked
from fusion.base.files import write_json, write_text
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle


def read(bundle: Bundle) -> bytes:
    """The manifest as it is now.

    Raises:
      UserError: it cannot be read.
    """
    path = bundle.folder / "manifest.json"
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"manifest {str(path)!r} cannot be read: {error.strerror}.") from error


@contextmanager
def updated(bundle: Bundle, before: bytes, again: str) -> Iterator[dict[str, Any]]:
    """The manifest, to be changed in the block, at whose end it is written; no conversion replaces it meanwhile.

    Args:
      bundle: what was measured.
      before: its manifest then.
      again: what is to be done again if it is another one now, such as `verify`.

    Raises:
      UserError: the manifest is another by now, since the files may be, or cannot be written.
    """
    try:
        with locked(bundle.folder):
            if read(bundle) != before:
                raise UserError(f"bundle {str(bundle.folder)!r} was changed meanwhile; {again} it again.")
            written = json.loads(before)
            yield written
            readme = board_readme.render(written)
            write_json(bundle.folder / "manifest.json", written)
            write_text(bundle.folder / "README.md", readme)
    except OSError as error:
        raise UserError(f"bundle {str(bundle.folder)!r} cannot be written: {error.strerror}.") from error
