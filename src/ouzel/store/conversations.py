"""Conversations and their items, as `core.contracts_state.Conversations` promises.

A conversation is a row, and a row for each item, in the database of the runs, whose threads and
commits it shares. Items that a run adds come with its end, in `SqlStore.finish`.

This file does not know HTTP, who may speak when, or what items mean.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from ouzel.core.contracts_state import Conversation, Order, PageOf
from ouzel.core.errors import NotFound, OuzelError, RequestError, StoreError
from ouzel.core.items import Item, new_id
from ouzel.store import codec
from ouzel.store.conversations_sql import ConversationStatements
from ouzel.store.files_names import storable
from ouzel.store.reader import Readers
from ouzel.store.schema import Statement
from ouzel.store.writer import Row, Write, Writer

T = TypeVar("T")

Step = tuple[Statement, Row]


class SqlConversations:
    """Conversations in SQLite. Serves one event loop at a time.

    Args:
        sql: the statements, of which the writer knows those that write.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        sql: ConversationStatements,
        writer: Writer,
        readers: Readers,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._sql = sql
        self._writer = writer
        self._readers = readers
        self._now = now

    async def create(
        self, owner: str, metadata: Mapping[str, str], items: Sequence[Item]
    ) -> Conversation:
        """A new one, with its first items.

        Raises RequestError (`param` is `items`) if two of them have one id; StoreError.
        """
        _check_unlike(items)
        made = Conversation(new_id("conv"), owner, self._now(), dict(metadata))
        body = codec.encode_metadata(metadata)
        row = self._sql.insert_conversation.row(
            id=made.id, owner=owner, created_at=made.created_at, metadata=body
        )
        steps, size = item_steps(self._sql.insert_item, made.id, owner, items)
        await self._write(
            [(self._sql.insert_conversation, row), *steps],
            f"keep conversation {made.id}",
            size=size + len(body),
        )
        return made

    async def get(self, conversation_id: str, owner: str) -> Conversation:
        """The conversation itself, without its items. Raises NotFound, StoreError."""
        return await self._read(conversation_id, owner, lambda _, found: found)

    async def update(
        self, conversation_id: str, owner: str, metadata: Mapping[str, str]
    ) -> Conversation:
        """The same with other metadata. Raises NotFound, StoreError."""
        before = await self.get(conversation_id, owner)
        body = codec.encode_metadata(metadata)
        row = self._sql.update_conversation.row(
            new_metadata=body, conversation=conversation_id, by=owner
        )
        await self._write(
            [(self._sql.update_conversation, row)],
            f"change conversation {conversation_id}",
            _not_found(conversation_id),
            len(body),
        )
        return Conversation(before.id, owner, before.created_at, dict(metadata))

    async def delete(self, conversation_id: str, owner: str) -> None:
        """Forget it, and its items. Raises NotFound, StoreError."""
        # Looked up first, so that a wrong id costs the writer nothing.
        await self.get(conversation_id, owner)
        row = self._sql.delete_conversation.row(conversation=conversation_id, by=owner)
        await self._write(
            [(self._sql.delete_conversation, row)],
            f"delete conversation {conversation_id}",
            _not_found(conversation_id),
        )

    async def add(
        self,
        conversation_id: str,
        owner: str,
        items: Sequence[Item],
        *,
        skip_known: bool = False,
    ) -> None:
        """Append items, all or none.

        Args:
            skip_known: leave out those whose ids are there already, where they would be refused.

        Raises:
            NotFound: no such conversation.
            RequestError: an id is there already, or comes twice (`param` is `items`).
            StoreError: they could not be kept.
        """
        if not skip_known:
            _check_unlike(items)
            await self._check_new(conversation_id, owner, items)
        else:
            await self.get(conversation_id, owner)
        statement = self._sql.insert_if_new if skip_known else self._sql.insert_item
        steps, size = item_steps(statement, conversation_id, owner, items)
        if not steps:
            return
        doing = f"add to conversation {conversation_id}"
        changed = _ChangedMeanwhile(f"The store could not {doing}.")
        try:
            await self._write(steps, doing, changed, size)
        except _ChangedMeanwhile:
            # Another request was faster; now the reason can be seen.
            await self._check_new(conversation_id, owner, items)
            raise

    async def page(
        self, conversation_id: str, owner: str, *, after: str | None, limit: int, order: Order
    ) -> PageOf[Item]:
        """Some of its items, `limit` (1 or more) at most.

        Raises:
            NotFound: no such conversation.
            RequestError: none of its items has the id `after` (`param`).
            StoreError: they could not be read.
        """
        statement = self._sql.select_pages[after is not None, order == "desc"]

        def read(connection: sqlite3.Connection, found: Conversation) -> PageOf[Item]:
            asked: dict[str, object] = {"conversation": found.id, "most": limit + 1}
            if after is not None:
                item = self._item(connection, found.id, after)
                if item is None:
                    raise RequestError(
                        f"No item of this conversation has the id '{after}'.",
                        param="after",
                        code="invalid_value",
                    )
                asked["after"] = item[0]
            rows = connection.execute(statement.sql, statement.row(**asked)).fetchall()
            entries = tuple(codec.decode_item(body) for (body,) in rows[:limit])
            return PageOf(entries, len(rows) > limit)

        return await self._read(conversation_id, owner, read)

    async def item(self, conversation_id: str, owner: str, item_id: str) -> Item:
        """One of its items. Raises NotFound, StoreError."""

        def read(connection: sqlite3.Connection, found: Conversation) -> Item:
            item = self._item(connection, found.id, item_id)
            if item is None:
                raise _no_item(item_id)
            return codec.decode_item(item[1])

        return await self._read(conversation_id, owner, read)

    async def remove(self, conversation_id: str, owner: str, item_id: str) -> Conversation:
        """Take one of its items out. Raises NotFound, StoreError."""

        def read(connection: sqlite3.Connection, found: Conversation) -> Conversation:
            # Not decoded: an item that is damaged can be taken out, too.
            if self._item(connection, found.id, item_id) is None:
                raise _no_item(item_id)
            return found

        found = await self._read(conversation_id, owner, read)
        row = self._sql.delete_item.row(conversation=conversation_id, by=owner, item=item_id)
        await self._write(
            [(self._sql.delete_item, row)], f"delete item {item_id}", _no_item(item_id)
        )
        return found

    async def history(self, conversation_id: str, owner: str) -> tuple[Item, ...]:
        """All of its items, oldest first. Raises NotFound, StoreError."""
        statement = self._sql.select_all

        def read(connection: sqlite3.Connection, found: Conversation) -> tuple[Item, ...]:
            rows = connection.execute(statement.sql, statement.row(conversation=found.id))
            return tuple(codec.decode_item(body) for (body,) in rows)

        return await self._read(conversation_id, owner, read)

    async def _check_new(self, conversation_id: str, owner: str, items: Sequence[Item]) -> None:
        """Raise RequestError if an item is there already, NotFound if the conversation is not."""

        def read(connection: sqlite3.Connection, found: Conversation) -> None:
            for item in items:
                if self._item(connection, found.id, item.id) is not None:
                    raise _known(item.id)

        await self._read(conversation_id, owner, read)

    async def _read(
        self,
        conversation_id: str,
        owner: str,
        work: Callable[[sqlite3.Connection, Conversation], T],
    ) -> T:
        """Run `work` in a reading thread, on a conversation that is there and the owner's."""
        unknown = _not_found(conversation_id)
        if not storable(conversation_id):
            raise unknown
        statement = self._sql.select_conversation

        def read(connection: sqlite3.Connection) -> T:
            row = statement.row(conversation=conversation_id, by=owner)
            # One transaction: what is read belongs together, whatever is written meanwhile.
            connection.execute("BEGIN")
            try:
                found = connection.execute(statement.sql, row).fetchone()
                if found is None:
                    raise unknown
                created_at, metadata = found
                return work(
                    connection,
                    Conversation(
                        conversation_id, owner, created_at, codec.decode_metadata(metadata)
                    ),
                )
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

        return await self._readers.read(read, f"read conversation {conversation_id}")

    async def _write(
        self, steps: Sequence[Step], doing: str, unmet: OuzelError | None = None, size: int = 0
    ) -> None:
        unmet = unmet or StoreError(f"The store could not {doing}.")
        await self._writer.write(Write(steps, doing, unmet, size))

    def _item(
        self, connection: sqlite3.Connection, conversation_id: str, item_id: str
    ) -> tuple[int, bytes] | None:
        """Position and body of an item, if the conversation has it."""
        if not storable(item_id):
            return None
        row = self._sql.select_item.row(conversation=conversation_id, item=item_id)
        found: tuple[int, bytes] | None = connection.execute(
            self._sql.select_item.sql, row
        ).fetchone()
        return found


