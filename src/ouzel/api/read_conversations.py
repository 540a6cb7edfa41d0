"""Reads the bodies of conversations: their metadata, and the items that are put into them.

What an item may be, `read_items` knows; this file knows how many there may be, and where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ouzel.api.read_common import COMMON
from ouzel.api.read_errors import missing
from ouzel.api.read_items import items_reader
from ouzel.api.reading import Reader, record
from ouzel.core.items import Item

MOST_ITEMS: Final = 20
"""Items that a client may put into a conversation at once, as the reference has it."""

_METADATA: Mapping[str, Reader] = {"metadata": COMMON["metadata"]}
_ITEMS: Mapping[str, Reader] = {"items": items_reader(MOST_ITEMS)}

_CREATE = record({**_METADATA, **_ITEMS})
_ADD = record(_ITEMS, required=("items",))
_UPDATE = record(_METADATA)


@dataclass(frozen=True, slots=True)
class NewConversation:
    """What a conversation begins with."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    items: tuple[Item, ...] = ()


def read_create(body: dict[str, Any]) -> NewConversation:
    """Read the body of POST /v1/conversations. Raises RequestError."""
    given = _CREATE(body, ())
    return NewConversation(given.get("metadata", {}), given.get("items", ()))


def read_items(body: dict[str, Any]) -> tuple[Item, ...]:
    """Read the body of POST /v1/conversations/{id}/items. Raises RequestError."""
    items: tuple[Item, ...] = _ADD(body, ())["items"]
    return items


def read_metadata(body: dict[str, Any]) -> Mapping[str, str]:
    """Read a body that says nothing but what the metadata are from now on; null clears them.

    Stored completions are changed by the same body. Raises RequestError.
    """
    if "metadata" not in body:
        _UPDATE(body, ())  # what is there instead is named first
        raise missing(("metadata",))
    found: Mapping[str, str] = _UPDATE(body, ()).get("metadata", {})
    return found
