"""Runs and events as the Responses API writes them.

`response` writes a run as the response object; `ResponseStream` writes its events, and ends with
that same object from that same function, so a plain reply and a streamed one cannot differ.
`NAMES` is the one table from our events to theirs. Everything here is pure: no I/O, no clock.
`docs/wire.md` says where the sources of the format disagree and how that was decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ouzel.api import write_items
from ouzel.api.writing import advance, encode, logprobs, unbegun
from ouzel.core.events import (
    Channel,
    Delta,
    Event,
    Failure,
    ItemDone,
    ItemStarted,
    PartDone,
    PartStarted,
    RunFinished,
)
from ouzel.core.items import Item
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
        "max_tool_calls": None,
        "metadata": dict(request.metadata),
        "model": run.model,
        "output": [write_items.item(entry) for entry in run.output],
        "parallel_tool_calls": True,
        "previous_response_id": request.previous_id,
        "prompt_cache_key": labels.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": labels.get("safety_identifier"),
        "service_tier": "default",
        "store": request.store,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
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


# (kind of event, kind of item, channel or final status) -> wire events, in this order.
NAMES: Mapping[tuple[str, str | None, str | None], tuple[str, ...]] = {
    ("run_queued", None, None): ("response.created", "response.queued"),
    ("run_started", None, None): ("response.created", "response.in_progress"),
    ("item_started", "message", None): ("response.output_item.added",),
    ("item_started", "reasoning", None): ("response.output_item.added",),
    ("part_started", "message", "text"): ("response.content_part.added",),
    ("part_started", "message", "refusal"): ("response.content_part.added",),
    ("part_started", "reasoning", "reasoning"): ("response.content_part.added",),
    ("part_started", "reasoning", "summary"): ("response.reasoning_summary_part.added",),
    ("delta", "message", "text"): ("response.output_text.delta",),
    ("delta", "message", "refusal"): ("response.refusal.delta",),
    ("delta", "reasoning", "reasoning"): ("response.reasoning_text.delta",),
    ("delta", "reasoning", "summary"): ("response.reasoning_summary_text.delta",),
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
    ("item_done", "message", None): ("response.output_item.done",),
    ("item_done", "reasoning", None): ("response.output_item.done",),
    ("run_finished", None, "completed"): ("response.completed",),
    ("run_finished", None, "incomplete"): ("response.incomplete",),
    ("run_finished", None, "failed"): ("response.failed",),
    # The types know no event for a cancelled run: it is incomplete, its status says why.
    ("run_finished", None, "cancelled"): ("response.incomplete",),
}


def _place(event: PartStarted | Delta | PartDone) -> dict[str, Any]:
    index = "summary_index" if event.channel == "summary" else "content_index"
    return {"item_id": event.item_id, "output_index": event.index, index: event.part}


def _part_added(event: PartStarted) -> dict[str, Any]:
    return {**_place(event), "part": write_items.output_part(event.channel, "")}


def _text_done(event: PartDone) -> dict[str, Any]:
    whole: dict[str, Any] = {"refusal" if event.channel == "refusal" else "text": event.text}
    if event.channel == "text":
        whole["logprobs"] = logprobs(event.logprobs, [])
    return {**_place(event), **whole}


def _part_done(event: PartDone) -> dict[str, Any]:
    part = write_items.output_part(event.channel, event.text, event.logprobs)
    return {**_place(event), "part": part}


def _item(event: ItemStarted | ItemDone) -> dict[str, Any]:
    return {"output_index": event.index, "item": write_items.item(event.item)}


# Wire event -> its fields, from the event that it is written for. Deltas are not here: they are
# so many that `_DeltaFrame` writes their bytes. Events about the whole run carry the response.
_FIELDS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
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
        self._kinds: dict[str, str] = {}
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
        if isinstance(event, ItemStarted):
            self._kinds[event.item.id] = event.item.kind
        names = NAMES[self._key(event)]
        if isinstance(event, PartStarted):
            (delta,) = NAMES["delta", self._kinds[event.item_id], event.channel]
            frame = _DeltaFrame(delta, event)
            self._frames[event.item_id, event.channel, event.part] = frame
        for name in names:
            if name == "response.created" and self._sequence:
                continue  # the run was queued before it started
            fields = _FIELDS.get(name)
            body = {"type": name, "sequence_number": self._sequence}
            body |= fields(event) if fields else {"response": self._response()}
            written.append(b"event: %b\ndata: %b\n\n" % (name.encode(), encode(body)))
            self._sequence += 1

    def _key(self, event: Event) -> tuple[str, str | None, str | None]:
        match event:
            case ItemStarted() | ItemDone():
                return event.kind, event.item.kind, None
            case PartStarted() | Delta() | PartDone():
                return event.kind, self._kinds[event.item_id], event.channel
            case RunFinished():
                return event.kind, None, event.status
            case _:
                return event.kind, None, None

    def _response(self) -> dict[str, Any]:
        return response(self.run, defaults=self._defaults)
