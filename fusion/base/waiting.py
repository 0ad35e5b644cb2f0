"""A limit on how long something is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


async def within(seconds: float, awaited: Awaitable[_T]) -> _T:
    """What `awaited` gives; after `seconds` it is cancelled and `asyncio.TimeoutError` raised.

    `asyncio.wait_for` makes a task of its own, which costs more than a whole request may, and `asyncio.timeout` is of
    Python 3.11.
    """
    task, late = asyncio.current_task(), False

    def give_up() -> None:
        nonlocal late
        late = True
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await awaited
    except asyncio.CancelledError:
        if not late:
            raise
        # From Python 3.11 on a task counts how often it was cancelled.
        if task is not None and hasattr(task, "uncancel"):
            task.uncancel()
        raise asyncio.exceptions.TimeoutError from None
    finally:
        timer.cancel()
