"""The store: runs and their events in a database, as `core.contracts.Store` promises.

`StoredRuns` it promises, too (`completions.py`); conversations are beside it (`conversations.py`).

Writes go through one thread that shares commits (`writer.py`), reads through a few others
(`reader.py`). What is kept, and what it survives, is in docs/decisions/0005-store.md.

This file does not know threads, file modes, or how an answer is made.
"""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy.dialects import sqlite

from ouzel.core.contracts_state import Order, PageOf
from ouzel.core.errors import NotFound, StoreError
from ouzel.core.events import Event, Failure, ItemDone, RunFinished
from ouzel.core.items import Item
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.store import codec
from ouzel.store.batches_sql import BatchStatements
from ouzel.store.codec import DamagedRecord
from ouzel.store.completions import Completions
from ouzel.store.conversations import SqlConversations, item_steps
from ouzel.store.conversations_sql import ConversationStatements
from ouzel.store.files_names import storable
from ouzel.store.files_sql import FileStatements
from ouzel.store.migrate import migrate
from ouzel.store.reader import Readers
from ouzel.store.runs_reading import EventRow, RunReading, joined, not_found
from ouzel.store.runs_sql import RunStatements
from ouzel.store.schema import LIVE, Statement
from ouzel.store.sqlite import SqliteFile
from ouzel.store.writer import Row, Write, Writer

logger = logging.getLogger(__name__)

DAMAGED = Failure("server_error", "What was kept of this response is damaged.")
"""Why a run has failed whose events cannot be read."""

