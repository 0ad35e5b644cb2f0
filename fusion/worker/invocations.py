"""The invocation thread of a worker and the bounded queue before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..protocol.oip import OipError


@dataclass
class Invocation:
    """One request's work; `abandoned` when nobody waits for it any more, and it should stop."""

    abandoned: bool = False


class Invocations:
    """One thread that does invocations in the order they came, so that two never fight for the same cores and the event
    loop stays free; a context manager.

    Args:
      max_queue: how many may wait while one runs, 1 or more.
    """

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="invoke")
        # Those that wait or run.
        self._open = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Invocations:
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def depth(self) -> int:
        """How many invocations wait."""
        return max(0, self._open - 1)

    async def run(self, work: Callable[[Invocation], Any], deadline: float | None) -> Any:
        """What `work` returns. An invocation that is given up, by cancelling or at `deadline` by the clock of the event
        loop, is not started, or told so if it runs.

        Raises `OipError`: 503 when the queue is full, at once, and 504 at the deadline; and whatever `work` raises.
        """
        with self._lock:
            if self._open > self._max_queue:
                message = f"{self._max_queue} requests wait for this worker, which is all it keeps; try again later."
                raise OipError(503, message, {"Retry-After": "1"})
            self._open += 1
        invocation = Invocation()
        future = self._thread.submit(work, invocation)
        future.add_done_callback(self._ended)
        awaited = asyncio.wrap_future(future)
        left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
        try:
            return await asyncio.wait_for(awaited, left)
        except BaseException as error:
            invocation.abandoned = True
            future.cancel()
            # What `work` raised may be a timeout of its own.
            if isinstance(error, asyncio.exceptions.TimeoutError) and awaited.cancelled():
                raise OipError(504, "the request was not answered within its timeout.") from error
            raise

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            self._open -= 1
