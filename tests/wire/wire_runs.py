"""Runs and their events with fixed ids and clocks, for golden transcripts and generated tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ouzel.core.events import (
    Annotated,
    Channel,
    Delta,
    Event,
    Failure,
    IncompleteReason,
    ItemDone,
    ItemStage,
    ItemStarted,
    PartDone,
    PartStarted,
    RunFinished,
    RunQueued,
    RunStarted,
)
from ouzel.core.items import (
    Annotation,
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
)
from ouzel.core.request import Request, Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Usage

CREATED = 1_760_000_000.25
FINISHED = 1_760_000_003.75
USAGE = Usage(input_tokens=21, cached_tokens=16, output_tokens=9, reasoning_tokens=0)

Piece = tuple[str, tuple[TokenLogprob, ...]]
"""What one delta brings."""


@dataclass(frozen=True)
class Said:
    """One part of an item: its channel and what its deltas bring."""

    channel: Channel
    pieces: Sequence[Piece]
    annotations: tuple[Annotation, ...] = ()

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return tuple(token for _, tokens in self.pieces for token in tokens)


def said(channel: Channel, *texts: str) -> Said:
    """A part without log-probabilities."""
    return Said(channel, [(text, ()) for text in texts])


def request(protocol: Literal["chat", "responses"], **changes: Any) -> Request:
    asked = Message("msg_in", "user", (Text("Say hello."),))
    return replace(Request(protocol, "o4-mini", (asked,)), **changes)


def responses_run(**changes: Any) -> Run:
    return Run("resp_0", "local", "tiny", CREATED, request("responses", **changes))


def chat_run(**changes: Any) -> Run:
    return Run("chatcmpl-0", "local", "tiny", CREATED, request("chat", **changes))


def logprobs_wanted(top: int) -> Sampling:
    return Sampling(top_logprobs=top)


def item_events(index: int, parts: Sequence[Said], status: ItemStatus) -> list[Event]:
    """All events of one item; it is a message unless its first part is thinking."""
    thinking = bool(parts) and parts[0].channel in ("reasoning", "summary")
    item_id = f"rs_{index}" if thinking else f"msg_{index}"
    empty: Item = Reasoning(item_id) if thinking else Message(item_id, "assistant", ())
    events: list[Event] = [ItemStarted(index, replace(empty, status="in_progress"))]
    counts = {"content": 0, "summary": 0}
    for part in parts:
        group = "summary" if part.channel == "summary" else "content"
        place = (index, item_id, counts[group], part.channel)
        counts[group] += 1
        events.append(PartStarted(*place))
        events.extend(Delta(*place, text, tokens) for text, tokens in part.pieces)
        for number, annotation in enumerate(part.annotations):
            events.append(Annotated(*place[:3], number, annotation))
        events.append(PartDone(*place, part.text, part.logprobs, part.annotations))
    if thinking:
        whole: Item = Reasoning(
            item_id,
            "".join(part.text for part in parts if part.channel == "reasoning"),
            tuple(part.text for part in parts if part.channel == "summary"),
            status,
        )
    else:
        whole = Message(item_id, "assistant", tuple(map(_message_part, parts)), status)
    return [*events, ItemDone(index, whole)]


CallItem = FunctionCall | CustomCall | HostedCall


def called(index: int, whole: CallItem, *pieces: str) -> list[Event]:
    """All events of one call; the pieces joined are what it is made of."""
    channel: Channel = "input" if isinstance(whole, CustomCall) else "arguments"
    place = (index, whole.id, 0, channel)
    empty: dict[str, Any] = {channel: "", "status": "in_progress"}
    if isinstance(whole, HostedCall):
        empty |= {"output": None, "error": None}
    return [
        ItemStarted(index, replace(whole, **empty)),
        PartStarted(*place),
        *(Delta(*place, piece) for piece in pieces),
        PartDone(*place, "".join(pieces)),
        ItemDone(index, replace(whole, **{channel: "".join(pieces)})),
    ]


def ran(index: int, whole: CodeCall, *pieces: str) -> list[Event]:
    """All events of one piece of code that was run; the pieces joined are the code."""
    place = (index, whole.id, 0, "code")
    code = "".join(pieces)
    empty = replace(whole, code="", outputs=(), result="", status="in_progress")
    events: list[Event] = [ItemStarted(index, empty), PartStarted(*place)]
    events += [Delta(*place, piece) for piece in pieces]
    events.append(PartDone(*place, code))
    if whole.status != "incomplete":
        events.append(ItemStage(index, whole.id, "interpreting"))
    return [*events, ItemDone(index, replace(whole, code=code))]


def run_of(*items: Sequence[Event], usage: Usage = USAGE) -> list[Event]:
    """All events of a completed run, from the events of its items."""
    events = [event for each in items for event in each]
    return [RunStarted(), *events, RunFinished("completed", usage, FINISHED)]


def _message_part(part: Said) -> Part:
    if part.channel == "refusal":
        return Refusal(part.text)
    return Text(part.text, part.logprobs, part.annotations)


def run_events(
    *items: Sequence[Said],
    status: Literal["completed", "incomplete", "failed", "cancelled"] = "completed",
    usage: Usage = USAGE,
    failure: Failure | None = None,
    incomplete: IncompleteReason | None = None,
    queued: bool = False,
) -> list[Event]:
    """All events of one run. The last item is incomplete where the run is not completed."""
    events: list[Event] = [RunQueued(), RunStarted()] if queued else [RunStarted()]
    for index, parts in enumerate(items):
        cut = status != "completed" and index == len(items) - 1
        events.extend(item_events(index, parts, "incomplete" if cut else "completed"))
    counted = usage if status in ("completed", "incomplete") else Usage()
    events.append(RunFinished(status, counted, FINISHED, failure, incomplete))
    return events
