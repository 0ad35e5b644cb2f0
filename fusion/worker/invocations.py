"""The invocation thread of a worker and the bounded queue before it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..protocol.oip import OipError


class Invocation:
    """One request's work: `work` is called with this object in the invocation thread.

    Attributes:
      abandoned: whether nobody waits for it any more; `work` should then stop.
    """

    def __init__(self, work: Callable[[Invocation], Any]) -> None:
        self.work = work
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.abandoned = False


class Invocations:
    """One thread that does invocations in the order they came, so that two never fight for the same cores and the event
    loop stays free; a context manager.

    Args:
      max_queue: how many may wait while one runs, 1 or more.
    """

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._waiting: deque[Invocation] = deque()
        self._changed = threading.Condition()
        self._running = self._ended = False
        self._thread = threading.Thread(target=self._run, name="invoke", daemon=True)

    def __enter__(self) -> Invocations:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def depth(self) -> int:
        """How many invocations wait."""
        return len(self._waiting)

    async def run(self, work: Callable[[Invocation], Any], deadline: float | None) -> Any:
        """What `work` returns. An invocation that is given up, by cancelling or at `deadline` (`time.perf_counter()`),
        is not started, or told so if it runs.

        Raises `OipError`: 503 when the queue is full, at once, and 504 at the deadline; and whatever `work` raises.
        """
        invocation = Invocation(work)
        with self._changed:
            # A free thread takes one more than those that wait.
            if len(self._waiting) >= self._max_queue + (not self._running):
                message = f"{len(self._waiting)} requests wait for this worker, which is all it keeps; try again later."
                raise OipError(503, message, {"Retry-After": "1"})
            self._waiting.append(invocation)
            self._changed.notify()
        left = None if deadline is None else max(0.0, deadline - time.perf_counter())
        try:
            return await asyncio.wait_for(invocation.future, left)
        except BaseException as error:
            invocation.abandoned = True
            with self._changed, contextlib.suppress(ValueError):
                self._waiting.remove(invocation)
            # What `work` raised may be a timeout of its own.
            if isinstance(error, asyncio.exceptions.TimeoutError) and invocation.future.cancelled():
                raise OipError(504, "the request was not answered within its timeout.") from error
            raise

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = False
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                invocation = self._waiting.popleft()
                self._running = True
            result, error = None, None
            try:
                result = invocation.work(invocation)
            except Exception as raised:
                error = raised
            # The loop is closed when the program ends in the middle of an invocation.
            with contextlib.suppress(RuntimeError):
                invocation.future.get_loop().call_soon_threadsafe(_settle, invocation.future, result, error)
            # An invocation and its images are not kept until the next one comes.
            del invocation, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
