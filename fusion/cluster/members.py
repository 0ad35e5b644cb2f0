"""Who is in a cluster: the devices of its file, and, where that asks for them, those that announce themselves."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType

from . import file as cluster
from .discovery import Browser, Found
from .file import Cluster, Device


class Members:
    """The devices of a cluster as they come and go; a context manager, not to be entered where an event loop runs.

    Args:
      path: the cluster file.
      model_id: of the bundle; announced devices of another are left out.

    Raises `UserError` as `cluster.load` and `discovery.Browser`. Whether devices are discovered is decided once, when
    the block is entered.
    """

    def __init__(self, path: str | Path, model_id: str) -> None:
        self._path, self._model_id = Path(path), model_id
        self._lock = threading.Lock()
        self._found: set[Found] = set()
        self._seen: object = None
        self._stack = contextlib.ExitStack()
        self._cluster = cluster.load(path)

    def __enter__(self) -> Members:
        if self._cluster.discovery is not None:
            # Now, not at the first device: what the table says may be unfit.
            self._cluster.discovery.token()
            self._stack.enter_context(Browser(self._appeared, self._vanished))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def changed(self) -> bool:
        """Whether file or announcements have changed since `read`."""
        return self._state() != self._seen

    def read(self) -> tuple[Device, ...]:
        """The devices now: those of the file first, then others by name.

        Raises `UserError` when the file is unfit; `changed` is then false until it changes once more.
        """
        self._seen = self._state()
        self._cluster = cluster.load(self._path)
        return self._cluster.devices + self._announced(self._cluster)

    def _announced(self, known: Cluster) -> tuple[Device, ...]:
        if known.discovery is None:
            return ()
        names, urls = ({getattr(device, key) for device in known.devices} for key in ("name", "url"))
        with self._lock:
            found = sorted(self._found, key=lambda one: (one.name, one.url))
        devices = []
        for one in found:
            if one.model_id == self._model_id and one.name not in names and one.url not in urls:
                names.add(one.name)
                urls.add(one.url)
                devices.append(Device(one.name, one.url, known.discovery))
        # A token is for those alone that show a certificate of the authority.
        return tuple(one for one in devices if one.credentials.token_file is None or one.url.startswith("https"))

    def _state(self) -> object:
        stamp = None
        with contextlib.suppress(OSError):
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        with self._lock:
            return stamp, frozenset(self._found)

    def _appeared(self, found: Found) -> None:
        with self._lock:
            self._found.add(found)

    def _vanished(self, found: Found) -> None:
        with self._lock:
            self._found.discard(found)