T = TypeVar("T")


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
        self._sql = RunStatements(dialect)
        self._reading = RunReading(self._sql)
        self._conversations_sql = ConversationStatements(dialect)
        self.files_sql = FileStatements(dialect)
        self.batches_sql = BatchStatements(dialect)
        orders = (self._sql, self._conversations_sql, self.files_sql, self.batches_sql)
        self._writer = Writer(file, [each for sql in orders for each in sql.write_order])
        self._readers = Readers(file)
        self._completions = Completions(self._sql, self._writer, self._readers)
        self._conversations = SqlConversations(self._conversations_sql, self._writer, self._readers)

    @property
    def writer(self) -> Writer:
        """The thread that writes; `SqlFiles` shares it, and with it the commits."""
        return self._writer

    @property
    def readers(self) -> Readers:
        """The threads that read; `SqlFiles` shares them."""
        return self._readers

    @property
    def conversations(self) -> SqlConversations:
        """The conversations of this store; they need no closing of their own."""
        return self._conversations

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
            choice_of=run.request.choice_of,
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

        A run of a conversation that ended well is added to it in the same stroke. Items whose ids
        are there already are left as they are: clients give back what they got. A conversation
        that was deleted meanwhile, or is another owner's, takes nothing, and the run ends all the
        same: its answer is made, and can be fetched.

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
        conversation_id = run.request.conversation_id
        if conversation_id is not None and run.status in ("completed", "incomplete"):
            items = (*run.request.input, *run.output)
            added, more = item_steps(
                self._conversations_sql.insert_if_new, conversation_id, run.owner, items
            )
            steps += added
            size += more
        await self._write(steps, size, f"keep the end of run {run.id}")

    async def load(self, run_id: str, owner: str) -> Run:
        """The run as last kept. Raises NotFound, StoreError."""
        return await self._read(run_id, lambda each: self._reading.run(each, run_id, owner))

    async def events(
        self, run_id: str, owner: str, start: int = 0, limit: int | None = None
    ) -> list[Event]:
        """The run's events from index `start` (0 or more) on, `limit` at most.

        Raises NotFound, StoreError.
        """
        end = None if limit is None else start + limit

        def read(connection: sqlite3.Connection) -> list[Event]:
            rows = self._reading.event_rows(connection, run_id, owner, start, end)
            return joined(rows, start)[:limit]

        return await self._read(run_id, read)

    async def delete(self, run_id: str, owner: str) -> None:
        """Forget the run, its events, and its further choices. Raises NotFound, StoreError.

        Runs that continue it stay, and lose their history: `history` raises NotFound for them.
        """
        # Looked up first, so that a wrong id costs the writer nothing.
        await self._read(run_id, lambda each: self._reading.is_there(each, run_id, owner))
        steps = [
            (statement, statement.row(run=run_id, by=owner))
            for statement in (self._sql.delete_choices, self._sql.delete_run)
        ]
        await self._writer.write(Write(steps, f"delete run {run_id}", not_found(run_id), 0))

    async def history(self, run_id: str, owner: str) -> tuple[Item, ...]:
        """Input and output items of the run and all that it continues, oldest first.

        Raises NotFound if one of them is not there for this owner; StoreError.
        """
        return await self._read(run_id, lambda each: self._reading.history(each, run_id, owner))

    async def interrupted(self) -> AsyncGenerator[tuple[Run, list[Event]], None]:
        """Every owner's runs that are queued or in progress, oldest first, with their events.

        They are looked up once, at the first step, and read one by one: who ends each before the
        next holds one in memory, however many there are. One that has ended or was deleted
        meanwhile is left out. One that cannot be read is ended as failed, with a line in the log,
        and left out, too. Raises StoreError.
        """
        for run_id, owner in await self._readers.read(self._reading.live, "find interrupted runs"):
            taken = await self._take(run_id, owner)
            if taken is not None:
                yield taken

    async def page_runs(
        self,
        owner: str,
        *,
        model: str | None,
        metadata: Mapping[str, str],
        after: str | None,
        limit: int,
        order: Order,
    ) -> PageOf[Run]:
        """See `Completions.page`."""
        return await self._completions.page(
            owner, model=model, metadata=metadata, after=after, limit=limit, order=order
        )

    async def choices_of(self, run_id: str, owner: str) -> tuple[Run, ...]:
        """See `Completions.choices`."""
        return await self._completions.choices(run_id, owner)

    async def change_metadata(self, run_id: str, owner: str, metadata: Mapping[str, str]) -> Run:
        """See `Completions.change_metadata`."""
        return await self._completions.change_metadata(run_id, owner, metadata)

    async def close(self) -> None:
        """Write what was handed in, then close the file. May be called twice.

        Every other call raises StoreError from now on.
        """
        await self._writer.close()
        await self._readers.close()

    async def _take(self, run_id: str, owner: str) -> tuple[Run, list[Event]] | None:
        """What a dead process left of a run; None if there is nothing to go on with."""

        def read(connection: sqlite3.Connection) -> tuple[Run, list[EventRow]]:
            run = self._reading.run(connection, run_id, owner)
            return run, self._reading.event_rows(connection, run_id, owner)

        rows: list[EventRow] = []
        try:
            run, rows = await self._read(run_id, read)
            return (run, joined(rows)) if run.status in LIVE else None
        except NotFound:
            return None
        except DamagedRecord as error:
            logger.warning("interrupted run %s: %s", run_id, error)
        if rows:
            # Its events say nothing any more; new ones come after them.
            await self._fail(run, [], DAMAGED, rows[-1][0] + rows[-1][1])
        else:
            # It cannot be read, so it cannot be rewritten; only its mark is taken away, or one
            # bad record would be met again at every start.
            row = self._sql.mark_run.row(new_status="failed", run=run_id, by=owner)
            await self._write([(self._sql.mark_run, row)], 0, f"mark run {run_id}")
        return None

    async def _fail(
        self, run: Run, events: Sequence[Event], failure: Failure, position: int | None = None
    ) -> None:
        """End a run that nobody works on, at a position, or after these events."""
        failed = dataclasses.replace(
            run,
            status="failed",
            output=tuple(event.item for event in events if isinstance(event, ItemDone)),
            failure=failure,
            finished_at=time.time(),
        )
        end = RunFinished("failed", run.usage or Usage(), failed.finished_at or 0.0, failure)
        await self.finish(failed, len(events) if position is None else position, [end])

    async def _read(self, run_id: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if not storable(run_id):
            raise not_found(run_id)
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
