"""Work in several threads at once, as TensorFlow and Pillow let others run while they decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yields each item, in order, with what the function returns for it; several are worked on at once.

    When one fails, or the caller takes no more, those that have not begun are given up.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from zip(items, pool.map(function, items), strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
