"""Work in several processes at once, which end when this one does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from fusion.base import streams
from fusion.base.program import UserError

Job = TypeVar("Job")


def run_all(
    function: Callable[[Job], Any],
    jobs: Sequence[Job],
    processes: int,
    done: Callable[[Job, Any], None],
    start: Callable[..., None] | None = None,
    start_arguments: tuple[Any, ...] = (),
    name: Callable[[Job], str] = str,
) -> None:
    """Calls `function` with each job in one of several fresh processes.

    Args:
      function: of a module's top level, as are the jobs' classes.
      jobs: what it is called with.
      processes: how many at most, at least 1.
      done: receives each job and what the function returned, as they are finished, in any order.
      start: is called once in each process before the first job.
      start_arguments: what it is called with.
      name: a job's name, for people.

    Raises:
      UserError: from the function, or because a process died, with the names of the jobs that it may have been at; the
        jobs that are left are given up.
    """
    workers = max(1, min(processes, len(jobs)))
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_process, initargs=(start, start_arguments)
    )
    with pool:
        with _ctrl_c_later():
            futures = {pool.submit(function, job): job for job in jobs}
        started = multiprocessing.active_children()
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BrokenProcessPool:
            pool.shutdown()
            # Jobs are begun in their order, so the first ones without a result are those that were under way.
            unfinished = [job for future, job in futures.items() if isinstance(future.exception(), BrokenProcessPool)]
            raise UserError(_death([name(job) for job in unfinished[:workers]], started)) from None
        except BaseException:
            for process in started:
                process.terminate()
            raise


def _death(jobs: Sequence[str], started: Sequence[BaseProcess]) -> str:
    """The sentence about a process that died by itself; the pool ends the others by SIGTERM."""
    codes = {process.exitcode or 0 for process in started} - {0, -signal.SIGTERM}
    how = ", ".join(sorted(signal.strsignal(-code) or "" if code < 0 else f"exit status {code}" for code in codes))
    return (
        f"{'; or '.join(jobs)}: the process died{f' ({how})' if how else ''}, perhaps for want of memory; "
        "try --processes=1."
    )


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Holds Ctrl-C back for the block, and for good in the processes that it starts: Ctrl-C reaches the whole group,
    also while these import; the parent alone answers it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_process(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    streams.set_up()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """Waits for the parent's death, by whatever cause, and ends this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
