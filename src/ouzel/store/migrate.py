"""Brings a database to the schema of this version, whoever else opens it at the same moment.

Alembic is imported only when there is something to do: a database that is already at
SCHEMA_VERSION costs one query. All steps run in one transaction, so a process that dies in the
middle leaves the database as it was.

This file does not know what the migrations change.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import filelock
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from ouzel.core.errors import StoreError
from ouzel.store.schema import SCHEMA_VERSION
from ouzel.store.sqlite import SqliteFile

SCRIPTS = Path(__file__).parent / "migrations"

LOCK_SECONDS = 60.0
"""How long to wait for another process that is opening the same file."""


def migrate(file: SqliteFile) -> None:
    """Make the file ready for use. Blocks while another process does the same.

    Raises:
        StoreError: the file cannot be made or opened, is no database of ours, comes from a newer
            version, or a step failed; the message says which.
    """
    file.make()
    lock = filelock.FileLock(f"{file.path}.lock", timeout=LOCK_SECONDS, mode=0o600)
    try:
        with lock:
            _migrate_locked(file)
    except filelock.Timeout as error:
        raise StoreError(
            f"The store could not be opened: another process has been opening {file.path} for "
            f"{LOCK_SECONDS:.0f} seconds."
        ) from error
    except OSError as error:
        raise StoreError(
            f"The store could not be opened: {file.path}.lock: {error.strerror}."
        ) from error


def check_version(file: SqliteFile) -> None:
    """Raise StoreError unless the database is there and at this version; changes nothing."""
    if not file.path.exists():
        raise StoreError(f"There is no database at {file.path}.")
    file.make()
    try:
        with closing(file.connect(read_only=True)) as connection:
            found = _version(connection, file.path)
    except sqlite3.Error as error:
        raise file.explain(error, f"open {file.path}") from error
    if found != SCHEMA_VERSION:
        raise StoreError(
            f"{file.path} was written by another version of Ouzel; start the server once, which "
            "brings it up to date."
        )


def _migrate_locked(file: SqliteFile) -> None:
    try:
        connection = file.connect()
        try:
            file.use_wal(connection)
            if _version(connection, file.path) != SCHEMA_VERSION:
                _upgrade(connection, file.path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise file.explain(error, f"open {file.path}") from error
    except sa.exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        raise file.explain(cause, f"migrate {file.path}") from error


def _version(connection: sqlite3.Connection, path: Path) -> str | None:
    """The schema version of the file, None for an empty one."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "alembic_version" in tables:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    if tables:
        raise StoreError(
            f"The store could not be opened: {path} is an SQLite database, but not one of Ouzel's."
        )
    return None


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    import alembic.command
    import alembic.config
    import alembic.util

    engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    @sa.event.listens_for(engine, "begin")
    def begin(opened: sa.Connection) -> None:
        # Our connections begin nothing by themselves, and Python's own way would leave tables
        # outside the transaction.
        opened.exec_driver_sql("BEGIN IMMEDIATE")

    config = alembic.config.Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    try:
        with engine.begin() as opened:
            config.attributes["connection"] = opened
            alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise StoreError(
            f"The store could not be opened: {path} was written by a newer version of Ouzel; "
            "install that version, or choose another file."
        ) from error
