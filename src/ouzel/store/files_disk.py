"""Threads for the disk: work there is never abandoned half-way, though its caller be cancelled.

A descriptor must not be closed, nor a file removed, while a thread still writes to it; so who is
cancelled waits for the thread's piece of work, a megabyte or a sync, and leaves then.

This file does not know what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ouzel.core.errors import StoreError

THREADS = 4
"""A sync takes its time; three others go on meanwhile."""

P = ParamSpec("P")
T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait for work that must not stop in the middle; a cancellation is raised after its end.

    Args:
        work: ends by itself, and soon.
    """
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # it is told to nobody: the caller has left
        raise cancelled
    return future.result()


class DiskThreads:
    """Runs functions that block on the disk."""

    def __init__(self) -> None:
        self._closed = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ouzel-files")

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. It has ended when this returns, however it returns.

        Raises StoreError after `close`.
        """
        if self._closed:
            raise StoreError("The store is closed.")
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._pool, lambda: work(*args, **kwargs)))

    async def close(self) -> None:
        """Let what runs come to its end. May be called twice."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
