"""Every statement on runs and their events, in SQLAlchemy Core over the tables of `schema.py`.

This file does not know connections, threads or core classes.
"""

from __future__ import annotations

import itertools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ouzel.store.schema import Statement, compiled, events, running, runs

MAX_CHAIN = 10_000
"""Longest line of runs that continue each other; more is taken for a ring in a damaged file."""

_ZERO: sa.ColumnElement[int] = sa.literal_column("0")

_WELL = runs.c.status.in_([sa.literal_column("'completed'"), sa.literal_column("'incomplete'")])
"""It has ended, and with an answer."""

_COMPLETION = sa.and_(runs.c.protocol == sa.literal_column("'chat'"), _WELL)
"""A run of Chat Completions that can be shown as one."""

_FIRST = runs.c.choice_of.is_(None)
"""It is no further choice of another run."""


class RunStatements:
    """All statements on runs and events for one dialect.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        mine = sa.and_(runs.c.id == sa.bindparam("run"), runs.c.owner == sa.bindparam("by"))
        further = sa.and_(
            runs.c.choice_of == sa.bindparam("run"), runs.c.owner == sa.bindparam("by")
        )
        self.insert_run = self._compile(sa.insert(runs))
        self.insert_events = self._compile(sa.insert(events))
        self.update_run = self._compile(
            sa.update(runs)
            .where(mine)
            .values(status=sa.bindparam("new_status"), body=sa.bindparam("new_body"))
        )
        self.mark_run = self._compile(
            sa.update(runs).where(mine).values(status=sa.bindparam("new_status"))
        )
        self.delete_choices = compiled(sa.delete(runs).where(further), dialect, exact=False)
        """The further choices of a run, if it has any."""
        self.delete_run = self._compile(sa.delete(runs).where(mine))
        self.select_run = self._compile(sa.select(runs.c.body).where(mine))
        self.select_events = self._compile(self._events_of(mine))
        self.select_chain = self._compile(self._chain_of(mine))
        self.select_live = self._compile(
            sa.select(runs.c.id, runs.c.owner).where(running).order_by(runs.c.created_at)
        )
        self.select_completion = self._compile(
            sa.select(runs.c.created_at, runs.c.body).where(mine, _COMPLETION, _FIRST)
        )
        self.select_choices = self._compile(
            sa.select(runs.c.body).where(further).order_by(runs.c.created_at, runs.c.id)
        )
        self.select_pages = {
            each: self._compile(self._page(*each))
            for each in itertools.product((False, True), repeat=2)
        }
        """Stored completions, by: after one, newest first."""

    @property
    def write_order(self) -> tuple[Statement, ...]:
        """Statements that write, in an order that keeps every reference whole within a batch."""
        return (
            self.insert_run,
            self.insert_events,
            self.update_run,
            self.mark_run,
            self.delete_choices,
            self.delete_run,
        )

    def _compile(self, statement: sa.sql.expression.ClauseElement) -> Statement:
        return compiled(statement, self._dialect)

    @staticmethod
    def _events_of(mine: sa.ColumnElement[bool]) -> sa.Select[tuple[int, int, bytes]]:
        """Event rows from the one that holds an index, or should, on.

        No row: no such run. A row of nulls: a run without them.
        """
        start = sa.bindparam("start", type_=sa.Integer)
        # One step down the index, where a comparison with `position + count` would read every row.
        holding = (
            sa.select(sa.func.max(events.c.position))
            .where(events.c.run_id == sa.bindparam("run"), events.c.position <= start)
            .scalar_subquery()
        )
        reached = events.c.position >= sa.func.coalesce(holding, _ZERO)
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
            sa.select(runs.c.id, runs.c.previous_id, _ZERO.label("depth"))
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

    @staticmethod
    def _page(after: bool, newest: bool) -> sa.Select[Any]:
        asked = sa.select(runs.c.id, runs.c.created_at, runs.c.body).where(
            runs.c.owner == sa.bindparam("by"), _COMPLETION, _FIRST
        )
        if after:
            at = sa.tuple_(runs.c.created_at, runs.c.id)
            mark = sa.tuple_(
                sa.bindparam("after_time", type_=sa.Double), sa.bindparam("after_id", type_=sa.Text)
            )
            asked = asked.where(at < mark if newest else at > mark)
        order = (runs.c.created_at, runs.c.id)
        asked = asked.order_by(*(each.desc() for each in order) if newest else order)
        return asked.limit(sa.bindparam("most")).offset(_ZERO)
