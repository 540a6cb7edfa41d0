"""The tables, and what a statement on them is; the statements are in `runs_sql.py` and others.

Everything is SQLAlchemy Core, so that one text serves SQLite and PostgreSQL. Statements are
compiled once, when the store opens, and then given to the driver directly: SQLAlchemy's own
`execute` would cost about a sixth of the store's throughput (docs/decisions/0005-store.md).

This file does not know connections, threads or core classes. The tables are created by the
migrations, never from here; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

SCHEMA_VERSION = "0003"
"""The newest migration. A database at this version needs no Alembic to open."""

LIVE = ("queued", "in_progress")
"""States of a run that somebody still works on."""

metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("previous_id", sa.Text),
    # JSON, but as bytes: JSONB and TEXT of PostgreSQL refuse the character U+0000, clients do not.
    sa.Column("body", sa.LargeBinary, nullable=False),
    # The run that this one is a further choice of.
    sa.Column("choice_of", sa.Text),
)

sa.Index("runs_page", runs.c.owner, runs.c.protocol, runs.c.created_at, runs.c.id)
sa.Index("runs_age", runs.c.created_at)
_choices = runs.c.choice_of.is_not(None)
sa.Index("runs_choices", runs.c.choice_of, sqlite_where=_choices, postgresql_where=_choices)
_continuing = runs.c.previous_id.is_not(None)
sa.Index(
    "runs_previous", runs.c.previous_id, sqlite_where=_continuing, postgresql_where=_continuing
)
running = runs.c.status.in_([sa.literal_column(f"'{status}'") for status in LIVE])
"""The condition of the partial index; only a query that has it word for word can use it."""

# Partial: a finished run costs it nothing, and start-up finds the others without reading bodies.
sa.Index("runs_live", runs.c.status, sqlite_where=running, postgresql_where=running)

events = sa.Table(
    "events",
    metadata,
    sa.Column("run_id", sa.Text, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("run_id", "position"),
)

files = sa.Table(
    "files",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
)
# A page is one walk along an index, however many files there are.
sa.Index("files_page", files.c.owner, files.c.created_at, files.c.id)
sa.Index("files_page_purpose", files.c.owner, files.c.purpose, files.c.created_at, files.c.id)
_expiring = files.c.expires_at.is_not(None)
sa.Index("files_expiring", files.c.expires_at, sqlite_where=_expiring, postgresql_where=_expiring)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    # Seconds that the file lives, once there is one.
    sa.Column("file_seconds", sa.Double),
)
sa.Index("uploads_expiring", uploads.c.expires_at)

upload_parts = sa.Table(
    "upload_parts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    sa.Column("upload_id", sa.Text, sa.ForeignKey("uploads.id"), nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
sa.Index("upload_parts_upload", upload_parts.c.upload_id)
sa.Index("upload_parts_owner", upload_parts.c.owner)


conversations = sa.Table(
    "conversations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("metadata", sa.LargeBinary, nullable=False),
)
sa.Index("conversations_page", conversations.c.owner, conversations.c.created_at)

conversation_items = sa.Table(
    "conversation_items",
    metadata,
    sa.Column(
        "conversation_id",
        sa.Text,
        sa.ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("conversation_id", "position"),
)
sa.Index(
    "conversation_items_id",
    conversation_items.c.conversation_id,
    conversation_items.c.item_id,
    unique=True,
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
sa.Index("batches_page", batches.c.owner, batches.c.created_at, batches.c.id)
BATCH_LIVE = ("validating", "in_progress", "finalizing", "cancelling")
_working = batches.c.status.in_([sa.literal_column(f"'{status}'") for status in BATCH_LIVE])
sa.Index("batches_live", batches.c.status, sqlite_where=_working, postgresql_where=_working)

batch_lines = sa.Table(
    "batch_lines",
    metadata,
    sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    # waiting, done or failed
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("result", sa.LargeBinary),
    sa.PrimaryKeyConstraint("batch_id", "number"),
)


@dataclass(frozen=True, eq=False, slots=True)
class Statement:
    """SQL text as the driver takes it.

    Args:
        sql: with the driver's placeholders.
        names: which value goes to which placeholder, in order.
        exact: each of its rows has to change exactly one row of the table; otherwise it may change
            none, or several, and that is no failure.
    """

    sql: str
    names: tuple[str, ...]
    exact: bool = True

    def row(self, **values: object) -> tuple[object, ...]:
        """The values in the order of the placeholders. Raises KeyError if one is missing."""
        return tuple([values[name] for name in self.names])


def compiled(
    statement: sa.sql.expression.ClauseElement, dialect: Dialect, *, exact: bool = True
) -> Statement:
    """The statement as text. Raises TypeError if the dialect's placeholders have names."""
    made = statement.compile(dialect=dialect)
    if not isinstance(made, sa.sql.compiler.SQLCompiler) or made.positiontup is None:
        raise TypeError(f"{dialect!r} does not give statements numbered places")
    return Statement(made.string, tuple(made.positiontup), exact)


def given(name: str, type_: type[sa.types.TypeEngine[Any]]) -> sa.ColumnElement[Any]:
    """A value that is selected: PostgreSQL has to be told what it is."""
    return sa.cast(sa.bindparam(name), type_).label(name)
