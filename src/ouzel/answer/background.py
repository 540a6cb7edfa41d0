"""Which background run is next, and how many run at once.

Owners take turns, so that one who queues a thousand runs delays another by one run at most. This
file does not know how a run is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ouzel.answer.running import Answer
from ouzel.core.errors import TooManyRequests


@dataclass(frozen=True, slots=True)
class BackgroundLimits:
    """What background runs may take.

    Args:
        at_once: how many run side by side.
        waiting: how many may wait for that.
        within: seconds that one may run; 0 sets no limit.
    """

    at_once: int = 4
    waiting: int = 1000
    within: float = 3600.0


class Background:
    """The queue of background runs, and the tasks that do them.

    Args:
        limits: what they may take.
        work: does one run to its end; raises nothing.
    """

    def __init__(
        self, limits: BackgroundLimits, work: Callable[[Answer], Coroutine[Any, Any, None]]
    ) -> None:
        self.limits = limits
        self._work = work
        # By owner, the one whose turn it is first.
        self._waiting: dict[str, deque[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._coming = 0
        self._stopped = False

    @property
    def waiting(self) -> int:
        """How many runs wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """How many runs are under way."""
        return len(self._tasks)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Inside, one more run is on its way here, which is counted as if it waited already.

        Raises:
            TooManyRequests: no other run may wait.
        """
        free = max(0, self.limits.at_once - self.running)
        if self.waiting + self._coming - free >= self.limits.waiting:
            raise TooManyRequests(
                f"{self.limits.waiting} background responses wait already, which is as many as "
                "this server accepts (setting background_waiting). Try again later.",
                retry_after=5.0,
            )
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def put(self, answer: Answer) -> None:
        """Do this one when its turn comes."""
        self._waiting.setdefault(answer.run.owner, deque()).append(answer)
        self._go_on()

    def take_out(self, answer: Answer) -> bool:
        """Whether it waited; it does no longer."""
        queue = self._waiting.get(answer.run.owner, deque())
        if answer not in queue:
            return False
        queue.remove(answer)
        if not queue:
            del self._waiting[answer.run.owner]
        return True

    def stop(self) -> list[Answer]:
        """Start no further ones; those that wait are given back."""
        self._stopped = True
        left = [answer for queue in self._waiting.values() for answer in queue]
        self._waiting.clear()
        return left

    async def close(self, within: float) -> None:
        """Wait up to so many seconds for the runs that are under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)

    def _next(self) -> Answer | None:
        if not self._waiting:
            return None
        owner = next(iter(self._waiting))
        queue = self._waiting.pop(owner)
        answer = queue.popleft()
        if queue:
            self._waiting[owner] = queue  # behind all others
        return answer

    def _go_on(self) -> None:
        while not self._stopped and len(self._tasks) < self.limits.at_once:
            answer = self._next()
            if answer is None:
                return
            task = asyncio.create_task(self._work(answer))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()
