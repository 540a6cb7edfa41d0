"""Runs and events as the Responses API writes them.

`response` writes a run as the response object; `ResponseStream` writes its events, and ends with
that same object from that same function, so a plain reply and a streamed one cannot differ.
`write_events` says which events and which fields those are. Everything here is pure: no I/O, no
clock. `docs/wire.md` says where the sources of the format disagree and how that was decided.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal

from ouzel.api import write_items, write_tools
from ouzel.api.write_events import FIELDS, NAMES, DeltaFrame, key_of
from ouzel.api.writing import advance, encode, unbegun
from ouzel.core.events import (
    Annotated,
    Channel,
    Delta,
    Event,
    Failure,
    ItemDone,
    ItemStage,
    ItemStarted,
    PartDone,
    PartStarted,
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


def response(
    run: Run, *, defaults: Sampling = DEFAULTS, include: Collection[str] = ()
) -> dict[str, Any]:
    """The response object of a run, however far it is.

    Args:
        run: the run.
        defaults: sampling that was in force where the request left it open.
        include: further parts of the output to show beside those that the request asked for.
    """
    request, labels = run.request, run.request.labels
    include = {*request.include, *include}
    body = {
        "id": run.id,
        "object": "response",
        "created_at": int(run.created_at),
        "status": run.status,
        "background": request.background,
        "completed_at": _completed_at(run),
        "error": _error(run.failure) if run.failure else None,
        "incomplete_details": {"reason": run.incomplete} if run.incomplete else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": dict(request.metadata),
        "model": run.model,
        "output": [write_items.item(entry, include) for entry in run.output],
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
        "truncation": request.truncation,
        "usage": usage(run.usage) if run.usage else None,
    }
    body.update(_sampling(request.sampling, defaults))
    body.update((name, labels[name]) for name in _ECHOED if name in labels)
    if request.conversation_id is not None:
        body["conversation"] = {"id": request.conversation_id}
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


def usage(used: Usage) -> dict[str, Any]:
    """Tokens, as the engine counted them."""
    return {
        "input_tokens": used.input_tokens,
        # The type asks for writes to the cache; no engine counts any apart from its input.
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.input_tokens + used.output_tokens,
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
    include: Collection[str] = (),
) -> dict[str, Any]:
    """A page of what a response was asked. Arguments and errors as `write_items.page`."""
    return write_items.page(items, after=after, limit=limit, order=order, include=include)


def deleted(response_id: str) -> dict[str, Any]:
    """What deleting a response is answered with."""
    return {"id": response_id, "object": "response", "deleted": True}


def input_tokens(count: int) -> dict[str, Any]:
    """What counting a request's input tokens is answered with."""
    return {"object": "response.input_tokens", "input_tokens": count}


class ResponseStream:
    """Writes the events of one run as server-sent events.

    `sequence_number` counts from 0 without gaps, whatever the batches are: the same events give
    the same bytes. After the event for `RunFinished` the stream is over.

    Args:
        run: the run whose events come; how far it is does not matter.
        defaults: as for `response`.
        start: number of the first event that is written; those before it only count.

    Attributes:
        sequence: number of the next event.
    """

    def __init__(self, run: Run, *, defaults: Sampling = DEFAULTS, start: int = 0) -> None:
        self.run = unbegun(run)
        self._defaults = defaults
        self._start = start
        self.sequence = 0
        self._items: dict[str, Item] = {}
        self._done: dict[int, Item] = {}
        self._frames: dict[tuple[str, Channel, int], DeltaFrame] = {}

    def write(self, events: Sequence[Event]) -> bytes:
        """The bytes of a batch of events, ready to be sent.

        Args:
            events: in the order that `core.events` allows; parts are begun before their deltas.
        """
        written: list[bytes] = []
        for event in events:
            if isinstance(event, Delta):
                if self.sequence >= self._start:
                    frame = self._frames[event.item_id, event.channel, event.part]
                    written.append(frame.write(self.sequence, event))
                self.sequence += 1
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
        item = self._item_of(event)
        key = key_of(event, item)
        names = NAMES.get(key, ()) if isinstance(event, ItemStage) else NAMES[key]
        if isinstance(event, PartStarted):
            (delta,) = NAMES["delta", self._items[event.item_id].kind, event.channel]
            frame = DeltaFrame(delta, event)
            self._frames[event.item_id, event.channel, event.part] = frame
        for name in names:
            if name == "response.created" and self.sequence:
                continue  # the run was queued before it started
            if self.sequence < self._start:
                self.sequence += 1
                continue
            fields = FIELDS.get(name)
            body = {"type": name, "sequence_number": self.sequence}
            if fields and item:
                body |= fields(event, item, self.run.request.include)
            else:
                body["response"] = self._response()
            written.append(b"event: %b\ndata: %b\n\n" % (name.encode(), encode(body)))
            self.sequence += 1

    def _item_of(self, event: Event) -> Item | None:
        """The item that the event belongs to, None for events of the whole run."""
        match event:
            case ItemStarted() | ItemDone():
                return event.item
            case PartStarted() | Delta() | Annotated() | PartDone() | ItemStage():
                return self._items[event.item_id]
            case _:
                return None

    def _response(self) -> dict[str, Any]:
        return response(self.run, defaults=self._defaults)
