"""Strict checks of everything that goes over the wire, for every test that sees wire bytes.

Every function takes what a client received, fails with an AssertionError or a ValidationError
that names what is wrong, and gives back what it parsed. Types are checked in `wire_schema.py`;
here it is checked that the fields and events agree with each other:

- `sequence_number` counts from 0 without gaps;
- one `response.created` first, one terminal event last, and nothing after it;
- items and parts open and close in order, with the same ids and indexes throughout; items overlap
  only where the server runs tools side by side;
- deltas joined are the text of the `.done` event, of its part, of its item;
- annotations count from 0 and lie within their text;
- calls in chunks have ids and names once, and places without gaps;
- the items that were streamed are the `output` of the final object.

It knows the format only: nothing of Ouzel is imported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from wire.item_checks import Items, same
from wire.wire_schema import open_item, valid

TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@dataclass(frozen=True)
class ResponseTranscript:
    """A checked stream of the Responses API.

    Args:
        events: the events' data, in order.
        response: the object in the terminal event.
    """

    events: list[dict[str, Any]]
    response: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The events' names, in order."""
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        """All text that was streamed as the answer."""
        return "".join(
            event["delta"] for event in self.events if event["type"] == "response.output_text.delta"
        )


@dataclass
class ChatTranscript:
    """A checked stream of Chat Completions.

    Args:
        chunks: the chunks, in order, without the error.
        finish: the finish reason of each choice that has one.
        calls: the calls of each choice that has some, put together as a message has them.
        hosted: the calls that the server ran itself, of each choice that has some.
        files: the files that they left, of each choice that has some.
        usage: what the usage chunk says, if there is one.
        error: the error that ended the stream, if one did.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)
    finish: dict[int, str] = field(default_factory=dict)
    calls: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    hosted: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    def text(self, index: int = 0, name: str = "content") -> str:
        """A choice's deltas of one field, joined."""
        deltas = [
            c["delta"] for chunk in self.chunks for c in chunk["choices"] if c["index"] == index
        ]
        return "".join(delta.get(name) or "" for delta in deltas)


