"""The tables, and every statement the store runs on those of runs (`files_sql.py` has the others).

Everything is SQLAlchemy Core, so that one text serves SQLite and PostgreSQL. Statements are
compiled once, when the store opens, and then given to the driver directly: SQLAlchemy's own
`execute` would cost about a sixth of the store's throughput (docs/decisions/0005-store.md).

This file does not know connections, threads or core classes. The tables are created by the
migrations, never from here; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

SCHEMA_VERSION = "0002"
"""The newest migration. A database at this version needs no Alembic to open."""

LIVE = ("queued", "in_progress")
"""States of a run that somebody still works on."""

MAX_CHAIN = 10_000
"""Longest line of runs that continue each other; more is taken for a ring in a damaged file."""

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
)

_live = runs.c.status.in_([sa.literal_column(f"'{status}'") for status in LIVE])
# Partial: a finished run costs it nothing, and start-up finds the others without reading bodies.
sa.Index("runs_live", runs.c.status, sqlite_where=_live, postgresql_where=_live)

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


@dataclass(frozen=True, eq=False, slots=True)
class Statement:
    """SQL text as the driver takes it.

    Args:
        sql: with the driver's placeholders.
        names: which value goes to which placeholder, in order.
    """

    sql: str
    names: tuple[str, ...]

    def row(self, **values: object) -> tuple[object, ...]:
        """The values in the order of the placeholders. Raises KeyError if one is missing."""
        return tuple([values[name] for name in self.names])


def compiled(statement: sa.sql.expression.ClauseElement, dialect: Dialect) -> Statement:
    """The statement as text. Raises TypeError if the dialect's placeholders have names."""
    made = statement.compile(dialect=dialect)
    if not isinstance(made, sa.sql.compiler.SQLCompiler) or made.positiontup is None:
        raise TypeError(f"{dialect!r} does not give statements numbered places")
    return Statement(made.string, tuple(made.positiontup))


class Statements:
    """All statements on runs and events for one dialect.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        mine = sa.and_(runs.c.id == sa.bindparam("run"), runs.c.owner == sa.bindparam("by"))
        self.insert_run = self._compile(sa.insert(runs))
        self.insert_events = self._compile(sa.insert(events))
        self.update_run = self._compile(
            sa.update(runs)
            .where(mine)
            .values(status=sa.bindparam("new_status"), body=sa.bindparam("new_body"))
        )
        self.delete_run = self._compile(sa.delete(runs).where(mine))
        self.select_run = self._compile(sa.select(runs.c.body).where(mine))
        self.select_events = self._compile(self._events_of(mine))
        self.select_chain = self._compile(self._chain_of(mine))
        self.select_live = self._compile(
            sa.select(runs.c.id, runs.c.owner).where(_live).order_by(runs.c.created_at)
        )
        self.mark_run = self._compile(
            sa.update(runs).where(mine).values(status=sa.bindparam("new_status"))
        )

    @property
    def write_order(self) -> tuple[Statement, ...]:
        """Statements that write, in an order that keeps every reference whole within a batch."""
        return (
            self.insert_run,
            self.insert_events,
            self.update_run,
            self.mark_run,
            self.delete_run,
        )

    def _compile(self, statement: sa.sql.expression.ClauseElement) -> Statement:
        return compiled(statement, self._dialect)

    @staticmethod
    def _events_of(mine: sa.ColumnElement[bool]) -> sa.Select[tuple[int, int, bytes]]:
        """Event rows from an index on. No row: no such run. A row of nulls: a run without them."""
        reached = events.c.position + events.c.count > sa.bindparam("start", type_=sa.Integer)
        joined = runs.outerjoin(events, sa.and_(events.c.run_id == runs.c.id, reached))
        return (
            sa.select(events.c.position, events.c.count, events.c.body)
            .select_from(joined)
            .where(mine)
            .order_by(events.c.position)
        )

    @staticmethod
    def _chain_of(mine: sa.ColumnElement[bool]) -> sa.Select[tuple[str | None, bytes]]:
        """The run and all it continues, oldest first, as far back as the owner's runs go."""
        chain = (
            sa.select(runs.c.id, runs.c.previous_id, sa.literal_column("0").label("depth"))
            .where(mine)
            .cte("chain", recursive=True)
        )
        earlier = (
            sa.select(runs.c.id, runs.c.previous_id, chain.c.depth + sa.literal_column("1"))
            .join(chain, runs.c.id == chain.c.previous_id)
            .where(
                runs.c.owner == sa.bindparam("by"),
                chain.c.depth < sa.literal_column(str(MAX_CHAIN)),
            )
        )
        chain = chain.union_all(earlier)
        return (
            sa.select(runs.c.previous_id, runs.c.body)
            .join(chain, runs.c.id == chain.c.id)
            .order_by(chain.c.depth.desc())
        )
