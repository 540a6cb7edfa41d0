"""Runs and events as the Responses API writes them.

`response` writes a run as the response object; `ResponseStream` writes its events, and ends with
that same object from that same function, so a plain reply and a streamed one cannot differ.
`NAMES` is the one table from our events to theirs. Everything here is pure: no I/O, no clock.
`docs/wire.md` says where the sources of the format disagree and how that was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal

from ouzel.api import write_items, write_tools
from ouzel.api.writing import advance, encode, logprobs, unbegun
from ouzel.core.events import (
    Channel,
    Delta,
    Event,
    Failure,
    ItemDone,
    ItemStage,
    ItemStarted,
    PartDone,
    PartStarted,
    RunFinished,
)
from ouzel.core.items import FunctionCall, HostedCall, Item
from ouzel.core.request import Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Usage

DEFAULTS = Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0, frequency_penalty=0.0)
"""What OpenAI's reference says holds for sampling that a request leaves open."""

_OWN_CODES = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})
"""Codes of `response.error` that we use: the SDK's type is a closed list."""

_ECHOED = ("user", "prompt_cache_retention")
"""Labels that are given back where they were sent; the reference has no null for them."""


def response(run: Run, *, defaults: Sampling = DEFAULTS) -> dict[str, Any]:
    """The response object of a run, however far it is.

    Args:
        run: the run.
        defaults: sampling that was in force where the request left it open.
    """
    request, labels = run.request, run.request.labels
    body = {
        "id": run.id,
        "object": "response",
        "created_at": int(run.created_at),
        "status": run.status,
        "background": False,
        "completed_at": _completed_at(run),
        "error": _error(run.failure) if run.failure else None,
        "incomplete_details": {"reason": run.incomplete} if run.incomplete else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": dict(request.metadata),
        "model": run.model,
        "output": [write_items.item(entry) for entry in run.output],
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_id,
        "prompt_cache_key": labels.get("prompt_cache_key"),
        "reasoning": {"effort": request.effort, "summary": request.summary},
        "safety_identifier": labels.get("safety_identifier"),
        "service_tier": "default",
        "store": request.store,
        "text": write_tools.text(request),
        "tool_choice": write_tools.tool_choice(request.tool_choice, request.tools),
        "tools": [write_tools.tool(each) for each in request.tools],
        "truncation": "disabled",
        "usage": _usage(run.usage) if run.usage else None,
    }
    body.update(_sampling(request.sampling, defaults))
    body.update((name, labels[name]) for name in _ECHOED if name in labels)
    return body


def _completed_at(run: Run) -> int | None:
    if run.status != "completed" or run.finished_at is None:
        return None
    return int(run.finished_at)


def _sampling(asked: Sampling, defaults: Sampling) -> dict[str, Any]:
    knobs = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
    written: dict[str, Any] = {}
    for knob in knobs:
        value = getattr(asked, knob)
        written[knob] = getattr(defaults, knob) if value is None else value
    written["top_logprobs"] = asked.top_logprobs or 0
    return written


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        # The type asks for writes to the cache; no engine counts any apart from its input.
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _error(failure: Failure) -> dict[str, str]:
    if failure.code in _OWN_CODES:
        code = failure.code
    elif failure.status == 429:
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if failure.status < 500 else "server_error"
    return {"code": code, "message": failure.message}


