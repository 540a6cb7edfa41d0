"""The store: runs and their events in a database, as `core.contracts.Store` promises.

Writes go through one thread that shares commits (`writer.py`), reads through a few others
(`reader.py`). What is kept, and what it survives, is in docs/decisions/0005-store.md.

This file does not know threads, file modes, or how an answer is made.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy.dialects import sqlite

from ouzel.core.errors import NotFound, StoreError
from ouzel.core.events import Event, Failure, ItemDone, RunFinished
from ouzel.core.items import Item
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.store import codec
from ouzel.store.codec import DamagedRecord
from ouzel.store.files_sql import FileStatements
from ouzel.store.migrate import migrate
from ouzel.store.reader import Readers
from ouzel.store.schema import MAX_CHAIN, Statement, Statements
from ouzel.store.sqlite import SqliteFile
from ouzel.store.writer import Row, Write, Writer

logger = logging.getLogger(__name__)

FAILED_AT_ONCE = 100
"""Interrupted runs that are in memory at a time while start-up ends them."""

T = TypeVar("T")

EventRow = tuple[int, int, bytes]
"""Position, count and body of one row of events."""


def open_store(path: Path) -> SqlStore:
    """Open a store, making or migrating its file first. Blocks for up to a second or so.

    Args:
        path: the SQLite file. Missing folders are made with mode 0700, the file has 0600. Beside
            it live `-wal`, `-shm` and `.lock`.

    Raises:
        StoreError: the file cannot be used; the message names it and says why.
    """
    file = SqliteFile(path)
    migrate(file)
    return SqlStore(file)


class SqlStore:
    """Runs and events in SQLite. Serves one event loop at a time.

    Args:
        file: a database that `migrate` has made ready.
    """

    def __init__(self, file: SqliteFile) -> None:
        dialect = sqlite.dialect(paramstyle="qmark")
        self._sql = Statements(dialect)
        self.files_sql = FileStatements(dialect)
        self._writer = Writer(file, (*self._sql.write_order, *self.files_sql.write_order))
        self._readers = Readers(file)

    @property
    def writer(self) -> Writer:
        """The thread that writes; `SqlFiles` shares it, and with it the commits."""
        return self._writer

    @property
    def readers(self) -> Readers:
        """The threads that read; `SqlFiles` shares them."""
        return self._readers

    async def begin(self, run: Run) -> None:
        """Keep a new run. Raises StoreError, also if there is one with this id."""
        body = codec.encode_run(run)
        row = self._sql.insert_run.row(
            id=run.id,
            owner=run.owner,
            created_at=run.created_at,
            status=run.status,
            model=run.model,
            protocol=run.request.protocol,
            previous_id=run.request.previous_id,
            body=body,
        )
        await self._write([(self._sql.insert_run, row)], len(body), f"keep run {run.id}")

    async def append(self, run_id: str, position: int, events: Sequence[Event]) -> None:
        """Append events from index `position` on, as one row.

        Raises StoreError, also if the run is gone or the position taken. No events: nothing is
        written.
        """
        if events:
            step, size = self._event_step(run_id, position, events)
            await self._write([step], size, f"append events to run {run_id}")

    async def finish(self, run: Run, position: int, events: Sequence[Event]) -> None:
        """Append the last events and keep the run's final form, both or neither.

        Raises StoreError, also if the run was deleted or the position is taken.
        """
        body = codec.encode_run(run)
        row = self._sql.update_run.row(
            new_status=run.status, new_body=body, run=run.id, by=run.owner
        )
        steps: list[tuple[Statement, Row]] = [(self._sql.update_run, row)]
        size = len(body)
        if events:
            step, more = self._event_step(run.id, position, events)
            steps.append(step)
            size += more
        await self._write(steps, size, f"keep the end of run {run.id}")

    async def load(self, run_id: str, owner: str) -> Run:
        """The run as last kept. Raises NotFound, StoreError."""

        def read(connection: sqlite3.Connection) -> Run:
            return self._load(connection, run_id, owner)

        return await self._read(run_id, read)

    async def events(self, run_id: str, owner: str, start: int = 0) -> list[Event]:
        """The run's events from index `start` (0 or more) on. Raises NotFound, StoreError."""

        def read(connection: sqlite3.Connection) -> list[Event]:
            return _joined(self._event_rows(connection, run_id, owner, start), start)

        return await self._read(run_id, read)

    async def delete(self, run_id: str, owner: str) -> None:
        """Forget the run and its events. Raises NotFound, StoreError.

        Runs that continue it stay, and lose their history: `history` raises NotFound for them.
        """

        def find(connection: sqlite3.Connection) -> None:
            row = self._sql.select_run.row(run=run_id, by=owner)
            if connection.execute(self._sql.select_run.sql, row).fetchone() is None:
                raise _not_found(run_id)

        # Looked up first, so that a wrong id costs the writer nothing.
        await self._read(run_id, find)
        row = self._sql.delete_run.row(run=run_id, by=owner)
        write = Write([(self._sql.delete_run, row)], f"delete run {run_id}", _not_found(run_id), 0)
        await self._writer.write(write)

    async def history(self, run_id: str, owner: str) -> tuple[Item, ...]:
        """Input and output items of the run and all that it continues, oldest first.

        Raises NotFound if one of them is not there for this owner; StoreError.
        """

        def read(connection: sqlite3.Connection) -> tuple[Item, ...]:
            row = self._sql.select_chain.row(run=run_id, by=owner)
            chain = connection.execute(self._sql.select_chain.sql, row).fetchall()
            if not chain:
                raise _not_found(run_id)
            if len(chain) > MAX_CHAIN:
                raise StoreError(f"Run {run_id} continues more than {MAX_CHAIN} others.")
            before_oldest: str | None = chain[0][0]
            if before_oldest is not None:
                raise _not_found(before_oldest)
            items: list[Item] = []
            for _, body in chain:
                run = codec.decode_run(body)
                items.extend(run.request.input)
                items.extend(run.output)
            return tuple(items)

        return await self._read(run_id, read)

    async def interrupted(self) -> list[Run]:
        """Every owner's runs that are queued or in progress, oldest first.

        At start-up these are the runs that a process left when it died. Damaged records are left
        out, with a line in the log; `fail_interrupted` ends them too. Raises StoreError.
        """

        def read(connection: sqlite3.Connection) -> list[Run]:
            found: list[Run] = []
            for run_id, owner in self._live(connection):
                try:
                    found.append(self._load(connection, run_id, owner))
                except DamagedRecord as error:
                    logger.warning("interrupted run %s: %s", run_id, error)
            return found

        return await self._readers.read(read, "find interrupted runs")

    async def fail_interrupted(self, failure: Failure) -> int:
        """End every run that is queued or in progress as failed. For start-up, before new runs.

        A run keeps the items that were finished, and its events end with a RunFinished.

        Args:
            failure: what clients of these runs are told.

        Returns how many there were. Raises StoreError.
        """
        live = await self._readers.read(self._live, "find interrupted runs")
        for at in range(0, len(live), FAILED_AT_ONCE):
            # Handed in together, they share a commit.
            await asyncio.gather(
                *(self._fail(*each, failure) for each in live[at : at + FAILED_AT_ONCE])
            )
        return len(live)

    async def close(self) -> None:
        """Write what was handed in, then close the file. May be called twice.

        Every other call raises StoreError from now on.
        """
        await self._writer.close()
        await self._readers.close()

    async def _fail(self, run_id: str, owner: str, failure: Failure) -> None:
        """End one run that nobody works on."""

        def read(connection: sqlite3.Connection) -> tuple[Run, list[EventRow]]:
            run = self._load(connection, run_id, owner)
            return run, self._event_rows(connection, run_id, owner, 0)

        try:
            run, rows = await self._read(run_id, read)
        except DamagedRecord as error:
            # It cannot be read, so it cannot be rewritten; only its mark is taken away, or one
            # bad record would be met again at every start.
            logger.warning("interrupted run %s: %s", run_id, error)
            row = self._sql.mark_run.row(new_status="failed", run=run_id, by=owner)
            await self._write([(self._sql.mark_run, row)], 0, f"mark run {run_id}")
            return
        try:
            events = _joined(rows, 0)
        except DamagedRecord as error:
            logger.warning("events of interrupted run %s: %s", run_id, error)
            events = []
        failed = dataclasses.replace(
            run,
            status="failed",
            output=tuple(event.item for event in events if isinstance(event, ItemDone)),
            failure=failure,
            finished_at=time.time(),
        )
        end = RunFinished("failed", run.usage or Usage(), failed.finished_at or 0.0, failure)
        position = rows[-1][0] + rows[-1][1] if rows else 0
        await self.finish(failed, position, [end])

    async def _read(self, run_id: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            run_id.encode()
        except UnicodeEncodeError:
            # Half a surrogate pair in a client's path: no run can have such an id.
            raise _not_found(run_id) from None
        return await self._readers.read(work, f"read run {run_id}")

    async def _write(self, steps: Sequence[tuple[Statement, Row]], size: int, doing: str) -> None:
        gone = StoreError(f"The store could not {doing}: the run was deleted or never begun.")
        await self._writer.write(Write(steps, doing, gone, size))

    def _event_step(
        self, run_id: str, position: int, events: Sequence[Event]
    ) -> tuple[tuple[Statement, Row], int]:
        """The statement with its row, and the row's bytes."""
        body = codec.encode_events(events)
        row = self._sql.insert_events.row(
            run_id=run_id, position=position, count=len(events), body=body
        )
        return (self._sql.insert_events, row), len(body)

    def _load(self, connection: sqlite3.Connection, run_id: str, owner: str) -> Run:
        row = self._sql.select_run.row(run=run_id, by=owner)
        found = connection.execute(self._sql.select_run.sql, row).fetchone()
        if found is None:
            raise _not_found(run_id)
        return codec.decode_run(found[0])

    def _event_rows(
        self, connection: sqlite3.Connection, run_id: str, owner: str, start: int
    ) -> list[EventRow]:
        row = self._sql.select_events.row(run=run_id, by=owner, start=start)
        rows = connection.execute(self._sql.select_events.sql, row).fetchall()
        if not rows:
            raise _not_found(run_id)
        return [] if rows[0][0] is None else rows

    def _live(self, connection: sqlite3.Connection) -> list[tuple[str, str]]:
        """Id and owner of the runs that are queued or in progress."""
        return connection.execute(self._sql.select_live.sql).fetchall()


def _joined(rows: Sequence[EventRow], start: int) -> list[Event]:
    """The events of consecutive rows, from index `start` on. Raises DamagedRecord on a gap."""
    events: list[Event] = []
    first = rows[0][0] if rows else start
    expected = min(first, start)
    for position, count, body in rows:
        batch = codec.decode_events(body)
        if position != expected or len(batch) != count:
            raise DamagedRecord(f"Stored events are missing near index {expected}.")
        events.extend(batch)
        expected += count
    return events[start - first :]


def _not_found(run_id: str) -> NotFound:
    """The same for a run that does not exist and for another owner's."""
    return NotFound(f"Response with id '{run_id}' not found.", code="not_found")
