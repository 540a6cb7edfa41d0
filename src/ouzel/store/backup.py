"""Copies the database and the files that it names, while a server goes on writing.

The copy is a home of its own: the database as it was at one moment, and beside it the bytes of
every file that it names. Bytes are copied after the database; a file that was deleted meanwhile is
deleted in the copy, too, so that whatever the copy names is in it.

This file does not know what else is in a home, nor event loops.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ouzel.core.errors import StoreError
from ouzel.store.blobs import Blobs, explain
from ouzel.store.sqlite import SqliteFile

PAGES_AT_ONCE: Final = 1024
"""Pages of the database that are copied together: 4 MB."""

PIECE: Final = 2**20

OnProgress = Callable[[str, int, int], None]
"""Told what is copied just now, and how much of it is done: done, total."""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What is in a copy.

    Args:
        files: whose bytes are in it, parts of uploads included.
        size: bytes of all of it.
        deleted: files that were deleted while it was made.
        lost: files whose bytes were gone although they had not been deleted.
    """

    files: int
    size: int
    deleted: int
    lost: int


def back_up(
    file: SqliteFile, blobs: Blobs, database: Path, copies: Blobs, on_progress: OnProgress
) -> BackedUp:
    """Make the copy.

    Args:
        file: the database.
        blobs: its files.
        database: where the copy of the database goes; nothing is there.
        copies: where the copies of the files go.

    Raises StoreError if it cannot be made, or is not whole.
    """
    os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(file.connect(read_only=True)) as source:
            _copy_database(source, database, on_progress)
            with closing(sqlite3.connect(database, isolation_level=None)) as copy:
                done = _copy_files(source, copy, blobs, copies, on_progress)
                on_progress("checking the database", 0, 0)
                found = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(3)")]
    except sqlite3.Error as error:
        raise file.explain(error, "copy its database") from error
    except OSError as error:
        raise explain(error, "make the copy") from error
    if found != ["ok"]:
        raise StoreError(f"The copy of the database is damaged, as is the database: {found[0]}.")
    _sync(database)
    return BackedUp(done.files, done.size + database.stat().st_size, done.deleted, done.lost)


def _copy_database(source: sqlite3.Connection, database: Path, on_progress: OnProgress) -> None:
    def tell(_status: int, left: int, total: int) -> None:
        on_progress("the database", total - left, total)

    # Within a transaction the source stays as it is. Without it, each write of another process
    # would make the copy begin again.
    source.execute("BEGIN")
    try:
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        with closing(sqlite3.connect(database)) as copy:
            source.backup(copy, pages=PAGES_AT_ONCE, progress=tell)
    finally:
        source.execute("ROLLBACK")


def _copy_files(
    source: sqlite3.Connection,
    copy: sqlite3.Connection,
    blobs: Blobs,
    copies: Blobs,
    on_progress: OnProgress,
) -> BackedUp:
    copy.execute("PRAGMA secure_delete=ON")
    total = _count(copy)
    files = size = deleted = lost = 0
    for table, blob_id, told in _named(copy):
        copied = _copy_bytes(blobs, copies, blob_id, told)
        if copied:
            files += 1
            size += told
            on_progress("the files", files, total)
            continue
        copy.execute(f"DELETE FROM {table} WHERE id = ?", (blob_id,))  # noqa: S608
        there = source.execute(f"SELECT 1 FROM {table} WHERE id = ?", (blob_id,))  # noqa: S608
        if there.fetchone() is None:
            deleted += 1
        else:
            lost += 1
    return BackedUp(files, size, deleted, lost)


def _named(copy: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """Table, id and size of all that has bytes. Rows may be deleted while this is walked."""
    for table in _tables(copy):
        after = ""
        while rows := copy.execute(
            f"SELECT id, size FROM {table} WHERE id > ? ORDER BY id LIMIT 500",  # noqa: S608
            (after,),
        ).fetchall():
            for blob_id, size in rows:
                yield table, blob_id, size
            after = rows[-1][0]


def _tables(copy: sqlite3.Connection) -> list[str]:
    """Those that name files; a database of an older version may have none."""
    found = {name for (name,) in copy.execute("SELECT name FROM sqlite_master")}
    return [table for table in ("files", "upload_parts") if table in found]


def _count(copy: sqlite3.Connection) -> int:
    each = [copy.execute(f"SELECT count(*) FROM {table}") for table in _tables(copy)]  # noqa: S608
    return sum(int(found.fetchone()[0]) for found in each)


def _copy_bytes(blobs: Blobs, copies: Blobs, blob_id: str, told: int) -> bool:
    """Copy one file; False if it is not there, or not whole. Raises OSError."""
    try:
        descriptor, size = blobs.open(blob_id)
    except FileNotFoundError:
        return False
    with open(descriptor, "rb") as stream:  # noqa: PTH123
        if size != told:
            return False
        draft = copies.draft(blob_id)
        draft.begin()
        while piece := stream.read(PIECE):
            draft.write([piece])
        draft.finish()
    copies.keep([blob_id])
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
