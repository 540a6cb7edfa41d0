"""Retention beside a running server: a round a minute, in steps between which live requests write.

What is deleted, and how, `retention.py` knows; this file knows when, and threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from ouzel.store.files_disk import to_the_end
from ouzel.store.retention import Removed, Retention
from ouzel.store.sqlite import SqliteFile

DAY: Final = 86_400.0
"""Seconds."""

EXPIRE_EVERY: Final = 3600.0
"""Seconds between two looks for what is old."""

PAUSE: Final = 0.02
"""Seconds after each step: as long as a step itself, so half of the time is everybody else's."""

FREE_BYTES: Final = 8 * 2**20
"""Free bytes that stay in the file: giving them all back would only make it grow again."""

FOLD_TRIES: Final = 20
"""Looks at the log in a round; the pauses of readers and writers are short, but many."""

T = TypeVar("T")


class Retiring:
    """Deletes what is old, and brings what was deleted out of the files.

    Args:
        path: the store's database, which is open elsewhere.
        keep_seconds: how long things are kept; 0 for ever.
        now: seconds since the epoch.
    """

    def __init__(
        self, path: Path, keep_seconds: float, *, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._keep = keep_seconds
        self._now = now
        self._open: Retention | None = None
        self._next = 0.0

    async def round(self) -> int:
        """To be called once a minute. Returns how many things were deleted. Raises StoreError."""
        gone = 0
        if self._open is None:
            self._open = await _in_thread(self._opened)
            # What an earlier process left half done is looked for once.
            gone += await self._all(self._open.leftovers())
        if self._keep and time.monotonic() >= self._next:
            gone += await self._all(self._open.expire(self._now() - self._keep))
            self._next = time.monotonic() + EXPIRE_EVERY
        await self._tidy(self._open)
        return gone

    async def close(self) -> None:
        """Let the file go; to be called when no round runs, before the store is closed."""
        if self._open is not None:
            self._open.close()

    async def _all(self, steps: Iterator[Removed]) -> int:
        gone = 0
        while (step := await _in_thread(lambda: next(steps, None))) is not None:
            gone += step.count
            await asyncio.sleep(PAUSE)
        return gone

    async def _tidy(self, retention: Retention) -> None:
        steps = retention.shrink(FREE_BYTES)
        # Pauses between steps, not a poll.
        while await _in_thread(lambda: next(steps, None)) is not None:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)
        for _ in range(FOLD_TRIES):
            if await _in_thread(retention.fold):
                return
            await asyncio.sleep(PAUSE)

    def _opened(self) -> Retention:
        file = SqliteFile(self._path)
        file.make()  # it is there; now its identity is known
        return Retention(file)


async def _in_thread(work: Callable[[], T]) -> T:
    """Never left in the middle: the connection is no other thread's meanwhile."""
    return await to_the_end(asyncio.to_thread(work))
