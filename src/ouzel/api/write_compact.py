"""Writes what POST /v1/responses/compact answers. Pure."""

from __future__ import annotations

from typing import Any

from ouzel.answer import Compacted
from ouzel.api import write_items, write_responses


def compacted(value: Compacted) -> dict[str, Any]:
    """A `response.compaction`: the user's messages, and the item that stands for everything."""
    return {
        "id": value.id,
        "object": "response.compaction",
        "created_at": int(value.created_at),
        "output": [write_items.item(each) for each in value.output],
        "usage": write_responses.usage(value.usage),
    }
