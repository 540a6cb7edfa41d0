"""One thread that writes: everything that waits goes into one transaction.

Committing costs about as much as ten inserts, and a commit holds for all that is in it. So the
busier the store, the more writes share a commit (group commit). The event loop is woken once for
each batch.

This file does not know tables or core values: it is handed statements with their rows.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ouzel.core.errors import OuzelError, StoreError
from ouzel.store.schema import Statement
from ouzel.store.sqlite import SqliteFile

logger = logging.getLogger(__name__)

WAITING_BYTES = 16 * 2**20
"""Rows that may wait for the disk; who comes later waits before its rows are queued."""

ROW_BYTES = 1024
"""Counted for each write on top of its own size, for the objects around it."""

Row = tuple[object, ...]


@dataclass(slots=True, eq=False)
class Write:
    """Rows that are kept together or not at all.

    Args:
        steps: statements with a row each; every row must change exactly one row of its table,
            unless its statement is not `exact`.
        doing: what it is for, after "The store could not".
        unmet: raised to the caller if a row changed nothing.
        size: bytes in the rows, about.
    """

    steps: Sequence[tuple[Statement, Row]]
    doing: str
    unmet: OuzelError
    size: int


class Writer:
    """Owns the writing connection and its thread. Serves one event loop at a time.

    Args:
        file: a database that is ready for use.
        order: the statements that may come, in the order in which a batch runs them.
        waiting_bytes: bound of the queue.

    Raises StoreError if the file cannot be opened.
    """

    def __init__(
        self, file: SqliteFile, order: Sequence[Statement], *, waiting_bytes: int = WAITING_BYTES
    ) -> None:
        self._file = file
        self._order = order
        self._limit = waiting_bytes
        self._held = 0
        self._waiting: deque[_Ticket] = deque()
        self._queue: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._closing = False
        try:
            self._connection = file.connect()
        except sqlite3.Error as error:
            raise file.explain(error, "open its database") from error
        # A daemon: a process that forgets to close the store must still be able to end.
        self._thread = threading.Thread(target=self._work, name="ouzel-store-write", daemon=True)
        self._thread.start()

    async def write(self, write: Write) -> None:
        """Keep the rows; they are on file when this returns.

        Cancelling stops the waiting. A write that is queued already is still done; one that waits
        for room in the queue is not.

        Raises:
            StoreError: nothing of this write was kept; other writes are not touched by it.
            OuzelError: the write's own `unmet`.
        """
        if self._closing:
            raise StoreError("The store is closed.")
        size = write.size + ROW_BYTES * len(write.steps)
        ticket = _Ticket(write, size, asyncio.get_running_loop().create_future())
        if self._waiting or not self._fits(size):
            self._waiting.append(ticket)
        else:
            self._admit(ticket)
        await ticket.future

    async def close(self) -> None:
        """Write all that was handed in, then let the file go. May be called twice."""
        if not self._closing:
            self._closing = True
            self._end_if_drained()
        await asyncio.to_thread(self._thread.join)

    def _fits(self, size: int) -> bool:
        # A write that is larger than the whole queue goes alone.
        return self._held == 0 or self._held + size <= self._limit

    def _admit(self, ticket: _Ticket) -> None:
        self._held += ticket.size
        self._queue.put(ticket)

    def _leave(self, size: int) -> None:
        """Give room back, first come first served."""
        self._held -= size
        while self._waiting:
            ticket = self._waiting[0]
            if not ticket.future.done():
                if not self._fits(ticket.size):
                    break
                self._admit(ticket)
            self._waiting.popleft()
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._closing and not self._waiting:
            # The thread stops at the first of these; a later one is never read.
            self._queue.put(None)

    def _work(self) -> None:
        """The thread."""
        going = True
        while going:
            batch, going = self._take()
            if not batch:
                continue
            writes = [ticket.write for ticket in batch]
            try:
                outcomes = self._keep(writes)
            except Exception as error:
                # A failed rollback, or a mistake of ours: whoever waits must be told.
                outcomes = [self._file.explain(error, write.doing) for write in writes]
            # A line that cannot be written (the log may lie on the disk that is full) must not end
            # the thread: everybody would wait for ever.
            with suppress(Exception):
                self._log(outcomes)
            self._report(batch, outcomes)
        self._connection.close()

    def _take(self) -> tuple[list[_Ticket], bool]:
        """Everything that waits, at least one entry, and whether more may come."""
        batch: list[_Ticket] = []
        ticket = self._queue.get()
        try:
            while ticket is not None:
                batch.append(ticket)
                ticket = self._queue.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _keep(self, writes: Sequence[Write]) -> list[OuzelError | None]:
        """Run the writes in one transaction; if it fails, each in its own.

        Returns what each one met, None for those that are on file.
        """
        try:
            self._file.verify()
            self._begin()
        except StoreError as error:
            return [type(error)(error.message) for _ in writes]
        except sqlite3.Error as error:
            return [self._file.explain(error, write.doing) for write in writes]
        try:
            self._run(writes)
            self._connection.execute("COMMIT")
        except Exception as error:
            # Not only driver errors: a value may not fit its place (OverflowError, ...). Whatever
            # it is, it belongs to one write, or to all of them, and each is told its own.
            self._roll_back()
            if len(writes) > 1:
                return [self._keep([write])[0] for write in writes]
            if isinstance(error, _Unmet):
                return [writes[0].unmet]
            return [self._file.explain(error, writes[0].doing)]
        return [None] * len(writes)

    def _begin(self) -> None:
        self._roll_back()
        self._connection.execute("BEGIN IMMEDIATE")

    def _roll_back(self) -> None:
        """End a transaction that failed, unless SQLite did so itself (a full disk)."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _run(self, writes: Sequence[Write]) -> None:
        rows: dict[Statement, list[Row]] = {statement: [] for statement in self._order}
        for write in writes:
            for statement, row in write.steps:
                rows[statement].append(row)
        for statement, together in rows.items():
            if together:
                done = self._connection.executemany(statement.sql, together)
                if statement.exact and done.rowcount != len(together):
                    raise _Unmet

    def _log(self, outcomes: Sequence[OuzelError | None]) -> None:
        """One line for a batch: a full disk fails many writes a second."""
        failed = [outcome for outcome in outcomes if isinstance(outcome, StoreError)]
        if failed:
            cause = failed[0].__cause__
            logger.error(
                "%d of %d writes failed, the first: %s (%r)",
                len(failed),
                len(outcomes),
                failed[0].message,
                cause,
                exc_info=None if isinstance(cause, sqlite3.Error) else cause,
            )

    def _report(self, batch: Sequence[_Ticket], outcomes: Sequence[OuzelError | None]) -> None:
        """Tell each event loop once."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Ticket, OuzelError | None]]] = {}
        for ticket, outcome in zip(batch, outcomes, strict=True):
            by_loop.setdefault(ticket.future.get_loop(), []).append((ticket, outcome))
        for loop, settled in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._settle, settled)
            except RuntimeError:
                # The loop is closed: nobody waits any more, and what was written is written.
                self._leave(sum(ticket.size for ticket, _ in settled))
                with suppress(Exception):
                    logger.warning("%d writes ended after their event loop", len(settled))

    def _settle(self, settled: Sequence[tuple[_Ticket, OuzelError | None]]) -> None:
        self._leave(sum(ticket.size for ticket, _ in settled))
        for ticket, outcome in settled:
            if ticket.future.done():
                continue
            if outcome is None:
                ticket.future.set_result(None)
            else:
                ticket.future.set_exception(outcome)


class _Unmet(Exception):
    """A row changed nothing."""


@dataclass(slots=True, eq=False)
class _Ticket:
    write: Write
    size: int
    future: asyncio.Future[None]