def item_steps(
    statement: Statement, conversation_id: str, owner: str, items: Iterable[Item]
) -> tuple[list[Step], int]:
    """What appends the items, and the bytes in it. Raises StoreError for what JSON cannot hold."""
    steps: list[Step] = []
    size = 0
    for item in items:
        body = codec.encode_item(item)
        row = statement.row(conversation=conversation_id, by=owner, item=item.id, body=body)
        steps.append((statement, row))
        size += len(body)
    return steps, size


class _ChangedMeanwhile(StoreError):
    """Between the look and the write, the conversation changed."""


def _check_unlike(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise RequestError(
                f"Two items have the id '{item.id}'; ids are unlike each other.",
                param="items",
                code="duplicate_item",
            )
        seen.add(item.id)


def _known(item_id: str) -> RequestError:
    return RequestError(
        f"An item with the id '{item_id}' is in this conversation already; leave the id out to add "
        "it as a new one.",
        param="items",
        code="duplicate_item",
    )


def _not_found(conversation_id: str) -> NotFound:
    """The same for a conversation that does not exist and for another owner's."""
    return NotFound(f"Conversation with id '{conversation_id}' not found.", code="not_found")


def _no_item(item_id: str) -> NotFound:
    return NotFound(f"Item with id '{item_id}' not found in this conversation.", code="not_found")
