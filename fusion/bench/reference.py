"""What the interpreters alone reach, in this process: no HTTP, no coordinator, one pinned thread for each slice."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..bundle.contents import Bundle, SwitchEntry
from ..local.cores import pinned
from ..runtime.choosing import Runtime
from ..runtime.interpreters import SliceInterpreter


class Alone:
    """The interpreters of a switch's slices, one thread each.

    Args:
      bundle, entry, precision: whose slices.
      runtime: from `runtime.choose`; every invocation has one thread.
      cores: slice i runs on core `cores[i % len(cores)]`; none leaves the threads free.

    Raises `UserError` as `SliceInterpreter` does.
    """

    def __init__(
        self, bundle: Bundle, entry: SwitchEntry, precision: str, runtime: Runtime, cores: Sequence[int]
    ) -> None:
        files = [slice_.files[precision] for slice_ in entry.slices]
        self._interpreters = [SliceInterpreter(bundle, file, runtime, 1) for file in files]
        self._cores = [[cores[i % len(cores)]] if cores else [] for i in range(len(files))]

    def invoke(self, image: np.ndarray) -> float:
        """Seconds of one invocation of the first slice, on its core, for an image, uint8 of the bundle's shape."""
        with pinned(self._cores[0]):
            began = time.perf_counter()
            self._interpreters[0](image)
            return time.perf_counter() - began

    def rate(self, images: np.ndarray, seconds: float) -> float:
        """Images per second where every slice does nothing but invoke, all at once, for so many seconds: those of the
        slowest slice, since an image takes all of them."""
        slices = len(self._interpreters)
        start = threading.Barrier(slices)

        def run(place: int) -> float:
            with pinned(self._cores[place]):
                start.wait()
                began, count = time.perf_counter(), 0
                while time.perf_counter() < began + seconds:
                    self._interpreters[place](images[count % len(images)])
                    count += 1
                return count / (time.perf_counter() - began)

        with ThreadPoolExecutor(slices) as threads:
            return min(threads.map(run, range(slices)))
