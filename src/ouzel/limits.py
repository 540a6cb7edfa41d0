"""Who may start a request, and when.

Two limits for now: how many requests run at once in all, and how much room is left for work that
can wait. Keys, plans and quotas join them here. It knows neither HTTP nor engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from ouzel.core.errors import TooManyRequests


class Spare:
    """Room of the engine that no live request needs, for work that can wait.

    Live requests are only counted here and never wait. Where one of them would meet a full engine,
    the piece of work that began last gives way; so long ones come to their end, too.

    Args:
        slots: how many requests the engine computes at once.
        most: pieces of work at once; 0 for all slots but one. One slot is always left free, unless
            there is only one.
    """

    def __init__(self, slots: int, most: int = 0) -> None:
        self.slots = max(1, slots)
        self.most = min(most or self.slots, max(1, self.slots - 1))
        self.live = 0
        self._held: dict[object, Callable[[], None]] = {}
        self._changed = asyncio.Event()

    @property
    def held(self) -> int:
        """Pieces of work that have room now."""
        return len(self._held)

    def came(self) -> None:
        """A live request begins."""
        self.live += 1
        if self._held and self.live + len(self._held) > self.slots:
            _, give_way = self._held.popitem()  # the one that began last
            give_way()

    def went(self) -> None:
        """A live request has ended."""
        self.live -= 1
        self._changed.set()

    async def room(self) -> None:
        """Returns when there is room for one more piece of work."""
        while len(self._held) >= self.most or self.live + len(self._held) >= self.slots:
            self._changed.clear()
            await self._changed.wait()

    @contextmanager
    def hold(self, give_way: Callable[[], None]) -> Iterator[None]:
        """Take the room that `room` has found; to be called before anything else is awaited.

        Args:
            give_way: called once, at most, when a live request needs the room.
        """
        mine = object()
        self._held[mine] = give_way
        try:
            yield
        finally:
            self._held.pop(mine, None)
            self._changed.set()


class AtOnce:
    """Admits up to `most` requests at a time; one more is refused, not queued.

    The engine queues by itself what its slots cannot take. This bound keeps that queue, and the
    memory it costs, finite.

    Args:
        most: how many requests may run at once.
        spare: is told of each, so that what can wait makes room.
    """

    def __init__(self, most: int, spare: Spare | None = None) -> None:
        self.most = most
        self.running = 0
        self._spare = spare or Spare(1)

    @asynccontextmanager
    async def admit(self, owner: str) -> AsyncGenerator[None, None]:
        """Held while a request of `owner` runs. Raises TooManyRequests when full."""
        if self.running >= self.most:
            raise TooManyRequests(
                f"{self.running} requests are running, which is as many as this server accepts "
                "at once (setting max_requests). Try again shortly.",
                retry_after=1.0,
            )
        self.running += 1
        try:
            with self.busy():
                yield
        finally:
            self.running -= 1

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Held while something that needs no admission uses the engine: what can wait makes room
        for that, too."""
        self._spare.came()
        try:
            yield
        finally:
            self._spare.went()
