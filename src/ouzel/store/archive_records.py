"""What is in an archive of one owner's data: its members, and the lines in them.

    head.json                 format, owner, when
    runs/N.jsonl              a run, then its events; another run, ...
    conversations/N.jsonl     a conversation, then its items; ...
    batches/N.jsonl           a batch, then its lines; ...
    files/ID.json             a file's description, and right behind it
    files/ID.bin              its bytes
    end.json                  count and checksum (`archive_tar.py`)

A line is a JSON object with a `kind`; what belongs to something stands behind it. Bodies are the
records as the database has them, so what is in them is what `codec.py` reads and writes. Members
with lines are about a megabyte each. docs/retention.md describes all this for people.

This file does not know the database, nor how a tar is made.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

HEAD: Final = "head.json"
FORMAT: Final = 1
MEMBER_BYTES: Final = 2**20
"""A member with lines is closed behind the line with which it has as many."""

LINE_BYTES: Final = 512 * 2**20
"""Longest line; twice what one row of the database may hold."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,79}", re.ASCII)


def is_id(text: str) -> bool:
    """Whether it may be an id of ours: what becomes a file's name can do no harm."""
    return _ID.fullmatch(text) is not None


class Head(msgspec.Struct, forbid_unknown_fields=True):
    """Whose data it is.

    Args:
        created_at: seconds since the epoch.
        version: the Ouzel that wrote it; for people.
    """

    format: int
    owner: str
    created_at: float
    version: str = ""


class RunLine(msgspec.Struct, tag_field="kind", tag="run", forbid_unknown_fields=True):
    """A response or a stored completion."""

    body: msgspec.Raw


class EventsLine(msgspec.Struct, tag_field="kind", tag="events", forbid_unknown_fields=True):
    """Some of the events of the run before it, from a position on."""

    run: str
    position: int
    body: msgspec.Raw


class ConversationLine(
    msgspec.Struct, tag_field="kind", tag="conversation", forbid_unknown_fields=True
):
    """A conversation."""

    id: str
    created_at: float
    metadata: msgspec.Raw


class ItemLine(msgspec.Struct, tag_field="kind", tag="item", forbid_unknown_fields=True):
    """An item of the conversation before it."""

    conversation: str
    position: int
    body: msgspec.Raw


class BatchLine(msgspec.Struct, tag_field="kind", tag="batch", forbid_unknown_fields=True):
    """A batch that has ended."""

    body: msgspec.Raw


class BatchLineLine(msgspec.Struct, tag_field="kind", tag="line", forbid_unknown_fields=True):
    """A line of the batch before it; request and result as base64, since they may be any bytes."""

    batch: str
    number: int
    status: str
    request: bytes
    result: bytes | None = None


class FileRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A file's description."""

    id: str
    name: str
    size: int
    purpose: str
    created_at: float
    expires_at: float | None = None


Line = RunLine | EventsLine | ConversationLine | ItemLine | BatchLine | BatchLineLine
