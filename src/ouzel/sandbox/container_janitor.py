"""Ends what is over: containers that nobody uses any more, and what is left of dead interpreters.

A task of its own looks every few seconds. What a client asks for, this file does not know.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ouzel.core.errors import OuzelError
from ouzel.sandbox.container_record import Record, not_found, to_the_end
from ouzel.sandbox.container_settings import ContainerSettings
from ouzel.sandbox.pool import Pool
from ouzel.sandbox.registry import Registry

logger = logging.getLogger(__name__)

DAY = 24 * 3600.0


class Janitor:
    """Expires and removes containers.

    Args:
        records: all containers by id; the ones that are removed are taken out of it.
    """

    def __init__(
        self,
        registry: Registry,
        pool: Pool,
        records: dict[str, Record],
        settings: ContainerSettings,
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._records = records
        self._settings = settings
        self._rounds: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.Event] = {}

    def start(self) -> None:
        """Begin to look."""
        self._rounds = asyncio.create_task(self._look_again_and_again())

    async def close(self) -> None:
        """Stop looking; what was begun is brought to its end."""
        if self._rounds is not None:
            self._rounds.cancel()
            with suppress(asyncio.CancelledError):
                await self._rounds
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def remove(self, record: Record) -> None:
        """Remove a container for good; code in it is stopped. Raises NotFound, StoreError."""
        if self._records.pop(record.info.id, None) is None:
            raise not_found(record.info.id)
        self._leaving[record.info.id] = asyncio.Event()
        await self._owned(self._remove(record))

    async def removed(self, container_id: str) -> None:
        """Wait until nothing is left of the one that last had this id: what is removed goes by its
        id, and would take a new one's with it."""
        while (left := self._leaving.get(container_id)) is not None:
            await left.wait()

    async def look(self) -> None:
        """One round. What cannot be done now is tried again in the next one."""
        now = time.time()
        for record in list(self._records.values()):
            try:
                if record.gone:
                    if now - record.info.last_active_at > self._settings.keep_expired_days * DAY:
                        await self.remove(record)
                    elif record.meta.place:
                        await self._owned(self._expire(record))
                elif record.overdue(now):
                    await self._owned(self._expire(record))
                elif record.unsaved:
                    async with record.disk:
                        await record.save(self._registry)
            except OuzelError as error:
                logger.warning("Container %s: %s", record.info.id, error)
        self._pool.reap()

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("Looking after the containers failed; it goes on.")
            await asyncio.sleep(self._settings.tick)

    async def _owned(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this to its end, also if the caller does not wait for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _remove(self, record: Record) -> None:
        record.gone = True
        try:
            await self._pool.drop(record.info.id)
            async with record.disk:
                await to_the_end(self._registry.forget, record.meta)
        finally:
            self._leaving.pop(record.info.id).set()

    async def _expire(self, record: Record) -> None:
        record.gone = True
        await self._pool.drop(record.info.id)
        async with record.disk:
            info = replace(record.info, status="expired")
            old = [record.meta.place, record.meta.leaving]
            expired = replace(record.meta, info=info, place="", leaving="", puts=frozenset())
            await to_the_end(self._registry.save, expired)
            record.meta = expired
            for place in old:
                await to_the_end(self._registry.remove_place, place)
