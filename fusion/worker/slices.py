"""The slice models that a worker has loaded: on demand, within a limit of memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from ..base.program import UserError
from ..bundle.contents import SliceFile
from ..protocol import oip
from ..protocol.oip import OipError
from ..runtime import memory
from ..runtime.interpreters import SliceInterpreter

# A file that could not be loaded is not tried again before that, in seconds.
_RETRY_S = 30.0
_DEFAULT_SHARE = 0.8


class LoadedSlices:
    """Loads slice models when they are first used, and drops the least recently used where memory gets short.

    Args:
      load: gives the interpreter of a file, or raises `UserError`.
      limit_bytes: what all loaded models may take together, each as `memory.needed` says; None: any.
      on_load, on_evict: called with the file of each model that is loaded or dropped.

    `get` and `drop` are for one thread, the one that invokes; the rest is for any.
    """

    def __init__(
        self,
        load: Callable[[SliceFile], SliceInterpreter],
        limit_bytes: int | None,
        on_load: Callable[[SliceFile], None],
        on_evict: Callable[[SliceFile], None],
    ) -> None:
        self._load, self._limit = load, limit_bytes
        self._on_load, self._on_evict = on_load, on_evict
        # In the order of their last use.
        self._loaded: OrderedDict[SliceFile, SliceInterpreter] = OrderedDict()
        self._failures: dict[SliceFile, tuple[float, str]] = {}

    def __contains__(self, file: SliceFile) -> bool:
        return file in self._loaded

    def used_bytes(self) -> int:
        """What the loaded models take together."""
        return sum(_needed(file) for file in list(self._loaded))

    def refusal(self, file: SliceFile) -> str | None:
        """Why the model cannot be had now, as a sentence; None where nothing is known against it."""
        if self._limit is not None and _needed(file) > self._limit:
            return (
                f"slice file {file.path!r} takes about {_needed(file) / 1e6:.0f} MB of memory; legal: at most "
                f"{self._limit / 1e6:.0f} MB, the worker's --memory_limit_mb."
            )
        failed_at, reason = self._failures.get(file, (0.0, None))
        return reason if reason is not None and time.monotonic() - failed_at < _RETRY_S else None

    def get(self, file: SliceFile) -> SliceInterpreter:
        """The model of a file, loaded now if it is not yet. Raises `OipError` (503) when it cannot be loaded."""
        interpreter = self._loaded.get(file)
        if interpreter is not None:
            self._loaded.move_to_end(file)
            return interpreter
        reason = self.refusal(file)
        if reason is not None:
            raise refused(reason)
        while self._loaded and self._limit is not None and self.used_bytes() + _needed(file) > self._limit:
            self._evict()
        while True:
            try:
                interpreter = self._load(file)
                break
            except (UserError, MemoryError) as error:
                # Whatever other programs take, the models that nobody uses now make room first.
                if self._loaded and _is_short(file):
                    self._evict()
                    continue
                reason = str(error) or f"there is no memory left for slice file {file.path!r}."
                self._failures[file] = (time.monotonic(), reason)
                raise refused(reason) from error
        self._failures.pop(file, None)
        self._loaded[file] = interpreter
        self._on_load(file)
        return interpreter

    def drop(self, file: SliceFile) -> None:
        """Forgets the model of a file, so that its next use loads it anew."""
        self._loaded.pop(file, None)

    def _evict(self) -> None:
        file, _ = self._loaded.popitem(last=False)
        self._on_evict(file)


def refused(reason: str) -> OipError:
    """The refusal of a request whose model cannot be had now, told from that of a worker with too much to do."""
    return OipError(503, reason, {"Retry-After": f"{_RETRY_S:.0f}", oip.UNABLE: "true"})


def default_limit() -> int | None:
    """The bytes that models may take where nobody says: four fifths of what is free; None where that is not known."""
    free = memory.available()
    return None if free is None else int(free * _DEFAULT_SHARE)


def _needed(file: SliceFile) -> int:
    return memory.needed(file.bytes, file.arena_bytes)


def _is_short(file: SliceFile) -> bool:
    free = memory.available()
    return free is not None and free < _needed(file)
