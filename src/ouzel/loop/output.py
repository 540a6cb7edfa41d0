"""What an engine says and tools do -> items and events, in the order that `core.events` promises.

One `Output` collects one run's output over all its turns. It is a pure state machine: it makes
events, and whoever owns it sends them. It does not know engines, time or storage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from ouzel.core.events import (
    Annotated,
    Channel,
    Delta,
    Event,
    ItemDone,
    ItemStage,
    ItemStarted,
    PartDone,
    PartStarted,
)
from ouzel.core.files import ContainerFile
from ouzel.core.items import (
    Annotation,
    Call,
    CodeCall,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    ItemStatus,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    new_id,
)
from ouzel.loop.citing import places

INTERRUPTED: Final = "The call was interrupted."

_THOUGHT: Final = ("reasoning", "summary")
"""Channels of a reasoning item; the others that come in pieces belong to a message."""


class Output:
    """Collects deltas into items.

    Attributes:
        seal: seals thinking when it is finished, so that every reader gets the same; None seals
            none.
        items: the items so far, in order; hosted calls stand here while they run.
    """

    def __init__(self, seal: Callable[[str], str] | None = None) -> None:
        self.seal = seal
        self.items: list[Item] = []
        self._open: Message | Reasoning | None = None
        self._channel: Channel | None = None
        self._part = 0
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._annotations: list[Annotation] = []
        self._writing: CodeCall | None = None
        self._running: dict[str, int] = {}

    @property
    def open(self) -> bool:
        """Whether a message, some thinking or some code has begun that is not finished."""
        return self._open is not None or self._writing is not None

    @property
    def answered(self) -> bool:
        """Whether something was said to the client, or it was asked to run something."""
        said = [self._open, *self.items]
        return any(isinstance(item, Message | FunctionCall | CustomCall) for item in said)

    @property
    def open_text(self) -> str:
        """Text of an answer that is under way, if that is all there is of it so far."""
        plain = self._channel == "text" and not self._annotations
        first = isinstance(self._open, Message) and not self._open.parts
        return "".join(self._pieces) if plain and first else ""

    @property
    def running(self) -> bool:
        """Whether a tool of ours was begun and has not ended."""
        return bool(self._running)

    def replay(self, event: Event) -> None:
        """Be as it was after one more event that was made before."""
        match event:
            case ItemStarted(item=Message() | Reasoning() as item):
                self._open = item
            case ItemStarted(item=item):
                self._running[item.id] = len(self.items)
                self.items.append(item)
            case PartStarted(item_id=item_id, channel=channel, part=part):
                self._replay_part(item_id, channel, part)
            case Delta(text=text, logprobs=logprobs):
                self._pieces.append(text)
                self._logprobs.extend(logprobs)
            case Annotated(annotation=annotation):
                self._annotations.append(annotation)
            case PartDone():
                self._replay_part_done(event)
            case ItemStage(item_id=item_id, stage=stage):
                self.stage(item_id, stage)
            case ItemDone(item=Message() | Reasoning() as item):
                self.items.append(item)
                self._open = None
            case ItemDone(item=item):
                self.items[self._running.pop(item.id)] = item

    def _replay_part(self, item_id: str, channel: Channel, part: int) -> None:
        if self._open is not None:
            self._channel, self._part = channel, part
            return
        item = self.items[self._running[item_id]]
        if isinstance(item, CodeCall):
            self._writing = item

    def _replay_part_done(self, event: PartDone) -> None:
        if self._open is not None:
            self._end_part()
        elif self._writing is not None:
            self.close_code()
        else:
            item = self.items[self._running[event.item_id]]
            if isinstance(item, HostedCall):
                self.items[event.index] = replace(item, arguments=event.text)
        self._pieces, self._logprobs = [], []

    def say(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> list[Event]:
        """The next piece of the answer."""
        return self._more("text", text, logprobs)

    def refuse(self, text: str) -> list[Event]:
        """The next piece of the model's words for declining."""
        return self._more("refusal", text, ())

    def think(self, text: str) -> list[Event]:
        """The next piece of the thinking."""
        return self._more("reasoning", text, ())

    def summarise(self, text: str) -> list[Event]:
        """The next piece of the summary of the thinking that is open."""
        return self._more("summary", text, ())

    def next_summary(self) -> list[Event]:
        """Finish a summary's paragraph; what comes next is another."""
        return self._end_part() if self._channel == "summary" else []

    def call(self, call: Call) -> list[Event]:
        """A call that the client is to run, whole."""
        events = self.close()
        index = len(self.items)
        self.items.append(call)
        if isinstance(call, FunctionCall):
            channel: Channel = "arguments"
            empty: Call = replace(call, arguments="", status="in_progress")
            text = call.arguments
        else:
            channel, text = "input", call.input
            empty = replace(call, input="", status="in_progress")
        return [
            *events,
            ItemStarted(index, empty),
            *_whole(index, call.id, channel, text),
            ItemDone(index, call),
        ]

    def begin(self, item: Item, arguments: str) -> list[Event]:
        """A tool of ours starts to run; it is shown as `item` from now on.

        Args:
            arguments: what it was called with, as it is shown to the client; code is shown as
                the item has it.
        """
        if isinstance(item, CodeCall):
            if item.id in self._running:  # shown while it was written
                return []
            return [*self.open_code(item), *self.more_code(item.code), *self.close_code()]
        events = self.close()
        index = len(self.items)
        self.items.append(item)
        self._running[item.id] = index
        shown = replace(item, arguments="") if isinstance(item, HostedCall) else item
        events.append(ItemStarted(index, shown))
        if isinstance(item, HostedCall):
            events += _whole(index, item.id, "arguments", arguments)
        return events

    def open_code(self, item: CodeCall) -> list[Event]:
        """The model begins to write code that is to be run; it is shown while it is written."""
        events = self.close()
        index = len(self.items)
        self._writing = replace(item, code="", status="in_progress")
        self.items.append(self._writing)
        self._running[item.id] = index
        return [
            *events,
            ItemStarted(index, self._writing),
            PartStarted(index, item.id, 0, "code"),
        ]

    def more_code(self, text: str) -> list[Event]:
        """The next piece of the code that is open."""
        item = self._writing
        assert item is not None  # noqa: S101  # `open_code` came before
        self._pieces.append(text)
        return [Delta(self._running[item.id], item.id, 0, "code", text)]

    def close_code(self) -> list[Event]:
        """The code is whole; it counts as running until `finish`."""
        item = self._writing
        assert item is not None  # noqa: S101  # `open_code` came before
        code, index = "".join(self._pieces), self._running[item.id]
        self._pieces, self._writing = [], None
        self.items[index] = replace(item, code=code)
        return [PartDone(index, item.id, 0, "code", code)]

    def cite(self, files: Sequence[ContainerFile]) -> list[Event]:
        """What is said of these files in the open part of the answer.

        To be called when the part is whole: what is said later becomes another part.
        """
        if not files or self._channel == "refusal":
            return []
        events = [] if self._channel == "text" else self._begin("text")
        item, index = self._open, len(self.items)
        assert item is not None  # noqa: S101  # _begin has seen to it
        for citation in places("".join(self._pieces), files):
            number = len(self._annotations)
            events.append(Annotated(index, item.id, self._part, number, citation))
            self._annotations.append(citation)
        return events

    def stage(self, item_id: str, name: str) -> list[Event]:
        """A running tool has come to another stage."""
        running = self.items[self._running[item_id]]
        if isinstance(running, CodeCall) and name == "interpreting":
            self.items[self._running[item_id]] = replace(running, status="interpreting")
        return [ItemStage(self._running[item_id], item_id, name)]

    def finish(self, item: Item) -> list[Event]:
        """A tool of ours has ended; `item` is what is kept of it.

        Of code that is kept which was shown.
        """
        unwritten = self._writing is not None and self._writing.id == item.id
        events = self.close_code() if unwritten else []
        index = self._running.pop(item.id)
        shown = self.items[index]
        if isinstance(item, CodeCall) and isinstance(shown, CodeCall):
            item = replace(item, code=shown.code)
        self.items[index] = item
        return [*events, ItemDone(index, item)]

    def close(self, status: ItemStatus = "completed") -> list[Event]:
        """Finish what is open; nothing if nothing is.

        Tools that still run are finished too where the end is not a good one. Code that is still
        being written is incomplete.
        """
        events = self._end_part()
        if self._writing is not None:
            index = self._running[self._writing.id]
            events += self.close_code()
            unwritten = self.items[index]
            assert isinstance(unwritten, CodeCall)  # noqa: S101  # `close_code` left it there
            events += self.finish(replace(unwritten, status="incomplete"))
        if self._open is not None:
            item = replace(self._open, status=status)
            if self.seal is not None and isinstance(item, Reasoning) and item.text:
                item = replace(item, sealed=self.seal(item.text))
            events.append(ItemDone(len(self.items), item))
            self.items.append(item)
            self._open = None
        if status != "completed":
            for index in list(self._running.values()):
                running = self.items[index]
                if isinstance(running, HostedCall):
                    running = replace(running, status="failed", error=INTERRUPTED)
                elif isinstance(running, CodeCall):
                    running = replace(running, status="failed", result=INTERRUPTED)
                elif isinstance(running, FunctionCall | CustomCall):
                    running = replace(running, status="incomplete")
                events += self.finish(running)
        return events

    def _more(self, channel: Channel, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[Event]:
        goes_on = channel == self._channel and not self._annotations
        events = [] if goes_on else self._begin(channel)
        self._pieces.append(text)
        self._logprobs.extend(logprobs)
        index = len(self.items)
        item = self._open
        assert item is not None  # noqa: S101  # _begin has seen to it
        events.append(Delta(index, item.id, self._part, channel, text, logprobs))
        return events

    def _begin(self, channel: Channel) -> list[Event]:
        thought = channel in _THOUGHT
        events = self._end_part()
        if self._open is None or isinstance(self._open, Reasoning) != thought:
            # Also ends code that is being written.
            events += self.close()
            fresh: Message | Reasoning
            if thought:
                fresh = Reasoning(new_id("rs"), status="in_progress")
            else:
                fresh = Message(new_id("msg"), "assistant", (), "in_progress")
            self._open = fresh
            events.append(ItemStarted(len(self.items), fresh))
        item = self._open
        self._channel = channel
        self._part = _parts_of(item, channel)
        events.append(PartStarted(len(self.items), item.id, self._part, channel))
        return events

    def _end_part(self) -> list[Event]:
        channel, item = self._channel, self._open
        if channel is None or item is None:
            return []
        text, logprobs = "".join(self._pieces), tuple(self._logprobs)
        annotations = tuple(self._annotations)
        if isinstance(item, Message):
            part: Part = (
                Refusal(text) if channel == "refusal" else Text(text, logprobs, annotations)
            )
            self._open = replace(item, parts=(*item.parts, part))
        elif channel == "summary":
            self._open = replace(item, summary=(*item.summary, text))
        else:
            self._open = replace(item, text=item.text + text)
        self._channel = None
        self._pieces, self._logprobs, self._annotations = [], [], []
        index = len(self.items)
        return [PartDone(index, item.id, self._part, channel, text, logprobs, annotations)]


def _parts_of(item: Message | Reasoning, channel: Channel) -> int:
    if isinstance(item, Message):
        return len(item.parts)
    return len(item.summary) if channel == "summary" else 0


def _whole(index: int, item_id: str, channel: Channel, text: str) -> list[Event]:
    return [
        PartStarted(index, item_id, 0, channel),
        Delta(index, item_id, 0, channel, text),
        PartDone(index, item_id, 0, channel, text),
    ]
