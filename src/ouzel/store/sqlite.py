"""The SQLite file: how it is made, opened and watched, and what its errors mean in words.

This file does not know tables or core values.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from ouzel.core.errors import StoreError, StoreFull

BUSY_SECONDS = 5.0
"""How long a statement waits for another process that holds the file."""

WAL_BYTES = 64 * 2**20
"""The write-ahead log is cut back to this size after a checkpoint."""

MAX_RECORD_BYTES = 256 * 2**20
"""Longest single value; SQLite itself ends at 1 GB."""

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again",
    sqlite3.SQLITE_IOERR: "the disk refused to read or write; look at its health and free space",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; restore a backup or move it away",
    sqlite3.SQLITE_NOTADB: "the file is not a database; restore a backup or move it away",
    sqlite3.SQLITE_READONLY: "the database file or its folder is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened; look at its folder's permissions",
    sqlite3.SQLITE_BUSY: "another process holds the database; try again",
    sqlite3.SQLITE_TOOBIG: "the record is too large",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


class SqliteFile:
    """One database file.

    Args:
        path: where it is, or shall be. Missing folders are made with mode 0700, the file with
            0600; SQLite gives its log and shared-memory files the mode of the database.
        max_record: longest single value in bytes.
    """

    def __init__(self, path: Path, *, max_record: int = MAX_RECORD_BYTES) -> None:
        self.path = path.absolute()
        self._max_record = max_record
        self._identity: tuple[int, int] | None = None

    def make(self) -> None:
        """Make the folder and an empty file where there is none. Raises StoreError."""
        try:
            _make_folder(self.path.parent)
            # Never open and close a file that SQLite may have open in this process: that would
            # drop its locks (SQLite, "How To Corrupt An SQLite Database File", 2.2).
            if not self.path.exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            found = self.path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"The store could not be opened: {self.path} is not a file.")
            if found.st_uid == os.geteuid() and found.st_mode & 0o077:
                self.path.chmod(0o600)
        except OSError as error:
            raise StoreError(
                f"The store could not be opened: {self.path}: {error.strerror}."
            ) from error
        self._identity = (found.st_dev, found.st_ino)

    def use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch the file to its write-ahead log, for good. Raises StoreError, sqlite3.Error.

        A file without a page yet gets the books that let free pages be given back later on; one
        that was made without them gets them when it is vacuumed as a whole.
        """
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        if not pages:
            # On a file that has pages this would be a write, and there is none on a full disk.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StoreError(
                f"The store could not be opened: {self.path} is on a file system without "
                "write-ahead logging; choose a local disk."
            )

    def connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        """A connection without implicit transactions, usable from any one thread at a time.

        Raises sqlite3.Error.
        """
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._max_record)
            # In WAL mode NORMAL syncs at checkpoints only: what was committed survives the death
            # of the process, not always that of the machine; the file stays whole in both.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            # What is deleted is overwritten with zeros (docs/retention.md); some builds of SQLite
            # do so by themselves, others do not.
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
            if read_only:
                connection.execute("PRAGMA query_only=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def verify(self) -> None:
        """Raise StoreError unless the file found by `make` is still the one at its path.

        SQLite goes on writing into a deleted file without an error, and all of it would be lost.
        """
        try:
            found = os.stat(self.path)  # noqa: PTH116  (half the cost, once for each batch)
        except OSError:
            identity = None
        else:
            identity = (found.st_dev, found.st_ino)
        if identity != self._identity:
            raise StoreError(
                "The store's database file was removed or replaced; restart the server."
            )

    def explain(self, error: Exception, doing: str) -> StoreError:
        """What went wrong, in words that hold no stored text, with the error as its cause.

        Args:
            error: what the driver raised.
            doing: what was tried, after "The store could not".
        """
        code = getattr(error, "sqlite_errorcode", None)
        if code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
            reason = "it is there already"
        elif code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            reason = "its run was deleted or never begun"
        elif code is not None and code & 0xFF in _REASONS:
            reason = _REASONS[code & 0xFF]
        elif isinstance(error, sqlite3.Error):
            reason = str(error)
        else:
            reason = f"unexpected {type(error).__name__}"
        told = f"The store could not {doing}: {reason}."
        full = code is not None and code & 0xFF == sqlite3.SQLITE_FULL
        failure = StoreFull(told) if full else StoreError(told)
        failure.__cause__ = error
        return failure


def _make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each for the user alone."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