def check_response(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A response object, at any point of its life."""
    response = _parsed(body)
    valid("response", response)
    status = response["status"]
    assert response["id"].startswith("resp_"), f"odd id {response['id']!r}"
    same(bool(response["error"]), status == "failed", "an error goes with `failed` only")
    same(
        bool(response["incomplete_details"]),
        status == "incomplete",
        "incomplete_details go with `incomplete` only",
    )
    same(
        response["completed_at"] is not None,
        status == "completed",
        "completed_at goes with `completed` only",
    )
    items = [item["id"] for item in response["output"]]
    assert len(items) == len(set(items)), f"item ids repeat: {items}"
    if status != "in_progress":
        for item in response["output"]:
            assert item.get("status") != "in_progress", f"{item['id']} is still in progress"
    if response["usage"] is not None:
        _check_usage(response["usage"], "input", "output")
    else:
        assert status not in ("completed", "incomplete"), f"{status} without usage"
    return response


def check_response_stream(sse: bytes) -> ResponseTranscript:
    """A whole stream of the Responses API, from its first byte to its last."""
    events = [_named_event(name, data) for name, data in _blocks(sse)]
    for number, event in enumerate(events):
        valid(event["type"], event)
        same(event["sequence_number"], number, f"sequence_number of {event['type']}")
    names = [event["type"] for event in events]
    same(names[:1], ["response.created"], "the first event")
    terminal = [name for name in names if name in TERMINAL]
    assert len(terminal) == 1, f"not exactly one terminal event: {terminal}"
    same(names[-1], terminal[0], "the last event")
    if "response.in_progress" in names:
        begun = names.index("response.in_progress")
        same(names[1:begun], ["response.queued"][: begun - 1], "what comes before in_progress")
    else:  # it was ended while it waited
        begun = 1
        same(names[1:-1], ["response.queued"], "what comes before the end of what never began")
    _check_lifecycle(events[: begun + 1], events[-1])
    streamed = Items()
    for event in events[begun + 1 : -1]:
        streamed.take(event)
    assert not streamed.open, f"not closed at the end: {streamed.open}"
    final = events[-1]["response"]
    same(streamed.done, final["output"], "the final output and the items that were streamed")
    return ResponseTranscript(events, final)


def _check_lifecycle(first: list[dict[str, Any]], last: dict[str, Any]) -> None:
    final = check_response(last["response"])
    statuses = {
        "response.completed": ("completed",),
        "response.incomplete": ("incomplete", "cancelled"),
        "response.failed": ("failed",),
    }
    assert final["status"] in statuses[last["type"]], f"{final['status']} in {last['type']}"
    queued = any(event["type"] == "response.queued" for event in first)
    changing = {"status", "output", "usage", "completed_at", "error", "incomplete_details"}
    for event in first:
        response = check_response(event["response"])
        waits = queued and event["type"] != "response.in_progress"
        same(response["status"], "queued" if waits else "in_progress", event["type"])
        same(response["output"], [], f"output in {event['type']}")
        for name in response.keys() - changing:
            same(response[name], final[name], f"{name} in {event['type']} and at the end")
        same(response.keys(), final.keys(), "the fields of the response")


def check_chat(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A `chat.completion` object."""
    completion = _parsed(body)
    valid("chat.completion", completion)
    assert completion["id"].startswith("chatcmpl-"), f"odd id {completion['id']!r}"
    indexes = [choice["index"] for choice in completion["choices"]]
    assert indexes, "no choices"
    same(indexes, list(range(len(indexes))), "the choices' indexes")
    for choice in completion["choices"]:
        calls = choice["message"].get("tool_calls")
        assert calls is None or calls, "an empty list of calls"
        _check_own(choice["message"], choice["message"]["content"] or "")
        called = choice["finish_reason"] == "tool_calls"
        assert not called or calls, f"choice {choice['index']} called nothing"
    if completion.get("usage") is not None:
        _check_usage(completion["usage"], "prompt", "completion")
    return completion


def check_chat_stream(sse: bytes, *, interrupted: bool = False) -> ChatTranscript:
    """A whole stream of Chat Completions, `[DONE]` included.

    Args:
        sse: everything that was received.
        interrupted: a choice was cancelled, so the usage that was announced may be missing.
    """
    blocks = _blocks(sse)
    assert all(name is None for name, _ in blocks), "a chunk has an `event:` line"
    lines = [data for _, data in blocks]
    same(lines[-1:], [b"[DONE]"], "the last line")
    seen = ChatTranscript()
    begun: set[int] = set()
    for line in lines[:-1]:
        assert seen.error is None, f"after the error came {line!r}"
        assert seen.usage is None, f"after the usage came {line!r}"
        body = _parsed(line)
        if "error" in body:
            seen.error = check_error(body)["error"]
            continue
        valid("chat.completion.chunk", body)
        assert body["id"].startswith("chatcmpl-"), f"odd id {body['id']!r}"
        if seen.chunks:
            constant = ("id", "created", "model", "service_tier", "system_fingerprint")
            for name in constant:
                same(body.get(name), seen.chunks[0].get(name), f"{name} of two chunks")
            same("usage" in body, "usage" in seen.chunks[0], "usage in two chunks")
        seen.chunks.append(body)
        if not body["choices"]:
            _check_usage(body["usage"], "prompt", "completion")
            seen.usage = body["usage"]
        for choice in body["choices"]:
            _check_choice(choice, begun, seen)
    if seen.error is None:
        assert begun, "nothing was said"
        for index in begun:
            own = {"hosted_tool_calls": seen.hosted, "container_files": seen.files}
            there = {name: lists[index] for name, lists in own.items() if index in lists}
            _check_own(there, seen.text(index))
        same(set(seen.finish), begun, "the choices that ended and those that began")
        announced = "usage" in seen.chunks[0]
        if seen.usage is not None or not interrupted:
            same(announced, seen.usage is not None, "usage announced and given")
    return seen


def _check_own(message: dict[str, Any], text: str) -> None:
    """The fields that are ours: what the server did by itself, and the files that it left."""
    for name in ("hosted_tool_calls", "container_files"):
        assert message.get(name, True), f"an empty list of {name}"
    for call in message.get("hosted_tool_calls", ()):
        valid(call["type"], call)
        assert call["status"] != "in_progress", f"{call['id']} is still in progress"
    for file in message.get("container_files", ()):
        valid("container_file_citation", {"type": "container_file_citation", **file})
        start, end = file["start_index"], file["end_index"]
        assert 0 <= start <= end <= len(text), f"a file from {start} to {end} of {len(text)}"


def _check_choice(choice: dict[str, Any], begun: set[int], seen: ChatTranscript) -> None:
    index = choice["index"]
    same("role" in choice["delta"], index not in begun, "a role comes first and once")
    assert index not in seen.finish, f"choice {index} goes on after its end"
    begun.add(index)
    for piece in choice["delta"].get("tool_calls") or ():
        _join_call(seen.calls.setdefault(index, []), piece)
    for name, lists in (("hosted_tool_calls", seen.hosted), ("container_files", seen.files)):
        for entry in choice["delta"].get(name, ()):
            entries = lists.setdefault(index, [])
            same(entry["index"], len(entries), f"index in {name}")
            entries.append({key: value for key, value in entry.items() if key != "index"})
    if choice["finish_reason"] is not None:
        seen.finish[index] = choice["finish_reason"]
        called = choice["finish_reason"] == "tool_calls"
        assert not called or seen.calls.get(index), f"choice {index} called nothing"


def _join_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Take the next piece of a call: first its id, type and name, then more of its text."""
    piece = dict(piece)
    place = piece.pop("index")
    if place == len(calls):
        same(set(piece), {"id", "type", piece["type"]}, "what a call begins with")
        kind = piece["type"]
        text = "arguments" if kind == "function" else "input"
        same(set(piece[kind]), {"name", text}, "what a call begins with")
        calls.append({**piece, kind: dict(piece[kind])})
        return
    assert place == len(calls) - 1, f"call {place} after {len(calls)} calls"
    call = calls[place]
    kind = call["type"]
    text = "arguments" if kind == "function" else "input"
    same(piece, {kind: {text: piece.get(kind, {}).get(text)}}, "what a call goes on with")
    call[kind][text] += piece[kind][text]


def check_error(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """An error body: all four fields, and words for a person."""
    parsed = _parsed(body)
    valid("error", parsed)
    same(set(parsed["error"]), {"message", "type", "param", "code"}, "the error's fields")
    assert parsed["error"]["message"].strip(), "an error without words"
    return parsed


def check_input_items(body: bytes | dict[str, Any]) -> dict[str, Any]:
    """A page of input items."""
    page = _parsed(body)
    valid("input_items", page)
    ids = [item["id"] for item in page["data"]]
    same(page["first_id"], ids[0] if ids else "", "first_id")
    same(page["last_id"], ids[-1] if ids else "", "last_id")
    for item in page["data"]:
        open_item(item)
    return page


def check_body(name: str, body: bytes | dict[str, Any]) -> dict[str, Any]:
    """Any other body: `model`, `models`, `deleted` or `input_tokens`."""
    parsed = _parsed(body)
    valid(name, parsed)
    return parsed


def _check_usage(usage: dict[str, Any], asked: str, answered: str) -> None:
    given, said = usage[f"{asked}_tokens"], usage[f"{answered}_tokens"]
    same(usage["total_tokens"], given + said, "total_tokens")
    cached = usage[f"{asked}_tokens_details"]["cached_tokens"]
    thought = usage[f"{answered}_tokens_details"]["reasoning_tokens"]
    assert 0 <= cached <= given, f"{cached} cached tokens of {given}"
    assert 0 <= thought <= said, f"{thought} reasoning tokens of {said}"


def _blocks(sse: bytes) -> list[tuple[str | None, bytes]]:
    """The events of a stream as (name, data), comments left out."""
    assert sse.endswith(b"\n\n"), f"the stream breaks off: {sse[-80:]!r}"
    assert b"\r" not in sse, "a carriage return between events"
    text = sse.decode("utf-8")
    assert len(text.splitlines()) == text.count("\n"), "a character that some take for a line end"
    found: list[tuple[str | None, bytes]] = []
    for block in sse[:-2].split(b"\n\n"):
        lines = [line for line in block.split(b"\n") if not line.startswith(b":")]
        if not lines:
            continue
        name = None
        if lines[0].startswith(b"event: "):
            name = lines.pop(0).removeprefix(b"event: ").decode()
        assert len(lines) == 1, f"not one line of data: {block!r}"
        assert lines[0].startswith(b"data: "), f"not one line of data: {block!r}"
        found.append((name, lines[0].removeprefix(b"data: ")))
    return found


def _named_event(name: str | None, data: bytes) -> dict[str, Any]:
    event = _parsed(data)
    assert name is not None, f"no `event:` line before {data!r}"
    same(name, event.get("type"), "the `event:` line and the type")
    return event


def _parsed(body: bytes | dict[str, Any]) -> dict[str, Any]:
    if isinstance(body, bytes):
        try:
            body = json.loads(body, parse_constant=_no_constant)
        except ValueError as error:
            raise AssertionError(f"not JSON: {body!r}") from error
    assert isinstance(body, dict), f"not an object: {body!r}"
    return body


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")
