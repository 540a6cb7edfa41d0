"""How many interpreters may live at once, and who gets the next free place.

Waiters are served owner by owner, in turn, so that one who asks for twenty does not keep the
others waiting for all of them. What an interpreter is, this file does not know. Everything here
runs on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable


class Places:
    """A bounded number of places with a queue for each owner.

    Args:
        most: places that there are, at least 1.
        make_room: called, now and again, while somebody waits and none is free; may bring about a
            `give_back`, later or at once.
    """

    def __init__(self, most: int, make_room: Callable[[], None]) -> None:
        if most < 1:
            raise ValueError("there must be at least one place")
        self._free = most
        self._make_room = make_room
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def free(self) -> int:
        """Places that nobody has."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(len(queue) for queue in self._queues.values())

    def take_now(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._free < 1 or self._queues:
            return False
        self._free -= 1
        return True

    async def take(self, owner: str) -> None:
        """Take a place, in turn, to be given back; who is cancelled while waiting has none.

        Raises what `turn_away` is given.
        """
        if self.take_now():
            return
        ticket = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, deque()).append(ticket)
        try:
            self._make_room()
            await ticket
        except BaseException:
            if not ticket.done() or ticket.cancelled():
                self._leave(owner, ticket)
            elif ticket.exception() is None:
                self.give_back()  # it was granted in the moment in which the waiter gave up
            raise

    def give_back(self) -> None:
        """A place is free again: the next waiter has it."""
        self._free += 1
        while self._free > 0 and self._queues:
            owner, queue = next(iter(self._queues.items()))
            ticket = queue.popleft()
            if queue:
                self._queues.move_to_end(owner)
            else:
                del self._queues[owner]
            if not ticket.done():
                self._free -= 1
                ticket.set_result(None)

    def turn_away(self, error: Exception) -> None:
        """Raise this to everybody who waits."""
        queues, self._queues = self._queues, OrderedDict()
        for queue in queues.values():
            for ticket in queue:
                if not ticket.done():
                    ticket.set_exception(error)

    def _leave(self, owner: str, ticket: asyncio.Future[None]) -> None:
        queue = self._queues.get(owner)
        if queue is not None and ticket in queue:
            queue.remove(ticket)
            if not queue:
                del self._queues[owner]
