"""Strict checks of what is kept between requests: conversations, stored Chat Completions.

As `checks.py`, with the same types behind it; nothing of Ouzel is imported.
"""

from __future__ import annotations

import json
from typing import Any

from wire import checks
from wire.item_checks import same
from wire.wire_schema import ECHOED, open_item, valid


def check_conversation(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A `conversation` object."""
    found = _parsed(body)
    valid("conversation", found)
    assert found["id"].startswith("conv_"), f"odd id {found['id']!r}"
    assert all(type(value) is str for value in found["metadata"].values())
    return found


def check_item(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """An item of a conversation."""
    found = _parsed(body)
    valid("conversation.item", found)
    open_item(found)
    return found


def check_items(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A page of a conversation's items."""
    found = _parsed(body)
    valid("conversation.items", found)
    for item in found["data"]:
        check_item(item)
    return _page(found)


def check_stored(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A `chat.completion` object that was stored: what it always is, and what was asked for."""
    found = _parsed(body)
    valid("chat.completion.stored", found)
    same(set(ECHOED) - set(found), set(), "what is not repeated")
    assert type(found["metadata"]) is dict
    checks.check_chat({name: value for name, value in found.items() if name not in ECHOED})
    return found


def check_stored_page(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A page of stored completions."""
    found = _parsed(body)
    for completion in found["data"]:
        check_stored(completion)
    return _page(found)


def check_messages(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A page of the messages of a stored completion."""
    found = _parsed(body)
    for message in found["data"]:
        # The SDK's type says that all are the assistant's; the reference's example does not.
        assert message["role"] in ("developer", "system", "user", "assistant", "tool")
        valid("chat.message", {**message, "role": "assistant", "content_parts": None})
        same({"name", "content", "refusal", "content_parts"} - set(message), set(), "missing")
        for part in message["content_parts"] or ():
            same(set(part), {"type", part["type"]}, "a part")
    return _page(found)


def check_gone(body: bytes | dict[str, Any], object_id: str) -> None:
    """What deleting a conversation or a stored completion is answered with."""
    found = _parsed(body)
    kind = "conversation.deleted" if object_id.startswith("conv_") else "chat.completion.deleted"
    valid(kind, found)
    same(found, {"id": object_id, "object": kind, "deleted": True}, "the answer to deleting")


def _page(found: dict[str, Any]) -> dict[str, Any]:
    same(set(found), {"object", "data", "first_id", "last_id", "has_more"}, "the page's fields")
    same(found["object"], "list", "object")
    assert type(found["has_more"]) is bool
    ids = [entry["id"] for entry in found["data"]]
    assert len(ids) == len(set(ids)), f"ids repeat: {ids}"
    same(found["first_id"], ids[0] if ids else "", "first_id")
    same(found["last_id"], ids[-1] if ids else "", "last_id")
    return found


def _parsed(body: bytes | dict[str, Any]) -> dict[str, Any]:
    return json.loads(body) if isinstance(body, bytes) else body
