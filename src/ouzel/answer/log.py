"""The events of one run that have been released, for any number of readers.

Each reader has a place of its own in it: one that is slow holds up nobody, one that comes late
reads from the start. What had to be stored was stored before it came here; the log does not know
how, nor what is in the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence

from ouzel.core.errors import ShuttingDown
from ouzel.core.events import Event


class Log:
    """Released events.

    Args:
        events: those that were released by an earlier process.

    Attributes:
        events: all of them, in order.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events: list[Event] = list(events)
        self._over = False
        self._left_off = False
        self._waiting: set[asyncio.Event] = set()

    def release(self, events: Sequence[Event], *, last: bool) -> None:
        """Let readers have these; `last`: nothing follows."""
        self.events += events
        self._over = self._over or last
        self._wake()

    def add(self, event: Event) -> None:
        """Let readers have one more, which is not the last."""
        self.events.append(event)
        if self._waiting:
            self._wake()

    def leave_off(self) -> None:
        """This process ends before the run does: readers are told so."""
        self._left_off = True
        self._wake()

    async def batches(self, idle: float | None = None) -> AsyncGenerator[Sequence[Event], None]:
        """Events from the first one on, as many at a time as there are.

        Args:
            idle: seconds of silence after which an empty batch is given, as a sign of life.

        Raises:
            ShuttingDown: the run goes on in another process.
        """
        loop = asyncio.get_running_loop()
        place = 0
        wake = asyncio.Event()
        # One pass of the event loop lets an engine that answers at once do so: one batch instead
        # of two.
        await asyncio.sleep(0)
        while True:
            if place == len(self.events):
                if self._over:
                    return
                if self._left_off:
                    raise ShuttingDown("The server stopped; read on when it runs again.")
                wake.clear()
                self._waiting.add(wake)
                timer = loop.call_later(idle, wake.set) if idle else None
                try:
                    await wake.wait()
                finally:
                    self._waiting.discard(wake)
                    if timer is not None:
                        timer.cancel()
            batch = self.events[place:]
            place += len(batch)
            yield batch

    def _wake(self) -> None:
        for each in self._waiting:
            each.set()
        self._waiting.clear()
