"""Which line of which batch is next, and which are being answered.

Only memory: what is here is found again in the store by another process. How a line is answered,
and when there is room for one, it does not know.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any

from ouzel.core.contracts_batches import Batch, Batches, BatchLine

_log = logging.getLogger(__name__)

_AFTER_A_MISTAKE = 5.0
"""Seconds until a line is tried again whose attempt ended in a way that nobody had thought of."""


class Job:
    """A batch that has not ended.

    Attributes:
        is_cancelled: its client does not want it any more.
        lines: its lines, while they are being answered.
    """

    def __init__(self, batch: Batch) -> None:
        self.id = batch.id
        self.owner = batch.owner
        self.is_cancelled = False
        self.lines: Lines | None = None

    def cancel(self) -> None:
        """Stop as soon as can be."""
        self.is_cancelled = True
        if self.lines is not None:
            self.lines.over.set()


class Attempt:
    """One line that is being answered.

    Attributes:
        answered: it has its result, and needs no room any more.
        keeping: the result is being written.
    """

    def __init__(self, line: BatchLine) -> None:
        self.line = line
        self.answered = False
        self.keeping = False
        self.task: asyncio.Task[float | None] | None = None

    def give_way(self) -> None:
        """End it, unless it is answered; the line comes again later."""
        if not self.answered:
            self.stop()

    def stop(self) -> None:
        """End it, unless its result is being written."""
        if self.task is not None and not self.keeping:
            self.task.cancel()


class Lines:
    """The lines of a batch while they are being answered.

    Args:
        batch: in progress.
        wake: called when a line can be handed out that could not before.

    Attributes:
        over: set when no line waits any more, or nobody wants them.
    """

    def __init__(self, batch: Batch, wake: Callable[[], None]) -> None:
        self.batch = batch
        self.over = asyncio.Event()
        self._wake = wake
        self._left = batch.counts.waiting
        self._behind = 0
        self._all_read = False
        self._again: list[tuple[int, BatchLine]] = []
        self._running: set[Attempt] = set()
        self._tries: Counter[int] = Counter()
        self._look()

    @property
    def ready(self) -> bool:
        """Whether there may be a line to hand out."""
        return not self.over.is_set() and (bool(self._again) or not self._all_read)

    async def next(self, batches: Batches) -> BatchLine | None:
        """The next line, if there is one that nobody works on. Raises StoreError."""
        if self._again:
            return heapq.heappop(self._again)[1]
        line = await batches.next_line(self.batch.id, self._behind)
        if line is None:
            self._all_read = True
        else:
            self._behind = line.number
        return line

    def sooner(self, line: BatchLine) -> BatchLine:
        """This line, or one before it that came back since it was handed out."""
        return heapq.heappushpop(self._again, (line.number, line))[1]

    def tries_of(self, line: BatchLine) -> int:
        """How often it has failed."""
        return self._tries[line.number]

    def tried(self, line: BatchLine) -> None:
        """It has failed once more."""
        self._tries[line.number] += 1

    def begin(
        self, line: BatchLine, work: Callable[[Attempt], Coroutine[Any, Any, float | None]]
    ) -> Attempt:
        """Have a line answered.

        Args:
            work: does it. Returns None when the result is kept, otherwise the seconds after which
                the line can be tried again.
        """
        attempt = Attempt(line)
        self._running.add(attempt)
        attempt.task = asyncio.create_task(work(attempt))
        attempt.task.add_done_callback(lambda task: self._ended(attempt, task))
        return attempt

    def put_back(self, line: BatchLine) -> None:
        """It was handed out, and nobody works on it."""
        heapq.heappush(self._again, (line.number, line))
        self._wake()

    async def stop(self) -> None:
        """End what is being answered; what is being kept is kept."""
        self.over.set()
        for attempt in self._running:
            attempt.stop()
        while tasks := [each.task for each in self._running if each.task is not None]:
            await asyncio.wait(tasks)

    def _ended(self, attempt: Attempt, task: asyncio.Task[float | None]) -> None:
        self._running.discard(attempt)
        if task.cancelled():
            after: float | None = 0.0
        elif (error := task.exception()) is not None:
            _log.error("batch %s, line %d", self.batch.id, attempt.line.number, exc_info=error)
            after = _AFTER_A_MISTAKE
        else:
            after = task.result()
        if after is None:
            self._left -= 1
            self._look()
        elif after:
            asyncio.get_running_loop().call_later(after, self.put_back, attempt.line)
        else:
            self.put_back(attempt.line)

    def _look(self) -> None:
        if self._left <= 0:
            self.over.set()


class Rota:
    """Whose turn it is: owners take turns, and so do the batches of each."""

    def __init__(self) -> None:
        self._owners: dict[str, deque[Lines]] = {}
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """There may be a line now."""
        self._changed.set()

    def add(self, lines: Lines) -> None:
        """From now on these have their turns."""
        self._owners.setdefault(lines.batch.owner, deque()).append(lines)
        self.wake()

    def remove(self, lines: Lines) -> None:
        """No longer."""
        mine = self._owners[lines.batch.owner]
        mine.remove(lines)
        if not mine:
            del self._owners[lines.batch.owner]

    async def turn(self) -> Lines:
        """The next that may have a line to hand out; waits for one."""
        while True:
            found = self._turn()
            if found is not None:
                return found
            self._changed.clear()
            await self._changed.wait()

    def _turn(self) -> Lines | None:
        for owner, mine in self._owners.items():
            found = next((lines for lines in mine if lines.ready), None)
            if found is not None:
                mine.remove(found)
                mine.append(found)
                self._owners[owner] = self._owners.pop(owner)
                return found
        return None
