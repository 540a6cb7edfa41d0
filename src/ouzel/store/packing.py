"""Pieces of text that follow each other, packed into one record.

A stream is mostly deltas that differ in nothing but their text. A few thousand of them, said at
once, take a twentieth of the room when packed, and are written in less than half the time. How
records become bytes, this file does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ouzel.core.events import Channel, Delta, Event


@dataclass(slots=True)
class Deltas:
    """Deltas of one part, one after the other, without log probabilities.

    Args:
        texts: of each of them.
    """

    index: int
    item_id: str
    part: int
    channel: Channel
    texts: list[str]
    kind: Literal["deltas"] = field(default="deltas", init=False)


def packed(events: Iterable[Event]) -> list[Event | Deltas]:
    """The events with deltas in a row as one record."""
    records: list[Event | Deltas] = []
    place: tuple[object, ...] | None = None
    texts: list[str] = []
    for event in events:
        if not isinstance(event, Delta) or event.logprobs:
            place = None
            records.append(event)
        elif (event.item_id, event.part, event.channel, event.index) == place:
            texts.append(event.text)
        else:
            place = (event.item_id, event.part, event.channel, event.index)
            texts = [event.text]
            records.append(Deltas(event.index, event.item_id, event.part, event.channel, texts))
    return records


def unpacked(records: Iterable[Event | Deltas]) -> tuple[Event, ...]:
    """The events of these records."""
    events: list[Event] = []
    for record in records:
        if isinstance(record, Deltas):
            place = (record.index, record.item_id, record.part, record.channel)
            events += [Delta(*place, text) for text in record.texts]
        else:
            events.append(record)
    return tuple(events)
