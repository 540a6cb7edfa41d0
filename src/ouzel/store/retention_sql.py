"""Every statement of retention, in SQLAlchemy Core like those of the other rooms' tables.

This file does not know connections, or when something is old.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ouzel.store.schema import (
    BATCH_LIVE,
    LIVE,
    Statement,
    batch_lines,
    batches,
    compiled,
    conversation_items,
    conversations,
    events,
    runs,
)

_ZERO: sa.ColumnElement[int] = sa.literal_column("0")


@dataclass(frozen=True, eq=False, slots=True)
class Rest:
    """Statements on rows that belong to a row of another table.

    Args:
        first: number and bytes of the first rows (`most`) of one `parent`.
        delete: those of a `parent` up to the number `last`.
        total: how many bytes all rows of a `parent` have.
        next_parent: the id that comes next behind `after`, and whether it has no row of its own.
    """

    first: Statement
    delete: Statement
    total: Statement
    next_parent: Statement


@dataclass(frozen=True, eq=False, slots=True)
class Kind:
    """Statements on one kind of thing that expires.

    Args:
        page: id, time, bytes and whether it is `live`, of those made before a time and an id, the
            youngest first.
        delete: one of them (`id`), if it is older than `before`, not live, and not `needed`.
        rest: the rows that belong to it.
    """

    page: Statement
    delete: Statement
    rest: Rest


class RetentionStatements:
    """All statements of retention for one dialect.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        event = self._rest(runs, events.c.run_id, events.c.position, sa.func.length(events.c.body))
        line_bytes = sa.func.length(batch_lines.c.request) + sa.func.coalesce(
            sa.func.length(batch_lines.c.result), _ZERO
        )
        line = self._rest(batches, batch_lines.c.batch_id, batch_lines.c.number, line_bytes)
        later = runs.alias("later")
        continues = sa.and_(later.c.previous_id == runs.c.id, later.c.owner == runs.c.owner)
        needed = sa.exists().where(continues).correlate(runs)
        self.runs = Kind(self._page(runs, LIVE), self._delete(runs, LIVE, needed), event)
        self.batches = Kind(
            self._page(batches, BATCH_LIVE), self._delete(batches, BATCH_LIVE, sa.false()), line
        )
        self.items = self._rest(
            conversations,
            conversation_items.c.conversation_id,
            conversation_items.c.position,
            sa.func.length(conversation_items.c.body),
        )
        self.select_later = self._compile(
            sa.select(later.c.id, later.c.created_at).where(
                later.c.previous_id == sa.bindparam("id"),
                later.c.owner
                == sa.select(runs.c.owner).where(runs.c.id == sa.bindparam("id")).scalar_subquery(),
            )
        )
        """The runs that continue one, with the time of each."""

    def _compile(self, statement: sa.sql.expression.ClauseElement) -> Statement:
        return compiled(statement, self._dialect, exact=False)

    def _page(self, table: sa.Table, live: tuple[str, ...]) -> Statement:
        at = sa.tuple_(table.c.created_at, table.c.id)
        mark = sa.tuple_(sa.bindparam("time", type_=sa.Double), sa.bindparam("id", type_=sa.Text))
        return self._compile(
            sa.select(
                table.c.id,
                table.c.created_at,
                sa.func.length(table.c.body),
                _one_of(table.c.status, live).label("live"),
            )
            .where(at < mark)
            .order_by(table.c.created_at.desc(), table.c.id.desc())
            .limit(sa.bindparam("most"))
            .offset(_ZERO)
        )

    def _delete(
        self, table: sa.Table, live: tuple[str, ...], needed: sa.ColumnElement[bool]
    ) -> Statement:
        return self._compile(
            sa.delete(table).where(
                table.c.id == sa.bindparam("id"),
                table.c.created_at < sa.bindparam("before"),
                sa.not_(_one_of(table.c.status, live)),
                sa.not_(needed),
            )
        )

    def _rest(
        self,
        parents: sa.Table,
        parent: sa.ColumnElement[str],
        number: sa.ColumnElement[int],
        size: sa.ColumnElement[Any],
    ) -> Rest:
        table = next(iter(parent.base_columns)).table
        if not isinstance(table, sa.Table):
            raise TypeError(f"{parent} is no column of a table")
        mine = parent == sa.bindparam("parent")
        behind = sa.select(sa.func.min(parent)).where(parent > sa.bindparam("after"))
        found = behind.scalar_subquery()
        known = sa.exists().where(parents.c.id == found)
        return Rest(
            first=self._compile(
                sa.select(number, size)
                .where(mine)
                .order_by(number)
                .limit(sa.bindparam("most"))
                .offset(_ZERO)
            ),
            delete=self._compile(sa.delete(table).where(mine, number <= sa.bindparam("last"))),
            total=self._compile(sa.select(sa.func.coalesce(sa.func.sum(size), _ZERO)).where(mine)),
            next_parent=self._compile(sa.select(found, sa.not_(known))),
        )


def _one_of(column: sa.ColumnElement[str], values: tuple[str, ...]) -> sa.ColumnElement[bool]:
    return column.in_([sa.literal_column(f"'{value}'") for value in values])
