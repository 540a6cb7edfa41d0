"""Takes what is old out of the database, and what was deleted out of its file.

Everything goes in small steps: each is one short transaction, between which others write. A step
that was never made is found again by the next round, so a process may die at any moment. A thing's
own row goes first, and with it the thing for everybody who asks; the rows that belong to it follow.

A run that another one continues stays: a chain is kept until its youngest run is old. As a run is
always younger than what it continues, one walk from the young to the old is enough.

Deleting overwrites with zeros, in the file and in its log; then free pages are given back to the
disk and the log is cut to nothing. docs/retention.md says what all this promises.

Everything here blocks. This file does not know threads, event loops, or files that clients hand
over (`files.py` and `uploads.py` do).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.dialects import sqlite

from ouzel.core.errors import StoreError
from ouzel.store.retention_sql import Kind, Rest, RetentionStatements
from ouzel.store.schema import Statement
from ouzel.store.sqlite import SqliteFile

STEP_SECONDS: Final = 0.02
"""After so much time a transaction ends; those of live requests wait that long at most."""

PAGE: Final = 100
"""Old things that are looked at together."""

PIECE: Final = 200
"""Rows of one thing that are deleted together."""

PAGES_AT_ONCE: Final = 64
"""Free pages that are given back together: about 256 KB move."""

LOOKED_AT: Final = 500
"""Things whose rest is looked for together."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a step took away.

    Args:
        kind: `responses`, `batches`, or `leftovers`: rows whose own thing is gone already.
        count: how many.
        size: bytes of what was in them.
    """

    kind: str
    count: int
    size: int


class Retention:
    """Deletes by age, and tidies the database file. For one thread at a time.

    Args:
        file: a database that `migrate` has made ready.

    Raises StoreError if it cannot be opened; every other method does if it cannot be used.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._sql = RetentionStatements(sqlite.dialect(paramstyle="qmark"))
        try:
            self._connection = file.connect()
            # Rows that belong to a thing go after it, a few at a time.
            self._connection.execute("PRAGMA foreign_keys=OFF")
        except sqlite3.Error as error:
            raise file.explain(error, "open its database") from error

    def close(self) -> None:
        """Let the file go. May be called twice."""
        self._connection.close()

    def expire(self, before: float) -> Iterator[Removed]:
        """Delete what was made before a time and has ended, a step each time one is taken."""
        yield from self._expire(self._sql.runs, "responses", before)
        yield from self._expire(self._sql.batches, "batches", before)

    def expired(self, before: float) -> Iterator[Removed]:
        """What `expire` would delete; deletes nothing."""
        staying: set[str] = set()
        for rows in self._pages(self._sql.runs, before):
            going = []
            for row in rows:
                if row[3] or self._is_continued(row[0], before, staying):
                    staying.add(row[0])
                else:
                    going.append(row)
            yield self._weighed(self._sql.runs, "responses", going)
        for rows in self._pages(self._sql.batches, before):
            ended = [row for row in rows if not row[3]]
            yield self._weighed(self._sql.batches, "batches", ended)

    def leftovers(self, *, delete: bool = True) -> Iterator[Removed]:
        """Delete (or only count) rows of things that are gone: a process died in between."""
        for rest in (self._sql.runs.rest, self._sql.batches.rest, self._sql.items):
            after: str | None = ""
            while after is not None:
                after, gone = self._without_parent(rest, after)
                if not delete:
                    size = sum(self._number(rest.total, parent=each) for each in gone)
                    yield Removed("leftovers", len(gone), size)
                elif gone:
                    yield Removed("leftovers", len(gone), 0)
                    yield from self._clear(rest, "leftovers", gone)

    def free_bytes(self) -> int:
        """Bytes of the database file that nothing is in."""
        return self._pragma("freelist_count") * self._pragma("page_size")

    def shrinks(self) -> bool:
        """Whether free pages can be given back in steps; older files need `vacuum` once."""
        return self._pragma("auto_vacuum") == 2

    def shrink(self, keep: int) -> Iterator[int]:
        """Give free pages back to the disk, some with each step.

        Args:
            keep: bytes that stay free for what comes next.

        Yields how many bytes are free still.
        """
        if not self.shrinks():
            return
        while (free := self.free_bytes()) > keep:
            try:
                # As a script: the driver would stop any other way after the first page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")
            except sqlite3.Error as error:
                raise self._file.explain(error, "give free space back") from error
            left = self.free_bytes()
            if left >= free:
                return
            yield left

    def fold(self) -> bool:
        """Bring the log into the file and cut it to nothing; False if a reader needs it now.

        Nobody is made to wait: where somebody reads or writes, it is left for the next time.
        """
        try:
            # Most of the work, beside everybody else; then there is little left to do alone.
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._connection.execute("PRAGMA busy_timeout=0")
            try:
                row = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.execute("PRAGMA busy_timeout=5000")
        except sqlite3.Error as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_BUSY:
                return False
            raise self._file.explain(error, "fold its log") from error
        return row is not None and row[0] == 0

    def vacuum(self) -> None:
        """Write the whole file anew, with nothing in it but what is kept.

        Writers have to wait meanwhile: for when no server runs. It takes twice the file's size of
        disk, beside the file.
        """
        before = os.environ.get("SQLITE_TMPDIR")
        os.environ["SQLITE_TMPDIR"] = str(self._file.path.parent)
        try:
            self._connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._connection.execute("VACUUM")
        except sqlite3.Error as error:
            raise self._file.explain(error, "vacuum its file") from error
        finally:
            if before is None:
                del os.environ["SQLITE_TMPDIR"]
            else:
                os.environ["SQLITE_TMPDIR"] = before
        if not self.fold():
            raise StoreError("The store could not fold its log: another process reads it.")

    def disk_bytes(self) -> int:
        """Bytes that the database takes on disk, its log included."""
        return sum(_size(Path(f"{self._file.path}{end}")) for end in ("", "-wal"))

    def _expire(self, kind: Kind, name: str, before: float) -> Iterator[Removed]:
        for rows in self._pages(kind, before):
            waiting = deque(row for row in rows if not row[3])
            while waiting:
                gone: list[tuple[Any, ...]] = []
                with self._brief() as until:
                    while waiting and (not gone or time.monotonic() < until):
                        row = waiting.popleft()
                        if self._execute(kind.delete, id=row[0], before=before).rowcount:
                            gone.append(row)
                yield Removed(name, len(gone), sum(row[2] for row in gone))
                yield from self._clear(kind.rest, name, [row[0] for row in gone])

    def _clear(self, rest: Rest, name: str, parents: Iterable[str]) -> Iterator[Removed]:
        """Delete all rows that belong to these."""
        waiting = deque(parents)
        while waiting:
            size = 0
            with self._brief() as until:
                while waiting:
                    rows = self._rows(rest.first, parent=waiting[0], most=PIECE)
                    if rows:
                        self._execute(rest.delete, parent=waiting[0], last=rows[-1][0])
                        size += sum(row[1] for row in rows)
                    if len(rows) < PIECE:
                        waiting.popleft()
                    if time.monotonic() >= until:
                        break
            yield Removed(name, 0, size)

    def _weighed(self, kind: Kind, name: str, rows: list[tuple[Any, ...]]) -> Removed:
        rest = sum(self._number(kind.rest.total, parent=row[0]) for row in rows)
        return Removed(name, len(rows), sum(row[2] for row in rows) + rest)

    def _is_continued(self, run_id: str, before: float, staying: set[str]) -> bool:
        """Whether a run that stays continues it."""
        later = self._rows(self._sql.select_later, id=run_id)
        return any(made >= before or each in staying for each, made in later)

    def _pages(self, kind: Kind, before: float) -> Iterator[list[tuple[Any, ...]]]:
        """What was made before a time, from the young to the old."""
        mark: tuple[float, str] = (before, "")
        while rows := self._rows(kind.page, time=mark[0], id=mark[1], most=PAGE):
            yield rows
            mark = (rows[-1][1], rows[-1][0])

    def _without_parent(self, rest: Rest, after: str) -> tuple[str | None, list[str]]:
        """How far the look went (None: to the end), and whose rows are left over."""
        gone: list[str] = []
        for _ in range(LOOKED_AT):
            ((found, alone),) = self._rows(rest.next_parent, after=after)
            if found is None:
                return None, gone
            if alone:
                gone.append(found)
            after = found
        return after, gone

    @contextmanager
    def _brief(self) -> Iterator[float]:
        """A transaction, and the time at which it should end."""
        try:
            self._file.verify()
            self._connection.execute("BEGIN IMMEDIATE")
            yield time.monotonic() + STEP_SECONDS
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._file.explain(error, "delete what is old") from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _execute(self, statement: Statement, **values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement.sql, statement.row(**values))

    def _rows(self, statement: Statement, **values: object) -> list[tuple[Any, ...]]:
        try:
            return self._execute(statement, **values).fetchall()
        except sqlite3.Error as error:
            raise self._file.explain(error, "find what is old") from error

    def _number(self, statement: Statement, **values: object) -> int:
        ((number,),) = self._rows(statement, **values)
        return int(number)

    def _pragma(self, name: str) -> int:
        try:
            (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        except sqlite3.Error as error:
            raise self._file.explain(error, "look at its file") from error
        return int(value)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
