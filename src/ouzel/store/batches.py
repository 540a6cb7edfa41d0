"""Batches and their lines, as `core.contracts_batches.Batches` promises.

Rows lie in the database of the runs and share its commits. How far a live batch is, is counted
once, when it is first asked for, and from then on with every line that is written: this process is
the only one that does.

This file does not know what a line says, nor who answers it.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from ouzel.core.contracts_batches import Batch, BatchCounts, BatchLine, BatchStatus
from ouzel.core.contracts_state import PageOf
from ouzel.core.errors import Conflict, NotFound, OuzelError, StoreError
from ouzel.store.codec import DamagedRecord
from ouzel.store.files_names import storable
from ouzel.store.schema import Statement
from ouzel.store.sql import SqlStore
from ouzel.store.writer import Row, Write

_COUNTED = {"done": "completed", "failed": "failed"}


class SqlBatches:
    """Batches in a store's database; needs no closing of its own.

    Args:
        store: shares its writer, which knows these statements, and its readers.
    """

    def __init__(self, store: SqlStore) -> None:
        self._sql = store.batches_sql
        self._writer = store.writer
        self._readers = store.readers
        self._counts: dict[str, BatchCounts] = {}

    async def create(self, batch: Batch) -> None:
        """Keep a new batch. Raises StoreError."""
        body = _encode(batch)
        row = self._sql.insert_batch.row(
            id=batch.id,
            owner=batch.owner,
            created_at=batch.created_at,
            status=batch.status,
            body=body,
        )
        await self._write([(self._sql.insert_batch, row)], len(body), f"keep batch {batch.id}")
        self._counts[batch.id] = BatchCounts()

    async def get(self, batch_id: str, owner: str) -> Batch:
        """The batch. Raises NotFound, StoreError."""
        if not storable(batch_id):
            raise _not_found(batch_id)
        rows = await self._rows(
            self._sql.select_batch, f"read batch {batch_id}", batch=batch_id, by=owner
        )
        if not rows:
            raise _not_found(batch_id)
        return await self._counted(_decode(rows[0][0]))

    async def page(self, owner: str, *, after: str | None, limit: int) -> PageOf[Batch]:
        """The owner's batches, newest first. Raises NotFound, with `param` `after`; StoreError."""
        asked: dict[str, Any] = {"by": owner, "most": limit + 1}
        if after is not None:
            try:
                before = await self.get(after, owner)
            except NotFound as error:
                error.param = "after"
                raise
            asked |= {"after_time": before.created_at, "after_id": before.id}
        statement = self._sql.select_pages[after is not None]
        rows = await self._rows(statement, "list batches", **asked)
        found = [await self._counted(_decode(body)) for (body,) in rows[:limit]]
        return PageOf(tuple(found), len(rows) > limit)

    async def live(self) -> list[Batch]:
        """Every owner's batches that have not ended, oldest first. Raises StoreError."""
        rows = await self._rows(self._sql.select_live, "find batches")
        return [await self._counted(_decode(body)) for (body,) in rows]

    async def change(self, batch: Batch, was: BatchStatus) -> None:
        """Keep the batch as it is now. Raises Conflict if it is not `was` any more; StoreError."""
        body = _encode(batch)
        step = self._sql.update_batch
        row = step.row(
            new_status=batch.status, new_body=body, batch=batch.id, by=batch.owner, was=was
        )
        changed = Conflict(f"Batch '{batch.id}' is not {was} any more.", code="batch_changed")
        await self._write([(step, row)], len(body), f"change batch {batch.id}", changed)
        if batch.ended_at is not None:
            self._counts.pop(batch.id, None)

    async def last_line(self, batch_id: str) -> int:
        """The highest number of a line that is kept; 0 for none. Raises StoreError."""
        ((last,),) = await self._rows(
            self._sql.select_last, f"read batch {batch_id}", batch=batch_id
        )
        return last or 0

    async def add_lines(self, batch_id: str, lines: Sequence[BatchLine]) -> None:
        """Keep lines, all or none. Raises StoreError, also if one of them is there already."""
        counts = await self._counts_of(batch_id)
        step = self._sql.insert_line
        steps = [
            (
                step,
                step.row(
                    batch_id=batch_id,
                    number=line.number,
                    status=line.status,
                    request=line.request,
                    result=line.result,
                ),
            )
            for line in lines
        ]
        size = sum(len(line.request) + len(line.result or b"") for line in lines)
        await self._write(steps, size, f"keep lines of batch {batch_id}")
        counts = self._counts.get(batch_id, counts)
        self._counts[batch_id] = BatchCounts(
            counts.total + len(lines),
            counts.completed + sum(line.status == "done" for line in lines),
            counts.failed + sum(line.status == "failed" for line in lines),
        )

    async def next_line(self, batch_id: str, after: int) -> BatchLine | None:
        """The first line that waits, behind this number. Raises StoreError."""
        rows = await self._rows(
            self._sql.select_next, f"read batch {batch_id}", batch=batch_id, after=after
        )
        return BatchLine(rows[0][0], "waiting", rows[0][1]) if rows else None

    async def record(self, batch_id: str, line: BatchLine) -> None:
        """Keep a line's result and status. Raises Conflict if it does not wait; StoreError."""
        await self._counts_of(batch_id)  # before the write: what is written then is added
        step = self._sql.record_line
        row = step.row(
            new_status=line.status, new_result=line.result, batch=batch_id, line=line.number
        )
        known = Conflict(f"Line {line.number} of batch '{batch_id}' has a result already.")
        doing = f"keep a result of batch {batch_id}"
        await self._write([(step, row)], len(line.result or b""), doing, known)
        counts, name = await self._counts_of(batch_id), _COUNTED[line.status]
        self._counts[batch_id] = dataclasses.replace(counts, **{name: getattr(counts, name) + 1})

    async def lines(self, batch_id: str, *, after: int, limit: int) -> list[BatchLine]:
        """Lines behind this number, in order; requests only of those that wait.

        Raises StoreError.
        """
        rows = await self._rows(
            self._sql.select_lines,
            f"read batch {batch_id}",
            batch=batch_id,
            after=after,
            most=limit,
        )
        return [
            BatchLine(number, status, request or b"", result)
            for number, status, result, request in rows
        ]

    async def drop_lines(self, batch_id: str, up_to: int) -> None:
        """Forget the lines up to this number. Raises StoreError."""
        step = self._sql.drop_lines
        row = step.row(batch=batch_id, last=up_to)
        await self._write([(step, row)], 0, f"forget lines of batch {batch_id}")

    async def _counted(self, batch: Batch) -> Batch:
        """The batch with its counts; those of one that ends are final, and in its record."""
        if batch.ending is not None:
            return batch
        return dataclasses.replace(batch, counts=await self._counts_of(batch.id))

    async def _counts_of(self, batch_id: str) -> BatchCounts:
        known = self._counts.get(batch_id)
        if known is not None:
            return known
        rows = await self._rows(
            self._sql.count_lines, f"count lines of batch {batch_id}", batch=batch_id
        )
        by = dict(rows)
        found = BatchCounts(sum(by.values()), by.get("done", 0), by.get("failed", 0))
        # Who was quicker may have written since.
        return self._counts.setdefault(batch_id, found)

    async def _rows(
        self, statement: Statement, doing: str, **values: object
    ) -> list[tuple[Any, ...]]:
        def work(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(statement.sql, statement.row(**values)).fetchall()

        return await self._readers.read(work, doing)

    async def _write(
        self,
        steps: Sequence[tuple[Statement, Row]],
        size: int,
        doing: str,
        unmet: OuzelError | None = None,
    ) -> None:
        gone = StoreError(f"The store could not {doing}: it is not there.")
        await self._writer.write(Write(steps, doing, unmet or gone, size))


def _encode(batch: Batch) -> bytes:
    return msgspec.json.encode(batch)


def _decode(body: bytes) -> Batch:
    try:
        return msgspec.json.decode(body, type=Batch)
    except msgspec.MsgspecError as error:
        raise DamagedRecord(f"A stored batch is damaged ({error}).") from error


def _not_found(batch_id: str) -> NotFound:
    """The same for a batch that does not exist and for another owner's."""
    return NotFound(f"Batch with id '{batch_id}' not found.", code="not_found")
