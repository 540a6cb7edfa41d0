"""Every statement on batches and their lines, in SQLAlchemy Core like those of `schema.py`.

This file does not know connections, threads or what is in a line.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ouzel.store.schema import BATCH_LIVE, Statement, batch_lines, batches, compiled

_NOTHING: sa.ColumnElement[Any] = sa.literal_column("0")
_WAITING = batch_lines.c.status == sa.literal_column("'waiting'")


class BatchStatements:
    """All statements on batches for one dialect.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        mine = sa.and_(batches.c.id == sa.bindparam("batch"), batches.c.owner == sa.bindparam("by"))
        of_batch = batch_lines.c.batch_id == sa.bindparam("batch")
        behind = batch_lines.c.number > sa.bindparam("after")
        line = sa.and_(of_batch, batch_lines.c.number == sa.bindparam("line"))
        live: list[sa.ColumnElement[Any]] = [
            sa.literal_column(f"'{status}'") for status in BATCH_LIVE
        ]
        self.insert_batch = self._compile(sa.insert(batches))
        self.update_batch = self._compile(
            sa.update(batches)
            .where(mine, batches.c.status == sa.bindparam("was"))
            .values(status=sa.bindparam("new_status"), body=sa.bindparam("new_body"))
        )
        self.select_batch = self._compile(sa.select(batches.c.body).where(mine))
        self.select_pages = {after: self._compile(self._page(after)) for after in (False, True)}
        """By: after a batch."""
        self.select_live = self._compile(
            sa.select(batches.c.body)
            .where(batches.c.status.in_(live))
            .order_by(batches.c.created_at, batches.c.id)
        )
        self.insert_line = self._compile(sa.insert(batch_lines))
        self.record_line = self._compile(
            sa.update(batch_lines)
            .where(line, _WAITING)
            .values(status=sa.bindparam("new_status"), result=sa.bindparam("new_result"))
        )
        self.drop_lines = self._compile(
            sa.delete(batch_lines).where(of_batch, batch_lines.c.number <= sa.bindparam("last")),
            exact=False,
        )
        self.select_next = self._compile(
            sa.select(batch_lines.c.number, batch_lines.c.request)
            .where(of_batch, behind, _WAITING)
            .order_by(batch_lines.c.number)
            .limit(sa.literal_column("1"))
            .offset(_NOTHING)
        )
        self.select_lines = self._compile(self._lines().where(of_batch, behind))
        self.select_last = self._compile(
            sa.select(sa.func.max(batch_lines.c.number)).where(of_batch)
        )
        self.count_lines = self._compile(
            sa.select(batch_lines.c.status, sa.func.count())
            .where(of_batch)
            .group_by(batch_lines.c.status)
        )

    @property
    def write_order(self) -> tuple[Statement, ...]:
        """Statements that write, in an order that keeps every reference whole within a batch."""
        return (
            self.insert_batch,
            self.insert_line,
            self.record_line,
            self.update_batch,
            self.drop_lines,
        )

    def _compile(
        self, statement: sa.sql.expression.ClauseElement, *, exact: bool = True
    ) -> Statement:
        return compiled(statement, self._dialect, exact=exact)

    @staticmethod
    def _lines() -> sa.Select[Any]:
        """Lines with their results, or with their requests if they have none."""
        request = sa.case((_WAITING, batch_lines.c.request), else_=None)
        line = batch_lines.c
        asked = sa.select(line.number, line.status, line.result, request).order_by(line.number)
        return asked.limit(sa.bindparam("most")).offset(_NOTHING)

    @staticmethod
    def _page(after: bool) -> sa.Select[tuple[bytes]]:
        asked = sa.select(batches.c.body).where(batches.c.owner == sa.bindparam("by"))
        if after:
            mark = sa.tuple_(
                sa.bindparam("after_time", type_=sa.Double), sa.bindparam("after_id", type_=sa.Text)
            )
            asked = asked.where(sa.tuple_(batches.c.created_at, batches.c.id) < mark)
        asked = asked.order_by(batches.c.created_at.desc(), batches.c.id.desc())
        return asked.limit(sa.bindparam("most")).offset(_NOTHING)
