"""What the interpreters alone reach, in this process: no HTTP, no coordinator, one pinned thread for each slice."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..bundle.contents import Bundle, SwitchEntry
from ..local.pinning import pinned
from ..rules.sum import dequantize
from ..runtime.choosing import Runtime
from ..runtime.interpreters import SliceInterpreter


class Alone:
    """The interpreters of a switch's slices, one thread each; a context manager.

    Args:
      bundle, entry, precision: whose slices.
      runtime: from `runtime.choose`; every invocation has one thread.
      cores: slice i runs on core `cores[i % len(cores)]`; none leaves the threads free.

    Raises `UserError` as `SliceInterpreter` and `pinned` do.
    """

    def __init__(
        self, bundle: Bundle, entry: SwitchEntry, precision: str, runtime: Runtime, cores: Sequence[int]
    ) -> None:
        self._files = [slice_.files[precision] for slice_ in entry.slices]
        self._interpreters = [SliceInterpreter(bundle, file, runtime, 1) for file in self._files]
        self._cores = [[cores[i % len(cores)]] if cores else [] for i in range(len(self._files))]
        # Kept, so that an invocation never waits for a thread to start.
        self._threads = [ThreadPoolExecutor(1) for _ in self._files]

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *error: object) -> None:
        for thread in self._threads:
            thread.shutdown()

    def invoke(self, image: np.ndarray, slice_: int = 0) -> float:
        """Seconds of one invocation of a slice, on its core, for an image, uint8 of the bundle's shape."""

        def run() -> float:
            with pinned(self._cores[slice_]):
                began = time.perf_counter()
                self._interpreters[slice_](image)
                return time.perf_counter() - began

        return self._threads[slice_].submit(run).result()

    def outputs(self, image: np.ndarray) -> list[np.ndarray]:
        """What each slice gives for an image, dequantized, float64."""
        return [
            dequantize(interpreter(image), file.output.scale, file.output.zero_point)
            for interpreter, file in zip(self._interpreters, self._files, strict=True)
        ]

    def rate(self, images: np.ndarray, seconds: float) -> float:
        """Images per second where every slice does nothing but invoke, all at once, for so many seconds: those of the
        slowest slice, since an image takes all of them."""
        start = threading.Barrier(len(self._interpreters))

        def run(place: int) -> float:
            with pinned(self._cores[place]):
                start.wait()
                began, count = time.perf_counter(), 0
                while time.perf_counter() < began + seconds:
                    self._interpreters[place](images[count % len(images)])
                    count += 1
                return count / (time.perf_counter() - began)

        futures = [thread.submit(run, place) for place, thread in enumerate(self._threads)]
        return min(future.result() for future in futures)
