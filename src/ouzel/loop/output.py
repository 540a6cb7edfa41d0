"""What an engine says -> items and events, in the order that `core.events` promises.

One `Output` collects one run's output over all its turns. It is a pure state machine: it makes
events, and whoever owns it sends them. It does not know engines, time or storage.
"""

from __future__ import annotations

from ouzel.core.events import Channel, Delta, Event, ItemDone, ItemStarted, PartDone, PartStarted
from ouzel.core.items import (
    Item,
    ItemStatus,
    Message,
    Reasoning,
    Text,
    TokenLogprob,
    new_id,
)


class Output:
    """Collects deltas into items.

    Attributes:
        items: the finished items, in order.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._open: Channel | None = None
        self._id = ""
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def open(self) -> bool:
        """Whether an item has begun that is not finished."""
        return self._open is not None

    def say(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> list[Event]:
        """The next piece of the answer."""
        return self._more("text", text, logprobs)

    def think(self, text: str) -> list[Event]:
        """The next piece of the thinking."""
        return self._more("reasoning", text, ())

    def close(self, status: ItemStatus = "completed") -> list[Event]:
        """Finish what is open; nothing if nothing is."""
        if self._open is None:
            return []
        index, channel = len(self.items), self._open
        text, logprobs = "".join(self._pieces), tuple(self._logprobs)
        item = self._item(status, text, logprobs)
        self.items.append(item)
        self._open = None
        self._pieces, self._logprobs = [], []
        return [
            PartDone(index, self._id, 0, channel, text, logprobs),
            ItemDone(index, item),
        ]

    def _more(self, channel: Channel, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[Event]:
        events = [] if channel == self._open else self._begin(channel)
        self._pieces.append(text)
        self._logprobs.extend(logprobs)
        events.append(Delta(len(self.items), self._id, 0, channel, text, logprobs))
        return events

    def _begin(self, channel: Channel) -> list[Event]:
        events = self.close()
        self._open = channel
        self._id = new_id("rs" if channel == "reasoning" else "msg")
        index = len(self.items)
        return [
            *events,
            ItemStarted(index, self._item("in_progress")),
            PartStarted(index, self._id, 0, channel),
        ]

    def _item(
        self, status: ItemStatus, text: str = "", logprobs: tuple[TokenLogprob, ...] = ()
    ) -> Item:
        if self._open == "reasoning":
            return Reasoning(self._id, text, status=status)
        parts = (Text(text, logprobs),) if status != "in_progress" else ()
        return Message(self._id, "assistant", parts, status)
