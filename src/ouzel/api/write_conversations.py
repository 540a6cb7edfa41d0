"""Writes conversations and pages of their items as OpenAI's API has them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ouzel.api import write_items
from ouzel.core.contracts_state import Conversation, PageOf
from ouzel.core.items import Item


def conversation(value: Conversation) -> dict[str, Any]:
    """A `conversation` object."""
    return {
        "id": value.id,
        "object": "conversation",
        "created_at": int(value.created_at),
        "metadata": dict(value.metadata),
    }


def deleted(conversation_id: str) -> dict[str, Any]:
    """What deleting a conversation is answered with."""
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


def page(items: PageOf[Item], include: Collection[str] = ()) -> dict[str, Any]:
    """A page of a conversation's items.

    Args:
        include: what the client asked to see beside the rest.
    """
    entries = items.entries
    # An empty page has no ids, but the types ask for strings.
    return {
        "object": "list",
        "data": [write_items.item(entry, include) for entry in entries],
        "first_id": entries[0].id if entries else "",
        "last_id": entries[-1].id if entries else "",
        "has_more": items.more,
    }
