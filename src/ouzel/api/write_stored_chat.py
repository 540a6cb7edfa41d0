"""Writes Chat Completions that were stored: the object, pages of it, the messages it answers.

A stored completion is what `write_chat.completion` makes of its runs, and what its request asked
for beside it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from ouzel.api import write_chat
from ouzel.api.read_errors import literal
from ouzel.api.write_responses import DEFAULTS
from ouzel.core.contracts_state import Order
from ouzel.core.errors import RequestError
from ouzel.core.items import CallOutput, File, Image, Item, Message, Part, Refusal
from ouzel.core.request import (
    CustomTool,
    Format,
    FunctionTool,
    HostedTool,
    ToolChoice,
    ToolSpec,
)
from ouzel.core.runs import Run

_KNOBS: tuple[Literal["temperature", "top_p", "presence_penalty", "frequency_penalty"], ...] = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
)


def stored(runs: Sequence[Run]) -> dict[str, Any]:
    """The `chat.completion` object of stored runs, one for each choice, in their order.

    Raises:
        ValueError: as `write_chat.completion`.
    """
    request = runs[0].request
    plain = request.format == Format()
    chosen = request.tools or request.tool_choice != ToolChoice()
    body = {
        **write_chat.completion(runs),
        "metadata": dict(request.metadata),
        "input_user": request.labels.get("user"),
        "request_id": None,  # nobody wrote it down
        "response_format": None if plain else _format(request.format),
        "seed": request.sampling.seed,
        "tool_choice": tool_choice(request.tool_choice, request.tools) if chosen else None,
        "tools": [tool(each) for each in request.tools] or None,
    }
    for knob in _KNOBS:
        value = getattr(request.sampling, knob)
        body[knob] = getattr(DEFAULTS, knob) if value is None else value
    return body


def deleted(completion_id: str) -> dict[str, Any]:
    """What deleting a stored completion is answered with."""
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


def page(entries: Sequence[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page of completions or messages. An empty one has no ids; the types ask for strings."""
    return {
        "object": "list",
        "data": list(entries),
        "first_id": entries[0]["id"] if entries else "",
        "last_id": entries[-1]["id"] if entries else "",
        "has_more": more,
    }


# The messages that were sent.


def messages(run: Run, *, after: str | None, limit: int, order: Order) -> dict[str, Any]:
    """A page of the messages that a completion answers; each has the place it was sent at in its
    id.

    Args:
        run: the completion's first choice.
        after: id of the message after which, in the order asked for, the page begins.

    Raises:
        RequestError: there is no message with the id `after`.
    """
    turns = list(enumerate(_turns(run.request.input)))
    if order == "desc":
        turns.reverse()
    ids = [f"{run.id}-{place}" for place, _ in turns]
    start = 0
    if after is not None:
        if after not in ids:
            raise RequestError(
                f"No message with id {literal(after)} in this list.",
                param="after",
                code="invalid_value",
            )
        start = ids.index(after) + 1
    chosen = range(start, min(start + limit, len(turns)))
    written = [{"id": ids[at], **_message(turns[at][1])} for at in chosen]
    return page(written, start + limit < len(turns))


_STAGES = {
    "reasoning": 0,
    "hosted_call": 1,
    "code_call": 1,
    "message": 2,
    "function_call": 3,
    "custom_call": 3,
}
"""In which order `read_messages` makes items of one message of the assistant."""

_ONCE = (0, 2)
"""Stages of which a message has one item at most."""


def _turns(items: Sequence[Item]) -> Iterator[list[Item]]:
    """The items message by message, as `read_messages` made them."""
    turn: list[Item] = []
    reached = 0
    for item in items:
        if isinstance(item, CallOutput) or (isinstance(item, Message) and _is_alone(item)):
            if turn:
                yield turn
            yield [item]
            turn = []
            continue
        stage = _STAGES[item.kind]
        if turn and (stage < reached or (stage == reached and stage in _ONCE)):
            yield turn
            turn = []
        turn.append(item)
        reached = stage
    if turn:
        yield turn


def _is_alone(message: Message) -> bool:
    return message.role != "assistant"


def _message(turn: list[Item]) -> dict[str, Any]:
    """One message. What was said in parts is there whole, and in its parts."""
    parts: tuple[Part, ...] = ()
    name = None
    written: dict[str, Any]
    match turn[0]:
        case CallOutput() as output:
            parts = output.parts
            written = {"role": "tool", "tool_call_id": output.call_id, "content": output.text}
        case Message() as said if _is_alone(said):
            parts, name = said.parts, said.name
            written = {"role": said.role, "content": said.text}
        case _:
            written = write_chat.message(turn)
            for item in turn:
                if isinstance(item, Message):
                    name = item.name
                    parts = tuple(part for part in item.parts if not isinstance(part, Refusal))
    in_parts = len(parts) > 1 or any(isinstance(part, File | Image) for part in parts)
    return {
        "refusal": None,
        **written,
        "name": name,
        "content_parts": [_part(part) for part in parts] if in_parts else None,
    }


def _part(part: Part) -> dict[str, Any]:
    match part:
        case File():
            given = {"file_id": part.file_id, "filename": part.name}
            return {"type": "file", "file": {key: value for key, value in given.items() if value}}
        case Image():
            return {"type": "image_url", "image_url": {"url": part.url, "detail": part.detail}}
        case _:
            return {"type": "text", "text": part.text}


# Tools and formats as Chat Completions write them.


def tool(value: ToolSpec) -> dict[str, Any]:
    """A tool, as a request of this API offers it."""
    match value:
        case FunctionTool():
            parameters = msgspec.json.decode(value.parameters)
            rest = {"parameters": parameters, "strict": value.strict}
            return {"type": "function", "function": {**_named(value), **rest}}
        case CustomTool():
            return {"type": "custom", "custom": {**_named(value), "format": _input_format(value)}}
        case HostedTool():
            return {"type": value.type, **msgspec.json.decode(value.settings)}


def _named(value: FunctionTool | CustomTool) -> dict[str, Any]:
    described = {"description": value.description} if value.description else {}
    return {"name": value.name, **described}


def _input_format(value: CustomTool) -> dict[str, Any]:
    if value.grammar is None:
        return {"type": "text"}
    grammar = {"syntax": value.grammar.syntax, "definition": value.grammar.definition}
    return {"type": "grammar", "grammar": grammar}


def tool_choice(choice: ToolChoice, tools: Sequence[ToolSpec]) -> str | dict[str, Any]:
    """A tool choice, as a request of this API makes it.

    Args:
        tools: those it chooses from.
    """
    if choice.form == "mode":
        return choice.mode
    named = [_reference(name, tools) for name in choice.names or ()]
    if choice.form == "named":
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}


def _reference(name: str, tools: Sequence[ToolSpec]) -> dict[str, Any]:
    for value in tools:
        match value:
            case FunctionTool(name=known) if known == name:
                return {"type": "function", "function": {"name": name}}
            case CustomTool(name=known) if known == name:
                return {"type": "custom", "custom": {"name": name}}
    return {"type": name}  # hosted tools go by their type


def _format(value: Format) -> dict[str, Any]:
    if value.type != "json_schema":
        return {"type": value.type}
    asked: dict[str, Any] = {"name": value.name, "schema": msgspec.json.decode(value.schema)}
    if value.description is not None:
        asked["description"] = value.description
    if value.strict is not None:
        asked["strict"] = value.strict
    return {"type": "json_schema", "json_schema": asked}
