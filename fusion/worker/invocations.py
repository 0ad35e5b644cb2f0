"""The invocation thread of a worker and the bounded queue before it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from ..base.waiting import within
from ..protocol.oip import OipError


class Job:
    """One request's work: `work` is called with this job in the invocation thread.

    Attributes:
      gone: whether nobody waits for it any more; `work` should then stop.
    """

    def __init__(self, work: Callable[[Job], Any]) -> None:
        self.work = work
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.gone = False


class Invocations:
    """One thread that does jobs in the order they came, so that two invocations never fight for the same cores and the
    event loop stays free; a context manager.

    Args:
      max_queue: how many jobs may wait while one runs, 1 or more.
    """

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._waiting: deque[Job] = deque()
        self._lock = threading.Lock()
        # An entry for every job that came to wait, and one for the end.
        self._news: SimpleQueue[None] = SimpleQueue()
        self._running = self._ended = False
        self._thread = threading.Thread(target=self._run, name="invoke", daemon=True)

    def __enter__(self) -> Invocations:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._news.put(None)
        self._thread.join()

    def depth(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    async def run(self, work: Callable[[Job], Any], deadline: float | None) -> Any:
        """What `work` returns. A job that is given up, by cancelling or at `deadline` (`time.perf_counter()`), is not
        started, or told so if it runs.

        Raises `OipError`: 503 when the queue is full, at once, and 504 at the deadline; and whatever `work` raises.
        """
        job = Job(work)
        with self._lock:
            # A free thread takes one job more than those that wait.
            if len(self._waiting) >= self._max_queue + (not self._running):
                message = f"{len(self._waiting)} requests wait for this worker, which is all it keeps; try again later."
                raise OipError(503, message, {"Retry-After": "1"})
            self._waiting.append(job)
        self._news.put(None)
        try:
            if deadline is None:
                return await job.future
            return await within(max(0.0, deadline - time.perf_counter()), job.future)
        except BaseException as error:
            job.gone = True
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(job)
            if isinstance(error, asyncio.exceptions.TimeoutError):
                raise OipError(504, "the request was not answered within its timeout.") from error
            raise

    def _run(self) -> None:
        while True:
            self._running = False
            self._news.get()
            if self._ended:
                return
            with self._lock:
                # It may have been given up.
                if not self._waiting:
                    continue
                job = self._waiting.popleft()
                self._running = True
            result, error = None, None
            try:
                result = job.work(job)
            except Exception as raised:
                error = raised
            # The loop is closed when the program ends in the middle of a job.
            with contextlib.suppress(RuntimeError):
                job.future.get_loop().call_soon_threadsafe(_settle, job.future, result, error)
            # A job and its images are not kept until the next one comes.
            del job, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
