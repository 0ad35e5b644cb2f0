"""A bundle's folder: written aside, then put in the place of an older one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.fusion.program import UserError


def check_target(target: Path) -> None:
    """Raises UserError if `target` is there and is neither empty nor a bundle: nothing else is ever replaced."""
    if (target / "manifest.json").is_file() or not target.exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise UserError(f"--bundle={target} is there and is not a bundle; give a new folder or an older bundle.")


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends, and vanishes if the block fails.

    Raises:
      UserError: `target` is something else than a bundle, or cannot be written.
    """
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        folder.chmod(0o755)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror}.") from None
    try:
        yield folder
        old = folder.with_name(f"{folder.name}.old")
        if target.exists():
            os.rename(target, old)
        os.rename(folder, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--bundle={target} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
