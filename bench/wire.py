"""Is this reply whole and right? The checks that the load generator makes on every one.

They are strict and cheap: msgspec reads only the fields that are looked at. A reply that is
wrong is described in a few words, so that a broken run says what broke.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["plain", "stream", "chat", "chat-stream"]


class _Text(msgspec.Struct):
    text: str


class _Message(msgspec.Struct):
    content: list[_Text]


class _Response(msgspec.Struct):
    status: str
    output: list[_Message]


class _Event(msgspec.Struct):
    type: str
    sequence_number: int
    delta: str = ""


class _ChatDelta(msgspec.Struct):
    content: str | None = None


class _ChatChoice(msgspec.Struct):
    delta: _ChatDelta = msgspec.field(default_factory=_ChatDelta)
    message: _ChatDelta = msgspec.field(default_factory=_ChatDelta)
    finish_reason: str | None = None


class _Chat(msgspec.Struct):
    choices: list[_ChatChoice]


_read_response = msgspec.json.Decoder(_Response).decode
_read_event = msgspec.json.Decoder(_Event).decode
_read_chat = msgspec.json.Decoder(_Chat).decode


def fault(kind: Kind, status: int, body: bytes, text: str, deltas: int) -> str | None:
    """What is wrong with a reply, or None.

    Args:
        kind: `plain` and `stream` are Responses, `chat` and `chat-stream` Chat Completions.
        status: of HTTP.
        body: the whole of it, without transfer coding.
        text: the answer that it must hold.
        deltas: pieces in which a stream must bring it.
    """
    if status != 200:
        return f"status {status}: {body[:200].decode(errors='replace')}"
    try:
        match kind:
            case "plain":
                return _plain(_read_response(body), text)
            case "stream":
                return _stream(body, text, deltas)
            case "chat":
                return _same(_read_chat(body).choices[0].message.content or "", text)
            case "chat-stream":
                return _chat_stream(body, text, deltas)
    except (msgspec.MsgspecError, IndexError, AttributeError, ValueError) as error:
        return f"not understood: {type(error).__name__}: {error}"


def _plain(response: _Response, text: str) -> str | None:
    if response.status != "completed":
        return f"response is {response.status}"
    return _same(response.output[0].content[0].text, text)


def _stream(body: bytes, text: str, deltas: int) -> str | None:
    said: list[str] = []
    last = ""
    for expected, data in enumerate(_data(body)):
        event = _read_event(data)
        if event.sequence_number != expected:
            return f"sequence number {event.sequence_number} where {expected} belongs"
        last = event.type
        if last == "response.output_text.delta":
            said.append(event.delta)
    if last != "response.completed":
        return f"the last event is {last or 'missing'}"
    return _count(len(said), deltas) or _same("".join(said), text)


def _chat_stream(body: bytes, text: str, deltas: int) -> str | None:
    said: list[str] = []
    finish: str | None = None
    blocks = _data(body)
    if not blocks or blocks.pop() != b"[DONE]":
        return "[DONE] is missing"
    for data in blocks:
        for choice in _read_chat(data).choices:
            if choice.delta.content:
                said.append(choice.delta.content)
            finish = choice.finish_reason or finish
    if finish != "stop":
        return f"finish_reason is {finish}"
    return _count(len(said), deltas) or _same("".join(said), text)


def _data(body: bytes) -> list[bytes]:
    """The data of each event; comments are passed over."""
    if not body.endswith(b"\n\n"):
        raise ValueError("the stream ends within an event")
    # An event's name comes before its data and never holds this mark, so the first one counts.
    parts = (block.partition(b"data: ") for block in body.split(b"\n\n"))
    return [data for _, mark, data in parts if mark]


def _count(got: int, expected: int) -> str | None:
    return None if got == expected else f"{got} deltas instead of {expected}"


def _same(got: str, expected: str) -> str | None:
    return None if got == expected else f"the text is {got[:60]!r} instead of {expected[:60]!r}"
