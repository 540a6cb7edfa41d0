"""Reads runs and their events over a connection that somebody else holds.

This file does not know threads, or what anybody reads them for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ouzel.core.errors import NotFound, StoreError
from ouzel.core.events import Event
from ouzel.core.items import Item
from ouzel.core.runs import Run
from ouzel.store import codec
from ouzel.store.codec import DamagedRecord
from ouzel.store.runs_sql import MAX_CHAIN, RunStatements

EventRow = tuple[int, int, bytes]
"""Position, count and body of one row of events."""


class RunReading:
    """Every method may raise sqlite3.Error, and DamagedRecord where it decodes.

    Args:
        sql: the statements.
    """

    def __init__(self, sql: RunStatements) -> None:
        self._sql = sql

    def is_there(self, connection: sqlite3.Connection, run_id: str, owner: str) -> None:
        """Raises NotFound unless it is."""
        self._body(connection, run_id, owner)

    def run(self, connection: sqlite3.Connection, run_id: str, owner: str) -> Run:
        """The run as last kept. Raises NotFound."""
        return codec.decode_run(self._body(connection, run_id, owner))

    def live(self, connection: sqlite3.Connection) -> list[tuple[str, str]]:
        """Id and owner of the runs that are queued or in progress, oldest first."""
        return connection.execute(self._sql.select_live.sql).fetchall()

    def event_rows(
        self,
        connection: sqlite3.Connection,
        run_id: str,
        owner: str,
        start: int = 0,
        end: int | None = None,
    ) -> list[EventRow]:
        """The rows that hold the events from `start` to `end`. Raises NotFound."""
        row = self._sql.select_events.row(run=run_id, by=owner, start=start)
        rows: list[EventRow] = []
        for found in connection.execute(self._sql.select_events.sql, row):
            if found[0] is None:
                return []
            rows.append(found)
            if end is not None and found[0] + found[1] >= end:
                break
        if not rows:
            raise not_found(run_id)
        return rows

    def history(self, connection: sqlite3.Connection, run_id: str, owner: str) -> tuple[Item, ...]:
        """Input and output items of the run and all that it continues, oldest first.

        Raises NotFound if one of them is not there for this owner, StoreError if they go round.
        """
        row = self._sql.select_chain.row(run=run_id, by=owner)
        chain = connection.execute(self._sql.select_chain.sql, row).fetchall()
        if not chain:
            raise not_found(run_id)
        if len(chain) > MAX_CHAIN:
            raise StoreError(f"Run {run_id} continues more than {MAX_CHAIN} others.")
        before_oldest: str | None = chain[0][0]
        if before_oldest is not None:
            raise not_found(before_oldest)
        items: list[Item] = []
        for _, body in chain:
            items.extend(codec.decode_turn(body))
        return tuple(items)

    def _body(self, connection: sqlite3.Connection, run_id: str, owner: str) -> bytes:
        row = self._sql.select_run.row(run=run_id, by=owner)
        found = connection.execute(self._sql.select_run.sql, row).fetchone()
        if found is None:
            raise not_found(run_id)
        body: bytes = found[0]
        return body


def joined(rows: Sequence[EventRow], start: int = 0) -> list[Event]:
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


def not_found(run_id: str) -> NotFound:
    """The same for a run that does not exist and for another owner's."""
    return NotFound(f"Response with id '{run_id}' not found.", code="not_found")
