"""A limit on how long something is awaited."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable
from typing import TypeVar

# aiohttp brings async_timeout for the Python that has no such limit yet.
_timeout = importlib.import_module("asyncio" if sys.version_info >= (3, 11) else "async_timeout").timeout
_T = TypeVar("_T")


async def within(seconds: float, awaited: Awaitable[_T]) -> _T:
    """What `awaited` gives; after `seconds` it is cancelled and `asyncio.TimeoutError` raised."""
    # Not `asyncio.wait_for`, which runs a coroutine in a task of its own.
    async with _timeout(seconds):
        return await awaited
