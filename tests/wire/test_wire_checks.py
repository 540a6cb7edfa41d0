"""The checks themselves: a stream that is wrong in one place is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from wire.checks import (
    check_chat,
    check_chat_stream,
    check_error,
    check_input_items,
    check_response,
    check_response_stream,
)
from wire.wire_scenarios import GOLDEN

Events = list[dict[str, Any]]
_WRONG = (AssertionError, ValidationError)


def _events(name: str) -> Events:
    blocks = (GOLDEN / name).read_bytes().decode().split("\n\n")[:-1]
    return [json.loads(block.partition("data: ")[2]) for block in blocks if "[DONE]" not in block]


def _responses(events: Events) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def _chat(events: Events) -> bytes:
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)


def _find(events: Events, name: str) -> dict[str, Any]:
    return next(event for event in events if event["type"] == name)


def _renumbered(events: Events) -> None:
    for number, event in enumerate(events):
        event["sequence_number"] = number


def _drop(name: str) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        events.remove(_find(events, name))
        _renumbered(events)

    return change


def _set(name: str, *path: Any) -> Callable[[Events], None]:
    *steps, last, value = path

    def change(events: Events) -> None:
        place: Any = _find(events, name)
        for step in steps:
            place = place[step]
        place[last] = value

    return change


def _twice(name: str) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        event = _find(events, name)
        events.insert(events.index(event), dict(event))
        _renumbered(events)

    return change


_RESPONSE_FAULTS: dict[str, Callable[[Events], None]] = {
    "a gap": _set("response.output_text.delta", "sequence_number", 99),
    "a number as text": _set("response.output_text.delta", "sequence_number", "5"),
    "a field too many": _set("response.output_text.delta", "bogus", 1),
    "a field too many in an item": _set("response.output_item.done", "item", "bogus", 1),
    "no created": _drop("response.created"),
    "no in_progress": _drop("response.in_progress"),
    "no end": _drop("response.completed"),
    "two ends": _twice("response.completed"),
    "no item begun": _drop("response.output_item.added"),
    "no item done": _drop("response.output_item.done"),
    "no part begun": _drop("response.content_part.added"),
    "no part done": _drop("response.content_part.done"),
    "no text done": _drop("response.output_text.done"),
    "a delta lost": _drop("response.output_text.delta"),
    "a delta twice": _twice("response.output_text.delta"),
    "no logprobs field": lambda e: _find(e, "response.output_text.delta").pop("logprobs"),
    "another item's id": _set("response.output_text.delta", "item_id", "msg_9"),
    "another id in the end": _set("response.completed", "response", "id", "resp_9"),
    "another model in the end": _set("response.completed", "response", "model", "big"),
    "an item changed in the end": _set("response.completed", "response", "output", 0, "id", "x"),
    "an item lost in the end": _set("response.completed", "response", "output", []),
    "a wrong index": _set("response.output_item.done", "output_index", 1),
    "an item that begins ended": _set("response.output_item.added", "item", "status", "completed"),
    "a status of another end": _set("response.completed", "response", "status", "failed"),
    "no usage": _set("response.completed", "response", "usage", None),
    "a wrong sum": _set("response.completed", "response", "usage", "total_tokens", 1),
    "an error code of our own": _set(
        "response.completed", "response", "error", {"code": "oops", "message": "m"}
    ),
    "a response field lost": lambda e: _find(e, "response.created")["response"].pop("tools"),
}  # fmt: skip


@pytest.mark.parametrize("fault", _RESPONSE_FAULTS)
def test_a_response_stream_with_a_fault_is_found_out(fault: str) -> None:
    events = _events("responses-text.sse")
    check_response_stream(_responses(events))
    _RESPONSE_FAULTS[fault](events)
    with pytest.raises(_WRONG):
        check_response_stream(_responses(events))


_CHAT_FAULTS: dict[str, Callable[[Events], None]] = {
    "no role": lambda e: e.pop(0),
    "a role twice": lambda e: e.insert(0, e[0]),
    "no end": lambda e: e.pop(-2),
    "two ends": lambda e: e.insert(-2, e[-2]),
    "usage promised and not given": lambda e: e.pop(),
    "usage twice": lambda e: e.append(e[-1]),
    "another id": lambda e: e[2].update(id="chatcmpl-9"),
    "no OpenAI id": lambda e: [chunk.update(id="resp_0") for chunk in e],
    "a field too many": lambda e: e[2].update(bogus=1),
    "a delta field too many": lambda e: e[2]["choices"][0]["delta"].update(bogus="x"),
    "an unknown reason": lambda e: e[-2]["choices"][0].update(finish_reason="because"),
    "a time with a fraction": lambda e: e[2].update(created=1.5),
    "a wrong sum": lambda e: e[-1]["usage"].update(total_tokens=1),
}


@pytest.mark.parametrize("fault", _CHAT_FAULTS)
def test_a_chat_stream_with_a_fault_is_found_out(fault: str) -> None:
    events = _events("chat-usage.sse")
    done = b"data: [DONE]\n\n"
    check_chat_stream(_chat(events) + done)
    _CHAT_FAULTS[fault](events)
    with pytest.raises(_WRONG):
        check_chat_stream(_chat(events) + done)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: [DONE]\n\n",
        b"data: [DONE]\n",
        b"data: {}\n\ndata: [DONE]\n\n",
        b"data: [DONE]\r\n\r\n",
    ],
)
def test_what_is_no_stream_is_found_out(data: bytes) -> None:
    with pytest.raises(_WRONG):
        check_chat_stream(data)
    with pytest.raises(_WRONG):
        check_response_stream(data)


def test_nothing_may_follow_an_error() -> None:
    data = (GOLDEN / "chat-failed.sse").read_bytes()
    chunk = data[: data.index(b"\n\n") + 2]
    with pytest.raises(AssertionError, match="after the error"):
        check_chat_stream(data.replace(b"data: [DONE]", chunk + b"data: [DONE]"))


def test_signs_of_life_are_no_events() -> None:
    data = (GOLDEN / "responses-text.sse").read_bytes()
    alive = b": keep-alive\n\n"
    assert check_response_stream(alive + data.replace(b"\n\n", b"\n\n" + alive)).text


def test_a_raw_line_separator_is_found_out() -> None:
    data = (GOLDEN / "responses-text.sse").read_bytes()
    with pytest.raises(AssertionError, match="line end"):
        check_response_stream(data.replace(b"\\u2028", "\u2028".encode()))


@pytest.mark.parametrize("field", ["store", "presence_penalty", "tool_choice", "metadata"])
def test_a_response_without_one_of_its_fields_is_found_out(field: str) -> None:
    body = json.loads((GOLDEN / "responses-text.json").read_bytes())
    del body[field]
    with pytest.raises(_WRONG):
        check_response(body)


def test_json_that_is_none_is_found_out() -> None:
    body = (GOLDEN / "responses-text.json").read_bytes()
    with pytest.raises(AssertionError, match="NaN"):
        check_response(body.replace(b'"temperature":1.0', b'"temperature":NaN'))


def test_other_bodies_with_faults_are_found_out() -> None:
    completion = json.loads((GOLDEN / "chat-two.json").read_bytes())
    completion["choices"].reverse()
    with pytest.raises(AssertionError):
        check_chat(completion)
    page = json.loads((GOLDEN / "responses-input-items.json").read_bytes())
    with pytest.raises(AssertionError):
        check_input_items({**page, "last_id": "msg_1"})
    error = {"message": "m", "type": "t", "param": None, "code": None}
    check_error({"error": error})
    for name in error:
        with pytest.raises(_WRONG):
            check_error({"error": {key: value for key, value in error.items() if key != name}})
