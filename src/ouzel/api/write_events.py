"""What of a run's events goes over the wire of the Responses API: names and fields.

`NAMES` is the one table from our events to theirs. Pure; how events become a stream, and what
the response around them is, `write_responses` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ouzel.api import write_items
from ouzel.api.writing import encode, logprobs
from ouzel.core.events import (
    Annotated,
    Delta,
    Event,
    ItemDone,
    ItemStage,
    ItemStarted,
    PartDone,
    PartStarted,
    RunFinished,
)
from ouzel.core.items import CodeCall, FunctionCall, HostedCall, Item

Include = Collection[str]
"""What the client asked to see beside the rest."""

# (kind of event, kind of item, channel, stage or final status) -> wire events, in this order.
# A stage that is not here has no place on the wire.
NAMES: Mapping[tuple[str, str | None, str | None], tuple[str, ...]] = {
    ("run_queued", None, None): ("response.created", "response.queued"),
    ("run_started", None, None): ("response.created", "response.in_progress"),
    ("item_started", "message", None): ("response.output_item.added",),
    ("item_started", "reasoning", None): ("response.output_item.added",),
    ("item_started", "function_call", None): ("response.output_item.added",),
    ("item_started", "custom_call", None): ("response.output_item.added",),
    ("item_started", "hosted_call", None): (
        "response.output_item.added",
        "response.mcp_call.in_progress",
    ),
    ("item_started", "code_call", None): (
        "response.output_item.added",
        "response.code_interpreter_call.in_progress",
    ),
    ("part_started", "message", "text"): ("response.content_part.added",),
    ("part_started", "message", "refusal"): ("response.content_part.added",),
    ("part_started", "reasoning", "reasoning"): ("response.content_part.added",),
    ("part_started", "reasoning", "summary"): ("response.reasoning_summary_part.added",),
    # A call has one part, which the API does not announce.
    ("part_started", "function_call", "arguments"): (),
    ("part_started", "custom_call", "input"): (),
    ("part_started", "hosted_call", "arguments"): (),
    ("part_started", "code_call", "code"): (),
    ("delta", "message", "text"): ("response.output_text.delta",),
    ("delta", "message", "refusal"): ("response.refusal.delta",),
    ("delta", "reasoning", "reasoning"): ("response.reasoning_text.delta",),
    ("delta", "reasoning", "summary"): ("response.reasoning_summary_text.delta",),
    ("delta", "function_call", "arguments"): ("response.function_call_arguments.delta",),
    ("delta", "custom_call", "input"): ("response.custom_tool_call_input.delta",),
    ("delta", "hosted_call", "arguments"): ("response.mcp_call_arguments.delta",),
    ("delta", "code_call", "code"): ("response.code_interpreter_call_code.delta",),
    ("annotated", "message", None): ("response.output_text.annotation.added",),
    ("part_done", "message", "text"): (
        "response.output_text.done",
        "response.content_part.done",
    ),
    ("part_done", "message", "refusal"): (
        "response.refusal.done",
        "response.content_part.done",
    ),
    ("part_done", "reasoning", "reasoning"): (
        "response.reasoning_text.done",
        "response.content_part.done",
    ),
    ("part_done", "reasoning", "summary"): (
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
    ),
    ("part_done", "function_call", "arguments"): ("response.function_call_arguments.done",),
    ("part_done", "custom_call", "input"): ("response.custom_tool_call_input.done",),
    ("part_done", "hosted_call", "arguments"): ("response.mcp_call_arguments.done",),
    ("part_done", "code_call", "code"): ("response.code_interpreter_call_code.done",),
    # Notes for the server itself.
    ("step_done", None, None): (),
    ("run_resumed", None, None): (),
    ("item_started", "compaction", None): ("response.output_item.added",),
    ("item_done", "compaction", None): ("response.output_item.done",),
    ("item_stage", "code_call", "interpreting"): ("response.code_interpreter_call.interpreting",),
    ("item_done", "message", None): ("response.output_item.done",),
    ("item_done", "reasoning", None): ("response.output_item.done",),
    ("item_done", "function_call", None): ("response.output_item.done",),
    ("item_done", "custom_call", None): ("response.output_item.done",),
    ("item_done", "hosted_call", "completed"): (
        "response.mcp_call.completed",
        "response.output_item.done",
    ),
    ("item_done", "hosted_call", "failed"): (
        "response.mcp_call.failed",
        "response.output_item.done",
    ),
    ("item_done", "code_call", "completed"): (
        "response.code_interpreter_call.completed",
        "response.output_item.done",
    ),
    # The API has no event for code that could not be run: the item's status says it.
    ("item_done", "code_call", "failed"): ("response.output_item.done",),
    ("run_finished", None, "completed"): ("response.completed",),
    ("run_finished", None, "incomplete"): ("response.incomplete",),
    ("run_finished", None, "failed"): ("response.failed",),
    # The types know no event for a cancelled run: it is incomplete, its status says why.
    ("run_finished", None, "cancelled"): ("response.incomplete",),
}


def _place(event: PartStarted | Delta | PartDone) -> dict[str, Any]:
    place: dict[str, Any] = {"item_id": event.item_id, "output_index": event.index}
    index = _PART_INDEX.get(event.channel)
    return place if index is None else {**place, index: event.part}


_PART_INDEX = {
    "text": "content_index",
    "refusal": "content_index",
    "reasoning": "content_index",
    "summary": "summary_index",
}
"""How parts are counted; what calls are made of is not."""


def _part_added(event: PartStarted, _: Item, __: Include) -> dict[str, Any]:
    return {**_place(event), "part": write_items.output_part(event.channel, "")}


def _text_done(event: PartDone, _: Item, __: Include) -> dict[str, Any]:
    whole: dict[str, Any] = {"refusal" if event.channel == "refusal" else "text": event.text}
    if event.channel == "text":
        whole["logprobs"] = logprobs(event.logprobs, [])
    return {**_place(event), **whole}


def _arguments_done(event: PartDone, item: Item, _: Include) -> dict[str, Any]:
    # The reference asks for the function's name here; MCP's calls have none.
    name = {"name": item.name} if isinstance(item, FunctionCall) else {}
    return {**_place(event), **name, "arguments": event.text}


def _input_done(event: PartDone, _: Item, __: Include) -> dict[str, Any]:
    return {**_place(event), "input": event.text}


def _part_done(event: PartDone, _: Item, __: Include) -> dict[str, Any]:
    part = write_items.output_part(event.channel, event.text, event.logprobs, event.annotations)
    return {**_place(event), "part": part}


def _code_done(event: PartDone, _: Item, __: Include) -> dict[str, Any]:
    return {**_place(event), "code": event.text}


def _annotated(event: Annotated, _: Item, __: Include) -> dict[str, Any]:
    return {
        "item_id": event.item_id,
        "output_index": event.index,
        "content_index": event.part,
        "annotation_index": event.number,
        "annotation": write_items.annotation(event.annotation),
    }


def _item(event: ItemStarted | ItemDone, item: Item, include: Include) -> dict[str, Any]:
    return {"output_index": event.index, "item": write_items.item(item, include)}


def _item_place(
    event: ItemStarted | ItemDone | ItemStage, item: Item, _: Include
) -> dict[str, Any]:
    return {"output_index": event.index, "item_id": item.id}


# Wire event -> its fields, from the event that it is written for and its item. Deltas are not
# here: they are so many that `DeltaFrame` writes their bytes. Events about the whole run carry
# the response.
FIELDS: Mapping[str, Callable[[Any, Item, Include], dict[str, Any]]] = {
    "response.output_item.added": _item,
    "response.content_part.added": _part_added,
    "response.reasoning_summary_part.added": _part_added,
    "response.output_text.done": _text_done,
    "response.refusal.done": _text_done,
    "response.reasoning_text.done": _text_done,
    "response.reasoning_summary_text.done": _text_done,
    "response.content_part.done": _part_done,
    "response.reasoning_summary_part.done": _part_done,
    "response.output_item.done": _item,
    "response.function_call_arguments.done": _arguments_done,
    "response.mcp_call_arguments.done": _arguments_done,
    "response.custom_tool_call_input.done": _input_done,
    "response.code_interpreter_call_code.done": _code_done,
    "response.output_text.annotation.added": _annotated,
    "response.code_interpreter_call.in_progress": _item_place,
    "response.code_interpreter_call.interpreting": _item_place,
    "response.code_interpreter_call.completed": _item_place,
    "response.mcp_call.in_progress": _item_place,
    "response.mcp_call.completed": _item_place,
    "response.mcp_call.failed": _item_place,
}


class DeltaFrame:
    """The bytes around the text that all deltas of one part share."""

    def __init__(self, name: str, part: PartStarted) -> None:
        head = encode({"type": name, **_place(part)})[:-1]
        self._before = b"event: " + name.encode() + b"\ndata: " + head + b',"sequence_number":'
        self._has_logprobs = part.channel == "text"
        self._after = b',"logprobs":[]}\n\n' if self._has_logprobs else b"}\n\n"

    def write(self, sequence: int, event: Delta) -> bytes:
        """One delta, with its number in the stream."""
        after = self._after
        if event.logprobs and self._has_logprobs:
            after = b',"logprobs":%b}\n\n' % encode(logprobs(event.logprobs, []))
        return b'%b%d,"delta":%b%b' % (self._before, sequence, encode(event.text), after)


def key_of(event: Event, item: Item | None) -> tuple[str, str | None, str | None]:
    """Where in `NAMES` an event stands.

    Args:
        item: what it belongs to; None for events of the whole run.
    """
    kind = None if item is None else item.kind
    match event:
        case PartStarted() | Delta() | PartDone():
            return event.kind, kind, event.channel
        case ItemStage():
            return event.kind, kind, event.stage
        case ItemDone(item=HostedCall(status=status) | CodeCall(status=status)):
            return event.kind, kind, "completed" if status == "completed" else "failed"
        case RunFinished():
            return event.kind, None, event.status
        case _:
            return event.kind, kind, None
