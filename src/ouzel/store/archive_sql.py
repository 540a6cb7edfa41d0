"""Every statement of export and import, in SQLAlchemy Core like those of the other rooms' tables.

This file does not know connections, or what bodies hold.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ouzel.store.schema import (
    Statement,
    batch_lines,
    batches,
    compiled,
    conversation_items,
    conversations,
    events,
    files,
    runs,
)


class ArchiveStatements:
    """All statements of archives for one dialect.

    Selects of things take an `owner`, those of what belongs to a thing its `parent`.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.runs = self._things(runs, "id", "status", "body")
        self.events = self._parts(events, events.c.run_id, "position", "count", "body")
        self.conversations = self._things(conversations, "id", "created_at", "metadata")
        self.items = self._parts(
            conversation_items, conversation_items.c.conversation_id, "position", "body"
        )
        self.batches = self._things(batches, "id", "status", "body")
        self.batch_lines = self._parts(
            batch_lines, batch_lines.c.batch_id, "number", "status", "request", "result"
        )
        self.files = self._things(
            files, "id", "name", "size", "purpose", "created_at", "expires_at"
        )
        stored = (runs, conversations, batches, files)
        self.owners = {
            table.name: self._compile(
                sa.select(table.c.owner).where(table.c.id == sa.bindparam("id"))
            )
            for table in stored
        }
        """Whose a thing is, by table."""
        self.inserts = {
            table.name: self._compile(sa.insert(table))
            for table in (*stored, events, conversation_items, batch_lines)
        }

    def _compile(self, statement: sa.sql.expression.ClauseElement) -> Statement:
        return compiled(statement, self._dialect)

    def _things(self, table: sa.Table, *columns: str) -> Statement:
        return self._compile(
            sa.select(*(table.c[each] for each in columns))
            .where(table.c.owner == sa.bindparam("owner"))
            .order_by(table.c.created_at, table.c.id)
        )

    def _parts(self, table: sa.Table, parent: sa.ColumnElement[Any], *columns: str) -> Statement:
        return self._compile(
            sa.select(*(table.c[each] for each in columns))
            .where(parent == sa.bindparam("parent"))
            .order_by(table.c[columns[0]])
        )