def input_items(
    items: Sequence[Item],
    *,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """A page of what a response was asked. Arguments and errors as `write_items.page`."""
    return write_items.page(items, after=after, limit=limit, order=order)


def deleted(response_id: str) -> dict[str, Any]:
    """What deleting a response is answered with."""
    return {"id": response_id, "object": "response", "deleted": True}


def input_tokens(count: int) -> dict[str, Any]:
    """What counting a request's input tokens is answered with."""
    return {"object": "response.input_tokens", "input_tokens": count}


# (kind of event, kind of item, channel, stage or final status) -> wire events, in this order.
# A stage that is not here has no place on the wire; the items that there are have none there.
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
    ("part_started", "message", "text"): ("response.content_part.added",),
    ("part_started", "message", "refusal"): ("response.content_part.added",),
    ("part_started", "reasoning", "reasoning"): ("response.content_part.added",),
    ("part_started", "reasoning", "summary"): ("response.reasoning_summary_part.added",),
    # A call has one part, which the API does not announce.
    ("part_started", "function_call", "arguments"): (),
    ("part_started", "custom_call", "input"): (),
    ("part_started", "hosted_call", "arguments"): (),
    ("delta", "message", "text"): ("response.output_text.delta",),
    ("delta", "message", "refusal"): ("response.refusal.delta",),
    ("delta", "reasoning", "reasoning"): ("response.reasoning_text.delta",),
    ("delta", "reasoning", "summary"): ("response.reasoning_summary_text.delta",),
    ("delta", "function_call", "arguments"): ("response.function_call_arguments.delta",),
    ("delta", "custom_call", "input"): ("response.custom_tool_call_input.delta",),
    ("delta", "hosted_call", "arguments"): ("response.mcp_call_arguments.delta",),
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


def _part_added(event: PartStarted, _: Item) -> dict[str, Any]:
    return {**_place(event), "part": write_items.output_part(event.channel, "")}


def _text_done(event: PartDone, _: Item) -> dict[str, Any]:
    whole: dict[str, Any] = {"refusal" if event.channel == "refusal" else "text": event.text}
    if event.channel == "text":
        whole["logprobs"] = logprobs(event.logprobs, [])
    return {**_place(event), **whole}


def _arguments_done(event: PartDone, item: Item) -> dict[str, Any]:
    # The reference asks for the function's name here; MCP's calls have none.
    name = {"name": item.name} if isinstance(item, FunctionCall) else {}
    return {**_place(event), **name, "arguments": event.text}


def _input_done(event: PartDone, _: Item) -> dict[str, Any]:
    return {**_place(event), "input": event.text}


def _part_done(event: PartDone, _: Item) -> dict[str, Any]:
    part = write_items.output_part(event.channel, event.text, event.logprobs)
    return {**_place(event), "part": part}


def _item(event: ItemStarted | ItemDone, item: Item) -> dict[str, Any]:
    return {"output_index": event.index, "item": write_items.item(item)}


def _item_place(event: ItemStarted | ItemDone, item: Item) -> dict[str, Any]:
    return {"output_index": event.index, "item_id": item.id}


# Wire event -> its fields, from the event that it is written for and its item. Deltas are not
# here: they are so many that `_DeltaFrame` writes their bytes. Events about the whole run carry
# the response.
_FIELDS: Mapping[str, Callable[[Any, Item], dict[str, Any]]] = {
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
    "response.mcp_call.in_progress": _item_place,
    "response.mcp_call.completed": _item_place,
    "response.mcp_call.failed": _item_place,
}


class _DeltaFrame:
    """The bytes around the text that all deltas of one part share."""

    def __init__(self, name: str, part: PartStarted) -> None:
        head = encode({"type": name, **_place(part)})[:-1]
        self._before = b"event: " + name.encode() + b"\ndata: " + head + b',"sequence_number":'
        self._has_logprobs = part.channel == "text"
        self._after = b',"logprobs":[]}\n\n' if self._has_logprobs else b"}\n\n"

    def write(self, sequence: int, event: Delta) -> bytes:
        after = self._after
        if event.logprobs and self._has_logprobs:
            after = b',"logprobs":%b}\n\n' % encode(logprobs(event.logprobs, []))
        return b'%b%d,"delta":%b%b' % (self._before, sequence, encode(event.text), after)


class ResponseStream:
    """Writes the events of one run as server-sent events.

    `sequence_number` counts from 0 without gaps, whatever the batches are: the same events give
    the same bytes. After the event for `RunFinished` the stream is over.

    Args:
        run: the run whose events come; how far it is does not matter.
        defaults: as for `response`.
    """

    def __init__(self, run: Run, *, defaults: Sampling = DEFAULTS) -> None:
        self.run = unbegun(run)
        self._defaults = defaults
        self._sequence = 0
        self._items: dict[str, Item] = {}
        self._done: dict[int, Item] = {}
        self._frames: dict[tuple[str, Channel, int], _DeltaFrame] = {}

    def write(self, events: Sequence[Event]) -> bytes:
        """The bytes of a batch of events, ready to be sent.

        Args:
            events: in the order that `core.events` allows; parts are begun before their deltas.
        """
        written: list[bytes] = []
        for event in events:
            if isinstance(event, Delta):
                frame = self._frames[event.item_id, event.channel, event.part]
                written.append(frame.write(self._sequence, event))
                self._sequence += 1
            else:
                self._write(event, written)
        return b"".join(written)

    def _write(self, event: Event, written: list[bytes]) -> None:
        self.run = advance(self.run, event)
        if isinstance(event, ItemStarted | ItemDone):
            self._items[event.item.id] = event.item
        if isinstance(event, ItemDone):
            # Tools that run side by side end in any order; the output keeps that of the indexes.
            self._done[event.index] = event.item
            output = tuple(item for _, item in sorted(self._done.items(), key=itemgetter(0)))
            self.run = replace(self.run, output=output)
        key = self._key(event)
        names = NAMES.get(key, ()) if isinstance(event, ItemStage) else NAMES[key]
        if isinstance(event, PartStarted):
            (delta,) = NAMES["delta", self._items[event.item_id].kind, event.channel]
            frame = _DeltaFrame(delta, event)
            self._frames[event.item_id, event.channel, event.part] = frame
        for name in names:
            if name == "response.created" and self._sequence:
                continue  # the run was queued before it started
            fields = _FIELDS.get(name)
            body = {"type": name, "sequence_number": self._sequence}
            item = self._item_of(event)
            body |= fields(event, item) if fields and item else {"response": self._response()}
            written.append(b"event: %b\ndata: %b\n\n" % (name.encode(), encode(body)))
            self._sequence += 1

    def _item_of(self, event: Event) -> Item | None:
        """The item that the event belongs to, None for events of the whole run."""
        match event:
            case ItemStarted() | ItemDone():
                return event.item
            case PartStarted() | Delta() | PartDone() | ItemStage():
                return self._items[event.item_id]
            case _:
                return None

    def _key(self, event: Event) -> tuple[str, str | None, str | None]:
        item = self._item_of(event)
        kind = None if item is None else item.kind
        match event:
            case PartStarted() | Delta() | PartDone():
                return event.kind, kind, event.channel
            case ItemStage():
                return event.kind, kind, event.stage
            case ItemDone(item=HostedCall(status=status)):
                return event.kind, kind, "completed" if status == "completed" else "failed"
            case RunFinished():
                return event.kind, None, event.status
            case _:
                return event.kind, kind, None

    def _response(self) -> dict[str, Any]:
        return response(self.run, defaults=self._defaults)
