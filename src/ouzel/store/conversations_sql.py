"""Every statement on conversations and their items, in SQLAlchemy Core like those of runs.

This file does not know connections, threads or core classes.
"""

from __future__ import annotations

import itertools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from ouzel.store.schema import Statement, compiled, conversation_items, conversations, given

_ITEMS = conversation_items
_ONE: sa.ColumnElement[int] = sa.literal_column("1")
_ZERO: sa.ColumnElement[int] = sa.literal_column("0")


class ConversationStatements:
    """All statements on conversations for one dialect.

    Args:
        dialect: one with positional placeholders.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        mine = sa.and_(
            conversations.c.id == sa.bindparam("conversation"),
            conversations.c.owner == sa.bindparam("by"),
        )
        inside = _ITEMS.c.conversation_id == sa.bindparam("conversation")
        one = sa.and_(inside, _ITEMS.c.item_id == sa.bindparam("item"))
        self.insert_conversation = self._compile(sa.insert(conversations))
        self.insert_item = self._compile(self._insert_item(mine))
        """An item that has to be new, at the end."""
        self.insert_if_new = compiled(self._insert_item(mine), dialect, exact=False)
        """The same, or nothing where the item is there already or the conversation is gone."""
        self.update_conversation = self._compile(
            sa.update(conversations).where(mine).values(metadata=sa.bindparam("new_metadata"))
        )
        owned = sa.exists().where(mine)
        self.delete_item = self._compile(sa.delete(_ITEMS).where(one, owned))
        self.delete_conversation = self._compile(sa.delete(conversations).where(mine))
        self.select_conversation = self._compile(
            sa.select(conversations.c.created_at, conversations.c.metadata).where(mine)
        )
        self.select_item = self._compile(sa.select(_ITEMS.c.position, _ITEMS.c.body).where(one))
        self.select_all = self._compile(
            sa.select(_ITEMS.c.body).where(inside).order_by(_ITEMS.c.position)
        )
        self.select_pages = {
            each: self._compile(self._page(inside, *each))
            for each in itertools.product((False, True), repeat=2)
        }
        """By: after an item, newest first."""

    @property
    def write_order(self) -> tuple[Statement, ...]:
        """Statements that write, in an order that keeps every reference whole within a batch."""
        return (
            self.insert_conversation,
            self.insert_item,
            self.insert_if_new,
            self.update_conversation,
            self.delete_item,
            self.delete_conversation,
        )

    def _compile(self, statement: sa.sql.expression.ClauseElement) -> Statement:
        return compiled(statement, self._dialect)

    @staticmethod
    def _insert_item(mine: sa.ColumnElement[bool]) -> sa.Insert:
        """An item behind the last one, if the conversation is there and has none of its id."""
        last = (
            sa.select(sa.func.max(_ITEMS.c.position))
            .where(_ITEMS.c.conversation_id == conversations.c.id)
            .correlate(conversations)
            .scalar_subquery()
        )
        known = (
            sa.exists()
            .where(
                _ITEMS.c.conversation_id == conversations.c.id,
                _ITEMS.c.item_id == sa.bindparam("item", type_=sa.Text),
            )
            .correlate(conversations)
        )
        row = sa.select(
            conversations.c.id,
            sa.func.coalesce(last + _ONE, _ZERO),
            given("item", sa.Text),
            given("body", sa.LargeBinary),
        ).where(mine, sa.not_(known))
        return sa.insert(_ITEMS).from_select(
            ("conversation_id", "position", "item_id", "body"), row
        )

    @staticmethod
    def _page(inside: sa.ColumnElement[bool], after: bool, newest: bool) -> sa.Select[Any]:
        at = _ITEMS.c.position
        asked = sa.select(_ITEMS.c.body).where(inside)
        if after:
            mark = sa.bindparam("after", type_=sa.Integer)
            asked = asked.where(at < mark if newest else at > mark)
        asked = asked.order_by(at.desc() if newest else at)
        return asked.limit(sa.bindparam("most")).offset(_ZERO)
