"""Where a stored run is found: under way, in the store, or ended and waiting for room there.

What a request needs before there is a run is `preparing`'s business, and how one comes to its end
is `running`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ouzel.answer import recovering
from ouzel.answer.failing import UNSTORED
from ouzel.answer.running import Answer
from ouzel.core.contracts import Store
from ouzel.core.errors import NotFound, ShuttingDown, StoreError, StoreFull
from ouzel.core.events import Event
from ouzel.core.request import Protocol
from ouzel.core.runs import Run

MOST_UNKEPT: Final = 1000
"""Ends that could not be stored and are remembered until they can."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A stored run as somebody reads it.

    Args:
        run: as it is now.
        batches: its events from the first one on.
        ended: all of them are there.
    """

    run: Run
    batches: AsyncGenerator[Sequence[Event], None]
    ended: bool


class Finding:
    """Finds runs.

    Args:
        store: has them.
        stopping: set when the server stops: what runs in the background is then left as it is.

    Attributes:
        live: runs under way, by id, stored or not.
    """

    def __init__(self, store: Store, stopping: asyncio.Event) -> None:
        self._store = store
        self._stopping = stopping
        self.live: dict[str, Answer] = {}
        self._unkept: dict[str, Answer] = {}

    def owned(self, run_id: str, owner: str) -> Answer | None:
        """A run of this owner's that is stored and under way."""
        answer = self.live.get(run_id)
        if answer is None or answer.run.owner != owner:
            return None
        return answer if answer.run.request.store and not answer.forgotten else None

    def is_running(self, run_id: str, owner: str) -> bool:
        """Whether a run of this owner's is stored and has not ended."""
        answer = self.owned(run_id, owner)
        return answer is not None and not answer.ended

    def left_off(self, run: Run) -> bool:
        """Whether the next process goes on with it."""
        under_way = run.status in ("queued", "in_progress")
        return self._stopping.is_set() and run.request.background and under_way

    async def load(self, run_id: str, owner: str, protocol: Protocol = "responses") -> Run:
        """A run as it is now. Raises NotFound, StoreError."""
        answer = self.owned(run_id, owner) or self._unkept.get(run_id)
        if answer is not None and answer.run.owner == owner:
            run = answer.run
        else:
            run = await self._store.load(run_id, owner)
            if run.finished_at is None:
                # It ended between these two looks, or its end could not be stored.
                run = await self._store.load(run_id, owner)
                if run.finished_at is None and not self.left_off(run):
                    run = replace(run, status="failed", failure=UNSTORED)
        if run.request.protocol != protocol:
            raise no_such(run_id)
        return run

    async def follow(self, run_id: str, owner: str, idle: float | None = None) -> Followed:
        """A run's events, while it is under way or after.

        Raises:
            NotFound: there is none.
            ShuttingDown: the next process goes on with it.
            StoreError: it cannot be read.
        """
        answer = self.owned(run_id, owner)
        if answer is not None and answer.run.request.protocol == "responses":
            return Followed(answer.run, answer.batches(idle), answer.ended)
        run = await self.load(run_id, owner)
        unkept = self._unkept.get(run_id)
        if unkept is not None:
            return Followed(run, unkept.batches(), True)
        if self.left_off(run):
            raise ShuttingDown("The server stopped; read on when it runs again.")
        events = await self._store.events(run_id, owner)
        return Followed(run, recovering.told(run, events), True)

    def remember(self, answer: Answer) -> None:
        """Its end could not be stored."""
        if len(self._unkept) < MOST_UNKEPT:
            self._unkept[answer.run.id] = answer

    async def forget(self, run_id: str, owner: str) -> None:
        """Take it out of the store. Raises NotFound, StoreError."""
        await self._store.delete(run_id, owner)
        self._unkept.pop(run_id, None)

    async def keep_ends(self) -> int:
        """Store ends that could not be stored when they came; how many it was now."""
        kept = 0
        for run_id, answer in list(self._unkept.items()):
            assert answer.unkept is not None  # noqa: S101  # that is why it is here
            try:
                await self._store.finish(answer.run, *answer.unkept)
            except StoreFull:
                break  # there is none for the others either
            except StoreError:
                if not await self._is_gone(answer.run):
                    continue
            else:
                kept += 1
            self._unkept.pop(run_id, None)
        return kept

    async def _is_gone(self, run: Run) -> bool:
        try:
            await self._store.load(run.id, run.owner)
        except NotFound:
            return True
        except StoreError:
            pass
        return False


def no_such(run_id: str) -> NotFound:
    """There is no run with this id, for who asks."""
    return NotFound(f"No object with id '{run_id}' found.", code="not_found")
