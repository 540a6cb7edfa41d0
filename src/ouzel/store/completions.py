"""Stored Chat Completions: lists of them, their choices, and metadata that changes.

They are runs like all others; `sql.py` keeps them. One can be seen here once it has ended with an
answer. Where a client asked for several choices, each is a run, and the first stands for all.

This file does not know HTTP or how an answer is made.
"""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ouzel.core.contracts_state import Order, PageOf
from ouzel.core.errors import NotFound, RequestError
from ouzel.core.runs import Run
from ouzel.store import codec
from ouzel.store.codec import DamagedRecord
from ouzel.store.files_names import storable
from ouzel.store.reader import Readers
from ouzel.store.runs_sql import RunStatements
from ouzel.store.writer import Write, Writer

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""Runs that a list looks at in one go; then other readers have their turn."""

T = TypeVar("T")

_Place = tuple[float, str]
"""Where a run stands in a list: when it was made, and its id."""


class Completions:
    """Stored Chat Completions in SQLite.

    Args:
        sql: the statements, of which the writer knows those that write.
    """

    def __init__(self, sql: RunStatements, writer: Writer, readers: Readers) -> None:
        self._sql = sql
        self._writer = writer
        self._readers = readers

    async def page(
        self,
        owner: str,
        *,
        model: str | None,
        metadata: Mapping[str, str],
        after: str | None,
        limit: int,
        order: Order,
    ) -> PageOf[Run]:
        """See `core.contracts_state.StoredRuns.page_runs`. Damaged records are left out, with a
        line in the log. Raises RequestError, StoreError."""
        place = None if after is None else await self._place(after, owner)
        search = _Search(model, metadata, limit + 1)
        going = True
        while going:
            place, going = await self._look(search, owner, place, order == "desc")
        return PageOf(tuple(search.found[:limit]), len(search.found) > limit)

    async def choices(self, run_id: str, owner: str) -> tuple[Run, ...]:
        """See `core.contracts_state.StoredRuns.choices_of`. Raises NotFound, StoreError."""

        def read(connection: sqlite3.Connection) -> tuple[Run, ...]:
            first = self._first(connection, run_id, owner)
            row = self._sql.select_choices.row(run=run_id, by=owner)
            others = connection.execute(self._sql.select_choices.sql, row)
            return (first, *(codec.decode_run(body) for (body,) in others))

        return await self._read(run_id, read)

    async def change_metadata(self, run_id: str, owner: str, metadata: Mapping[str, str]) -> Run:
        """See `core.contracts_state.StoredRuns.change_metadata`. Raises NotFound, StoreError."""

        def read(connection: sqlite3.Connection) -> Run:
            return self._first(connection, run_id, owner)

        # It has ended, so nothing else writes it.
        before = await self._read(run_id, read)
        request = dataclasses.replace(before.request, metadata=dict(metadata))
        run = dataclasses.replace(before, request=request)
        body = codec.encode_run(run)
        step = self._sql.update_run
        row = step.row(new_status=run.status, new_body=body, run=run_id, by=owner)
        doing = f"change run {run_id}"
        await self._writer.write(Write([(step, row)], doing, _not_found(run_id), len(body)))
        return run

    async def _place(self, run_id: str, owner: str) -> _Place:
        """Where a page begins. Raises RequestError, StoreError."""
        unknown = RequestError(
            f"No stored chat completion has the id '{run_id}'.", param="after", code="invalid_value"
        )
        if not storable(run_id):
            raise unknown
        statement = self._sql.select_completion

        def read(connection: sqlite3.Connection) -> _Place:
            row = statement.row(run=run_id, by=owner)
            found = connection.execute(statement.sql, row).fetchone()
            if found is None:
                raise unknown
            return found[0], run_id

        return await self._readers.read(read, f"read run {run_id}")

    async def _look(
        self, search: _Search, owner: str, place: _Place | None, newest: bool
    ) -> tuple[_Place | None, bool]:
        """Look at some more runs; returns where it stopped, and whether to go on."""
        statement = self._sql.select_pages[place is not None, newest]
        asked: dict[str, object] = {"by": owner, "most": AT_ONCE}
        if place is not None:
            asked |= {"after_time": place[0], "after_id": place[1]}

        def read(connection: sqlite3.Connection) -> tuple[_Place | None, bool]:
            count, last = 0, place
            # Row by row: bodies can be large.
            for run_id, created_at, body in connection.execute(
                statement.sql, statement.row(**asked)
            ):
                count, last = count + 1, (created_at, run_id)
                try:
                    search.take(body)
                except DamagedRecord as error:
                    logger.warning("stored run %s: %s", run_id, error)
                if search.full:
                    return last, False
            return last, count == AT_ONCE

        return await self._readers.read(read, "list stored runs")

    def _first(self, connection: sqlite3.Connection, run_id: str, owner: str) -> Run:
        statement = self._sql.select_completion
        row = statement.row(run=run_id, by=owner)
        found = connection.execute(statement.sql, row).fetchone()
        if found is None:
            raise _not_found(run_id)
        return codec.decode_run(found[1])

    async def _read(self, run_id: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if not storable(run_id):
            raise _not_found(run_id)
        return await self._readers.read(work, f"read run {run_id}")


@dataclass(slots=True)
class _Search:
    """What a list is to hold, and what it holds so far."""

    model: str | None
    metadata: Mapping[str, str]
    most: int
    found: list[Run] = dataclasses.field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.found) >= self.most

    def take(self, body: bytes) -> None:
        """Take in a run, if it is one of those. Raises DamagedRecord."""
        if (self.model is not None or self.metadata) and not self._fits(codec.glance_run(body)):
            return
        self.found.append(codec.decode_run(body))

    def _fits(self, run: codec.Glance) -> bool:
        named = self.model is None or self.model in (run.model, run.request.model)
        return named and self.metadata.items() <= run.request.metadata.items()


def _not_found(run_id: str) -> NotFound:
    """The same for one that does not exist and for another owner's."""
    return NotFound(f"Chat completion with id '{run_id}' not found.", code="not_found")
