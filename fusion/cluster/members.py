"""Who is in a cluster: the devices of its file, and, where that asks for them, those that announce themselves."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from . import file
from .discovery import AnnouncedWorker, browse
from .file import ClusterFile, Device


class Members:
    """The devices of a cluster as they come and go; a context manager, not to be entered where an event loop runs.

    Args:
      path: the cluster file.
      model_id: of the bundle; announced devices of another are left out.

    Raises `UserError` as `file.load` and `discovery.browse`. Whether devices are discovered is decided once, when
    the block is entered.
    """

    def __init__(self, path: str | Path, model_id: str) -> None:
        self._path, self._model_id = Path(path), model_id
        self._lock = threading.Lock()
        self._announced: set[AnnouncedWorker] = set()
        self._last_read: object = None
        self._stack = contextlib.ExitStack()
        self._file = file.load(path)

    def __enter__(self) -> Members:
        if self._file.discovery is not None:
            # Now, not at the first device: its token file may be unfit.
            self._file.discovery.token()
            self._stack.enter_context(browse(self._appeared, self._vanished))
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def changed(self) -> bool:
        """Whether file or announcements have changed since `read`."""
        return self._state() != self._last_read

    def read(self) -> tuple[Device, ...]:
        """The devices now: those of the file first, then others by name.

        Raises `UserError` when the file is unfit; `changed` is then false until it changes once more.
        """
        self._last_read = self._state()
        self._file = file.load(self._path)
        return self._file.devices + self._joined(self._file)

    def _joined(self, cluster: ClusterFile) -> tuple[Device, ...]:
        """The announced devices that join those of the file."""
        if cluster.discovery is None:
            return ()
        # A token is for those alone that show a certificate of the authority.
        schemes = ("http", "https") if cluster.discovery.token_file is None else ("https",)
        names, urls = ({getattr(device, key) for device in cluster.devices} for key in ("name", "url"))
        with self._lock:
            workers = sorted(self._announced, key=lambda worker: (worker.name, worker.url))
        devices = []
        for worker in workers:
            if worker.model_id != self._model_id or worker.url.partition(":")[0] not in schemes:
                continue
            if worker.name not in names and worker.url not in urls:
                names.add(worker.name)
                urls.add(worker.url)
                devices.append(Device(worker.name, worker.url, cluster.discovery))
        return tuple(devices)

    def _state(self) -> object:
        stamp = None
        with contextlib.suppress(OSError):
            stat = os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        with self._lock:
            return stamp, frozenset(self._announced)

    def _appeared(self, worker: AnnouncedWorker) -> None:
        with self._lock:
            self._announced.add(worker)

    def _vanished(self, worker: AnnouncedWorker) -> None:
        with self._lock:
            self._announced.discard(worker)
