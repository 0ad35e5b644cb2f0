"""The bundle that a conversion replaces, and its files that would come out the same."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class OlderBundle:
    """What can be read of an older bundle: nothing of one that is missing or broken.

    Nothing of it is trusted, as it may have been edited: a file is taken by its seal alone.

    Args:
      folder: where it is, or would be.

    Attributes:
      manifest: the whole manifest.
      switches: its entries, by switch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest: dict[str, Any] = {}
        self.switches: dict[str, dict[str, Any]] = {}
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            self.switches = {entry["switch"]: entry for entry in manifest["switches"]}
            self.manifest = manifest
        except _BROKEN:
            return

    def find_file(self, recipe: str) -> bytes | None:
        """The slice file that was made by a recipe and is as it was made, or None."""
        return next((data for seal, digest, data in self._files if seal == _seal(recipe, digest)), None)

    @functools.cached_property
    def _files(self) -> list[tuple[Any, str, bytes]]:
        """The seal, the SHA-256 and the bytes of each slice file that can be read."""
        files = []
        for entry in self._file_entries():
            try:
                data = (self._folder / entry["path"]).read_bytes()
                files.append((entry["recipe"], hashlib.sha256(data).hexdigest(), data))
            except _BROKEN:
                continue
        return files

    def _file_entries(self) -> Iterator[dict[str, Any]]:
        for switch in self.switches.values():
            try:
                entries = [file for slice_ in switch["slices"] for file in slice_["files"].values()]
            except _BROKEN:
                continue
            yield from entries


def seal(recipe: str, data: bytes) -> str:
    """What a manifest holds of a recipe: SHA-256, in hex, of it and of the bytes that it made.

    A manifest that was pointed to another file by hand so says nothing of how that one was made.
    """
    return _seal(recipe, hashlib.sha256(data).hexdigest())


def _seal(recipe: str, digest: str) -> str:
    return hashlib.sha256(f"{recipe} {digest}".encode()).hexdigest()
