"""A reply that is not whole and right is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.scripted import BURST, LONG, PACED, SHORT, cut, text_of, write_script
from bench.wire import Kind, fault

from ouzel.engines.scripted import load_script, tokenize


def responses(words: list[str], last: str = "response.completed") -> bytes:
    """A stream of the Responses API, as far as the check looks."""
    kinds = ["response.created", *["response.output_text.delta"] * len(words), last]
    events = [{"type": kind, "sequence_number": n} for n, kind in enumerate(kinds)]
    for event, word in zip(events[1:], words, strict=False):
        event["delta"] = word
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def chat(words: list[str], finish: str | None = "stop") -> bytes:
    """A stream of Chat Completions, as far as the check looks."""
    choices = [{"delta": {"content": word}} for word in words]
    chunks = [json.dumps({"choices": [choice]}) for choice in choices]
    chunks.append(json.dumps({"choices": [{"delta": {}, "finish_reason": finish}]}))
    return "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"]).encode()


def plain(text: str, status: str = "completed") -> bytes:
    return json.dumps({"status": status, "output": [{"content": [{"text": text}]}]}).encode()


def one(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


GOOD = [
    ("plain", plain("a b")),
    ("stream", responses(["a", " b"])),
    ("stream", b": keep-alive\n\n" + responses(["a", " b"])),
    ("chat", one("a b")),
    ("chat-stream", chat(["a", " b"])),
]


@pytest.mark.parametrize(("kind", "body"), GOOD)
def test_a_right_reply_has_no_fault(kind: Kind, body: bytes) -> None:
    assert fault(kind, 200, body, "a b", 2) is None


@pytest.mark.parametrize(("kind", "body"), GOOD)
def test_a_cut_reply_has_one_wherever_it_is_cut(kind: Kind, body: bytes) -> None:
    for end in range(len(body)):
        assert fault(kind, 200, body[:end], "a b", 2) is not None, body[:end]


@pytest.mark.parametrize(("kind", "body"), GOOD)
def test_the_status_and_the_text_count(kind: Kind, body: bytes) -> None:
    assert "503" in str(fault(kind, 503, body, "a b", 2))
    assert "text" in str(fault(kind, 200, body, "a c", 2))


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("plain", plain("a b", "incomplete"), "incomplete"),
        ("stream", responses(["a", " b"], "response.failed"), "response.failed"),
        ("stream", responses(["a b"]), "1 deltas"),
        ("stream", responses(["a", " b"]).replace(b'number": 2', b'number": 3'), "sequence"),
        ("stream", responses(["a", " b"]).partition(b"\n\n")[2], "sequence"),
        ("stream", responses(["a", " b"]) * 2, "sequence"),
        ("stream", b"", "ends within"),
        ("chat-stream", chat(["a", " b"], None), "finish_reason"),
        ("chat-stream", chat(["a", " b"], "length"), "finish_reason"),
        ("chat-stream", chat(["a", " b"]).replace(b"[DONE]", b"{}"), "DONE"),
        ("chat-stream", chat(["a", "", " ", "b"]), "3 deltas"),
    ],
)
def test_a_wrong_reply_is_described(kind: Kind, body: bytes, why: str) -> None:
    assert why in str(fault(kind, 200, body, "a b", 2))


def test_the_script_gives_as_many_tokens_as_it_says(tmp_path: Path) -> None:
    script = load_script(write_script(tmp_path / "bench.toml"))
    for reply, played in zip((SHORT, BURST, PACED, LONG), script.replies, strict=True):
        assert played.match == f"^{reply.name}$"
        assert len(tokenize(text_of(reply.words))) == reply.words


def test_a_cut_stream_has_one_delta_in_each_chunk() -> None:
    stream = responses(["a", " b", " c"]).decode()
    chunks = cut(stream)
    assert "".join(chunks) == stream
    assert [chunk.count('"response.output_text.delta"') for chunk in chunks] == [1, 1, 1]
