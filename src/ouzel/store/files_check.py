"""Which files have expired, and where rows and bytes do not agree; for `ouzel gc`.

After a power cut, bytes may lie in `kept` that no row names, and rows may name bytes that are gone
(docs/decisions/0005-store.md). Neither is looked for by a server: it would take a walk over all
files, and with a database that was moved away every file would look unnamed.

Everything here blocks, and is for a home that no server uses. This file does not know event loops.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from ouzel.store.blobs import Blobs, explain
from ouzel.store.retention import Removed
from ouzel.store.sqlite import SqliteFile

_ASKED_AT_ONCE = 500


def expired_files(file: SqliteFile, now: float) -> list[Removed]:
    """What `SqlFiles.expire` would delete. Raises StoreError."""
    try:
        with closing(file.connect(read_only=True)) as connection:
            files = connection.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM files WHERE expires_at <= ?", (now,)
            ).fetchone()
            uploads = connection.execute(
                "SELECT count(DISTINCT u.id), coalesce(sum(p.size), 0) FROM uploads u "
                "LEFT JOIN upload_parts p ON p.upload_id = u.id "
                "WHERE u.expires_at <= ? AND u.status = 'pending'",
                (now,),
            ).fetchone()
    except sqlite3.Error as error:
        raise file.explain(error, "find expired files") from error
    return [Removed("files", *files), Removed("uploads", *uploads)]


def unnamed(file: SqliteFile, blobs: Blobs, *, delete: bool) -> Iterator[Removed]:
    """Bytes that nothing names: found, and deleted if asked for. Raises StoreError."""
    try:
        with closing(file.connect(read_only=True)) as connection:
            for blob_id, size in blobs.kept():
                if connection.execute(_NAMED, (blob_id, blob_id)).fetchone() is None:
                    if delete:
                        blobs.drop([blob_id])
                    yield Removed("unnamed bytes", 1, size)
    except sqlite3.Error as error:
        raise file.explain(error, "look for files") from error
    except OSError as error:
        raise explain(error, "look for files") from error


def without_bytes(file: SqliteFile, blobs: Blobs, *, delete: bool) -> Iterator[Removed]:
    """Files and parts whose bytes are gone: found, and deleted if asked for. Raises StoreError."""
    try:
        with closing(file.connect()) as connection:
            for table in ("files", "upload_parts"):
                after = ""
                while rows := connection.execute(
                    f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
                    (after, _ASKED_AT_ONCE),
                ).fetchall():
                    for (blob_id,) in rows:
                        if _is_there(blobs, blob_id):
                            continue
                        if delete:
                            connection.execute(
                                f"DELETE FROM {table} WHERE id = ?",  # noqa: S608
                                (blob_id,),
                            )
                        yield Removed("files without bytes", 1, 0)
                    after = rows[-1][0]
    except sqlite3.Error as error:
        raise file.explain(error, "look for files") from error
    except OSError as error:
        raise explain(error, "look for files") from error


_NAMED = "SELECT 1 FROM files WHERE id = ? UNION ALL SELECT 1 FROM upload_parts WHERE id = ?"


def _is_there(blobs: Blobs, blob_id: str) -> bool:
    try:
        descriptor, _ = blobs.open(blob_id)
    except FileNotFoundError:
        return False
    os.close(descriptor)
    return True
