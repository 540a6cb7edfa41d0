"""What files and uploads have in common: taking bytes in, and making rows and bytes agree.

The rule of `blobs.py` is kept here: every change, done or failed, ends with a look at which of its
ids have a row, and their bytes are kept or dropped accordingly.

This file does not know what the rows mean.
"""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import time
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from ouzel.core.errors import OuzelError, StoreError, TooLarge
from ouzel.core.files import FileInfo
from ouzel.store.blobs import Blobs, Draft, explain
from ouzel.store.files_disk import DiskThreads, to_the_end
from ouzel.store.files_quota import Account, Accounts, shown
from ouzel.store.files_sql import FileStatements
from ouzel.store.reader import Readers
from ouzel.store.schema import Statement
from ouzel.store.writer import Row, Write, Writer

logger = logging.getLogger(__name__)

ROW_BYTES = 512
"""Counted by the writer for each row."""

AT_ONCE = 2**20
"""Bytes that are gathered before a thread writes them."""

KEEP = "keep the file"
"""What is being done, for errors."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Rows that change together, and the bytes that come or go with them.

    Args:
        steps: statements with a row each; every one has to change something.
        doing: what it is for, after "The store could not".
        unmet: raised if one changed nothing.
        account: the owner's.
        come: ids of bytes that were received and get a row.
        taken: bytes that were counted for them; given back if this fails.
        go: ids whose rows are deleted.
        freed: bytes that are given back if this is done.
    """

    steps: Sequence[tuple[Statement, Row]]
    doing: str
    unmet: OuzelError
    account: Account
    come: Sequence[str] = ()
    taken: int = 0
    go: Sequence[str] = ()
    freed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """How much is kept.

    Args:
        file: most bytes of one file.
        quota: most bytes of one owner, parts of uploads included.
        upload: most bytes that an upload may announce; `file` bounds it, too.
        part: most bytes of one part.
        parts: most parts of one upload.
        upload_seconds: how long an upload may stay incomplete.
        reserve: bytes of the disk that no file gets, so that the database can go on.
    """

    file: int = 512 * 2**20
    quota: int = 10 * 2**30
    upload: int = 8 * 2**30
    part: int = 64 * 2**20
    parts: int = 1000
    upload_seconds: float = 3600.0
    reserve: int = 64 * 2**20


class Keeping:
    """Rows, bytes, threads and quotas.

    Args:
        sql: the statements, of which the writer knows those that write.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        sql: FileStatements,
        writer: Writer,
        readers: Readers,
        blobs: Blobs,
        limits: FileLimits,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.sql = sql
        self.limits = limits
        self.now = now
        self.accounts = Accounts(limits.quota, self._used)
        self.disk = DiskThreads()
        self.blobs = blobs
        self._writer = writer
        self._readers = readers
        self._busy: set[str] = set()

    async def rows(
        self, statement: Statement, doing: str, **values: object
    ) -> list[tuple[Any, ...]]:
        """All rows that a statement finds. Raises StoreError."""

        def work(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(statement.sql, statement.row(**values)).fetchall()

        return await self._readers.read(work, doing)

    def file_step(self, file: FileInfo) -> tuple[Statement, Row]:
        """What writes a file's row."""
        step = self.sql.insert_file
        return step, step.row(**dataclasses.asdict(file))

    @contextmanager
    def busy(self, blob_id: str) -> Iterator[None]:
        """While inside, `sweep` leaves the id's bytes alone."""
        self._busy.add(blob_id)
        try:
            yield
        finally:
            self._busy.discard(blob_id)

    async def receive(
        self, blob_id: str, chunks: AsyncIterable[bytes], account: Account, limit: int, param: str
    ) -> Draft:
        """Write bytes to disk as they come, and count them; `commit` comes next.

        If this fails, or is cancelled, nothing is left and nothing counted.

        Args:
            limit: most bytes.
            param: what the client calls these bytes, for errors.

        Raises:
            TooLarge: more than `limit`, or than the quota allows.
            StoreError: the disk is full, or refused.
            Whatever `chunks` raises.
        """
        draft = self.blobs.draft(blob_id)
        taken = 0
        waiting: list[bytes] = []
        try:
            await self.on_disk(KEEP, draft.begin)
            async for chunk in chunks:
                if taken + len(chunk) > limit:
                    raise too_large(limit, param)
                account.take(len(chunk), param)
                taken += len(chunk)
                waiting.append(chunk)
                if taken - draft.size >= AT_ONCE:
                    await self.on_disk(KEEP, draft.write, waiting)
                    waiting.clear()
            await self.on_disk(KEEP, draft.write, waiting)
            await self.on_disk(KEEP, draft.finish)
        except BaseException:
            account.give(taken)
            await self.abandon(draft)
            raise
        return draft

    async def abandon(self, draft: Draft) -> None:
        """Remove a draft; one that cannot be removed goes at the next start."""
        with suppress(StoreError):
            await self.on_disk("remove a draft", draft.abandon)

    async def commit(self, change: Change) -> None:
        """Make a change, all of it or nothing, and then let its bytes follow.

        A cancellation is raised when it is over.

        Raises:
            OuzelError: its `unmet`; StoreError. Nothing has changed then.
        """
        await to_the_end(self._commit(change))

    async def sweep(self) -> int:
        """Keep or remove what an earlier process left half done; for start-up.

        Returns how many files were left. Raises StoreError.
        """
        found = await self.on_disk("look for files", self.blobs.drafts)
        left = [each for each in found if each not in self._busy]
        await to_the_end(self._settle(left))
        return len(left)

    async def on_disk(self, doing: str, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Run `work` in a thread of the disk, to its end. Raises StoreError for its OSError."""
        try:
            return await self.disk.do(work, *args, **more)
        except OSError as error:
            failure = explain(error, doing)
            logger.warning("%s", failure.message)
            raise failure from error

    async def _commit(self, change: Change) -> None:
        doubtful = [*change.come, *change.go]
        try:
            if change.go:
                await self.on_disk(change.doing, self.blobs.doubt, change.go)
            size = ROW_BYTES * len(change.steps)
            await self._writer.write(Write(change.steps, change.doing, change.unmet, size))
        except BaseException:
            change.account.give(change.taken)
            raise
        else:
            change.account.give(change.freed)
        finally:
            try:
                await self._settle(doubtful)
            except StoreError as error:
                # What the rows say holds; the bytes follow at the next start.
                logger.warning("%d files wait for the next start: %s", len(doubtful), error.message)

    async def _settle(self, blob_ids: Sequence[str]) -> None:
        """Keep the bytes of ids that have a row, drop the others'. Raises StoreError."""

        def look(connection: sqlite3.Connection) -> set[str]:
            sql = self.sql.select_bytes
            return {
                each
                for each in blob_ids
                if connection.execute(sql.sql, sql.row(file=each, part=each)).fetchone()
            }

        if blob_ids:
            kept = await self._readers.read(look, "look for files")
            gone = [each for each in blob_ids if each not in kept]
            await self.on_disk("put files in their place", self.blobs.keep, kept)
            await self.on_disk("remove files", self.blobs.drop, gone)

    async def _used(self, owner: str) -> int:
        ((used,),) = await self.rows(self.sql.select_used, "count an owner's files", by=owner)
        return int(used)


def too_large(limit: int, param: str) -> TooLarge:
    """For one thing that is larger than it may be."""
    return TooLarge(
        f"It is larger than {shown(limit)}, the most that is taken.",
        param=param,
        code="file_too_large",
    )
