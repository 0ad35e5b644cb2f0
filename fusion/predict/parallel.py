"""Does the same with many things, several at once, and gives what came of them in their order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(things: Iterable[T], functions: Sequence[Callable[[T], R]]) -> Iterator[tuple[T, Future[R]]]:
    """Each thing with what one of `functions` made of it, in the order of the things.

    Args:
      things: iterated in a thread of its own, at most twice as many things ahead as functions; may be endless and may
        block. What it raises is raised here, after the things before it.
      functions: called with one thing at a time, each in a thread of its own.

    The threads do not keep the process from ending.
    """
    tasks: queue.SimpleQueue[tuple[T, Future[R]]] = queue.SimpleQueue()
    order: queue.SimpleQueue[tuple[T, Future[R]] | BaseException | None] = queue.SimpleQueue()
    ahead = threading.Semaphore(2 * len(functions))

    def feed() -> None:
        try:
            for thing in things:
                ahead.acquire()
                future: Future[R] = Future()
                tasks.put((thing, future))
                order.put((thing, future))
            order.put(None)
        except BaseException as error:
            order.put(error)

    def serve(function: Callable[[T], R]) -> None:
        while True:
            thing, future = tasks.get()
            try:
                future.set_result(function(thing))
            except BaseException as error:
                future.set_exception(error)

    threading.Thread(target=feed, daemon=True).start()
    for function in functions:
        threading.Thread(target=serve, args=(function,), daemon=True).start()
    while True:
        item = order.get()
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        # Waits; what it raises is for whoever asks for the result.
        item[1].exception()
        ahead.release()
        yield item
