"""The wire format: requests written, streams read, whatever the bytes are."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.errors import EngineDied, EngineUnavailable, OuzelError, RequestError
from ouzel.core.items import TokenLogprob
from ouzel.core.request import Sampling
from ouzel.core.turns import (
    CallDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnCall,
    TurnMessage,
    Usage,
)
from ouzel.engines.upstream_failures import Overflow
from ouzel.engines.upstream_sse import MAX_EVENT, EventParser
from ouzel.engines.wire import UNLIKELY, TurnReader
from ouzel.engines.wire_turn import Dialect, write_turn

HELLO = Turn((TurnMessage("user", "Hi"),))


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason, **more}
    return event({"choices": [choice], "object": "chat.completion.chunk"})


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def counts(**more: Any) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return event({"choices": [], "usage": usage | more})


def read(*pieces: bytes, top: int | None = None) -> tuple[list[Any], TurnReader]:
    reader = TurnReader(top)
    deltas = [delta for piece in pieces for delta in reader.feed(piece)]
    if not reader.closed:
        deltas += reader.end()
    return deltas, reader


# --- requests -------------------------------------------------------------------------------


def test_a_plain_turn_is_written_with_nothing_that_was_not_asked_for() -> None:
    assert write_turn(HELLO, "m", stream=True) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "stream_options" not in write_turn(HELLO, "m", stream=False)


def test_every_knob_is_written() -> None:
    turn = Turn(
        (
            TurnMessage("developer", "Be brief."),
            TurnMessage("user", "Hi", name="ann"),
            TurnMessage("assistant", "Hello"),
        ),
        Sampling(
            temperature=0.0,
            top_p=0.5,
            presence_penalty=0.25,
            frequency_penalty=-1.0,
            seed=11,
            stop=("a", "b"),
            logit_bias={"7": -100},
            top_logprobs=5,
        ),
        max_tokens=3,
    )
    body = write_turn(turn, "m", stream=True)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": "Hello"},
    ]
    del body["model"], body["messages"], body["stream"], body["stream_options"]
    assert body == {
        "max_tokens": 3,
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": 0.25,
        "frequency_penalty": -1.0,
        "seed": 11,
        "stop": ["a", "b"],
        "logit_bias": {"7": -100},
        "logprobs": True,
        "top_logprobs": 5,
    }


CALLED = TurnMessage(
    "assistant", "", calls=(TurnCall("c1", "f", "{}"),), thinking="I shall call f.\n"
)


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("text", {"content": "<think>\nI shall call f.\n</think>\n\n"}),
        ("reasoning", {"content": None, "reasoning": "I shall call f.\n"}),
        ("reasoning_content", {"content": None, "reasoning_content": "I shall call f.\n"}),
        (None, {"content": None}),
    ],
)
def test_thinking_is_written_as_the_server_takes_it(form: Any, fields: dict[str, Any]) -> None:
    turn = Turn((*HELLO.messages, CALLED))
    (_, written) = write_turn(turn, "m", True, Dialect(thinking=form))["messages"]
    calls = written.pop("tool_calls")
    assert calls[0]["function"] == {"name": "f", "arguments": "{}"}
    assert written == {"role": "assistant"} | fields


def test_the_name_under_which_thinking_came_is_remembered() -> None:
    for name in ("reasoning", "reasoning_content"):
        _, reader = read(chunk({name: "Hm"}), chunk({"content": "Hi"}, "stop"))
        assert reader.channel == name
    _, reader = read(chunk({"reasoning": "Hm", "reasoning_content": "Hm"}, "stop"))
    assert reader.channel == "reasoning_content"
    _, reader = read(chunk({"content": "Hi"}, "stop"))
    assert reader.channel is None


def test_logprobs_without_alternatives_still_ask_for_one() -> None:
    body = write_turn(Turn(HELLO.messages, Sampling(top_logprobs=0)), "m", stream=True)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**63 - 1, -(2**63), 0])
def test_a_seed_always_fits_every_server(seed: int) -> None:
    turn = Turn(HELLO.messages, Sampling(seed=seed))
    written = write_turn(turn, "m", stream=True)["seed"]
    assert 0 <= written < 2**31
    assert written == write_turn(turn, "m", stream=True)["seed"]


# --- events ---------------------------------------------------------------------------------

STREAM = (
    b"\xef\xbb\xbf: hello\r\n"
    b"data: one\r\n\r\n"
    b"event: x\ndata:two\nid: 4\n\n"
    b"data: a\rdata: b\r\r"
    b"data\n\n"
    b"\n\n"
    b"data:  spaced \n\n"
    b"data: tail"
)
EVENTS = [b"one", b"two", b"a\nb", b" spaced ", b"tail"]


def test_events_are_cut_as_the_standard_says() -> None:
    parser = EventParser()
    assert parser.feed(STREAM) + parser.close() == EVENTS


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_do_not_depend_on_where_the_bytes_were_split(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        found += parser.feed(STREAM[start:end])
    assert found + parser.close() == EVENTS


def test_events_survive_bytes_that_come_one_by_one() -> None:
    parser = EventParser()
    found = [e for i in range(len(STREAM)) for e in parser.feed(STREAM[i : i + 1])]
    assert found + parser.close() == EVENTS


@pytest.mark.parametrize(
    "piece",
    [b"data: " + b"x" * 2**20, b": " + b"x" * 2**20, b"data: " + b"x" * 2**20 + b"\n"],
    ids=["one line", "a comment", "many lines"],
)
def test_an_event_without_an_end_does_not_fill_the_memory(piece: bytes) -> None:
    parser = EventParser()
    for _ in range(MAX_EVENT // 2**20 - 1):
        assert parser.feed(piece) == []
    with pytest.raises(EngineDied, match="more than"):
        parser.feed(piece + piece)


def test_a_large_event_is_read_in_little_pieces_without_copying_it_each_time() -> None:
    data = b"x" * (MAX_EVENT - 100)
    stream = b"data: " + data + b"\n\n"
    parser = EventParser()
    found: list[bytes] = []
    for i in range(0, len(stream), 64):  # 65,000 pieces: quadratic work would take minutes
        found += parser.feed(stream[i : i + 64])
    assert found == [data]


# --- answers --------------------------------------------------------------------------------


def test_text_reason_and_counts() -> None:
    deltas, reader = read(
        chunk({"role": "assistant", "content": None}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({"content": ""}),
        chunk({}, "stop"),
        counts(prompt_tokens_details={"cached_tokens": 5}),
        b"data: [DONE]\n\n",
    )
    assert deltas == [TextDelta("Hel"), TextDelta("lo")]
    assert (reader.reason, reader.closed, reader.failure) == ("stop", True, None)
    assert reader.counted() == Usage(9, 5, 4, 0)
    assert reader.text() == "Hello"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_has_its_own_channel(field: str) -> None:
    deltas, _ = read(chunk({field: "Hm", "content": "A"}), chunk({"content": "B"}, "stop"))
    assert deltas == [ThinkingDelta("Hm"), TextDelta("A"), TextDelta("B")]


def test_calls_come_in_pieces() -> None:
    first = {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    deltas, reader = read(
        chunk({"tool_calls": [first]}),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"a":'}}]}),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": "1}"}}]}, "tool_calls"),
    )
    assert deltas == [
        CallDelta(1, "c1", "f", ""),
        CallDelta(1, arguments='{"a":'),
        CallDelta(1, arguments="1}"),
    ]
    assert reader.reason == "calls"


def test_a_refusal_is_not_lost() -> None:
    assert read(chunk({"refusal": "No."}, "stop"))[0] == [RefusalDelta("No.")]


def test_logprobs_as_llama_server_writes_them() -> None:
    top = [
        {"id": 1, "token": "é", "bytes": [195, 169], "logprob": -0.1},
        {"id": 2, "token": "e", "bytes": None, "logprob": None},
        {"id": 3, "token": "x", "bytes": [120], "logprob": -7.0},
    ]
    logprobs = {"content": [top[0] | {"top_logprobs": top}]}
    deltas, reader = read(chunk({"content": "é"}, "stop", logprobs=logprobs), top=2)
    alternatives = (TokenLogprob("é", -0.1, (195, 169)), TokenLogprob("e", UNLIKELY, (101,)))
    assert deltas == [TextDelta("é", (TokenLogprob("é", -0.1, (195, 169), alternatives),))]
    assert reader.logprobs_seen == 1
    unasked, _ = read(chunk({"content": "é"}, "stop", logprobs=logprobs))
    assert unasked == [TextDelta("é")]


def test_a_token_without_text_keeps_its_logprob() -> None:
    logprobs = {"content": [{"token": "\ufffd", "bytes": [195], "logprob": -1.0}]}
    deltas, _ = read(chunk({"content": ""}, "stop", logprobs=logprobs), top=0)
    assert deltas == [TextDelta("", (TokenLogprob("\ufffd", -1.0, (195,)),))]


@pytest.mark.parametrize(
    ("more", "usage"),
    [
        ({}, Usage(9, 0, 4, 0)),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, Usage(9, 0, 4, 0)),
        ({"completion_tokens_details": {"reasoning_tokens": 3}}, Usage(9, 0, 4, 3)),
        ({"reasoning_tokens": 2}, Usage(9, 0, 4, 2)),  # SGLang
    ],
)
def test_counts_in_every_dialect(more: dict[str, Any], usage: Usage) -> None:
    assert read(chunk({}, "stop"), counts(**more))[1].counted() == usage
    assert read(counts(**more), chunk({}, "stop"))[1].counted() == usage


def test_cached_tokens_from_llama_servers_timings() -> None:
    timed = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    _, reader = read(chunk({}, "stop"), event(timed | {"timings": {"cache_n": 7}}))
    assert reader.counted() == Usage(9, 7, 4, 0)


def test_counts_that_did_not_come_are_not_made_up() -> None:
    _, reader = read(chunk({"content": "a"}), chunk({}, "stop"), b"data: [DONE]\n\n")
    assert reader.counted() is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "filter"), ("eos", "stop")],
)
def test_reasons(said: str, reason: str) -> None:
    assert read(chunk({}, said))[1].reason == reason


@pytest.mark.parametrize("said", ["abort", "error", "load"])
def test_an_answer_that_was_given_up_is_no_answer(said: str) -> None:
    deltas, reader = read(chunk({"content": "a"}), chunk({}, said), b"data: [DONE]\n\n")
    assert deltas == [TextDelta("a")]
    assert isinstance(reader.failure, EngineDied)
    assert said in reader.failure.message


def test_an_empty_reason_is_none_yet() -> None:
    deltas, reader = read(chunk({"content": "a"}, ""), chunk({"content": "b"}, "stop"))
    assert (deltas, reader.reason) == ([TextDelta("a"), TextDelta("b")], "stop")


def test_a_stream_that_ends_early_is_a_death() -> None:
    deltas, reader = read(chunk({"content": "a"}))
    assert deltas == [TextDelta("a")]
    assert isinstance(reader.failure, EngineDied)


def test_what_came_before_a_failure_still_counts() -> None:
    reader = TurnReader()
    assert reader.feed(chunk({"content": "a"}) + b"data: {nonsense\n\n") == [TextDelta("a")]
    assert isinstance(reader.failure, EngineDied)


def test_a_decoding_error_does_not_repeat_what_was_said() -> None:
    reader = TurnReader()
    reader.feed(b'data: {"choices": [{"delta": {"content": {"secret": 1}}}]}\n\n')
    assert reader.failure is not None
    assert "secret" not in reader.failure.message
    assert reader.failure.__cause__ is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"message": "busy", "code": 503}}, EngineUnavailable),
        ({"error": {"message": "bad stop", "code": 400, "param": "stop"}}, RequestError),
        ({"error": "it broke"}, EngineDied),
        ({"object": "error", "message": "it broke", "code": 500}, EngineDied),
        ({"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9}}, Overflow),
    ],
)
def test_an_error_inside_the_stream(error: dict[str, Any], kind: type[OuzelError]) -> None:
    deltas, reader = read(chunk({"role": "assistant"}), event(error), b"data: [DONE]\n\n")
    assert deltas == []
    assert type(reader.failure) is kind
    _, later = read(chunk({"content": "a"}), event(error))
    assert type(later.failure) is EngineDied, "after the first piece there is only one way to end"


def test_the_key_is_taken_out_of_errors_inside_the_stream() -> None:
    reader = TurnReader(secret="sk-123")
    reader.feed(event({"error": {"message": "no such key: sk-123", "code": 500}}))
    assert reader.failure is not None
    assert "sk-123" not in reader.failure.message


# --- anything at all ------------------------------------------------------------------------

NAMES = (
    *("choices", "delta", "content", "finish_reason", "usage", "error", "message", "code", "type"),
    *("object", "logprobs", "token", "top_logprobs", "bytes", "logprob", "tool_calls", "function"),
    *("arguments", "index", "prompt_tokens", "completion_tokens", "timings", "n_ctx", "detail"),
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_give_deltas_or_a_death(pieces: list[bytes]) -> None:
    _, reader = read(*pieces)
    assert isinstance(reader.failure, EngineDied), "random bytes are no whole answer"


@given(st.lists(_json, max_size=5), st.integers(0, 20))
def test_any_json_gives_deltas_or_one_of_our_errors(events: list[Any], top: int) -> None:
    deltas, reader = read(*(event(data) for data in events), top=top)
    assert reader.failure is None or isinstance(reader.failure, OuzelError)
    assert all(isinstance(d, TextDelta | ThinkingDelta | CallDelta) for d in deltas)
    reader.counted()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"error": ' * 100_000,
        b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"usage":{"prompt_tokens":-1,"completion_tokens":1}}',
        b'{"usage":{"prompt_tokens":1e99,"completion_tokens":1}}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":-1}]}}]}',
        b"null",
        b"[]",
        b'{"error": {"message": "' + b'{\\"error\\":' * 50 + b'"}}',
    ],
)
def test_hostile_events_are_a_death(data: bytes) -> None:
    reader = TurnReader()
    reader.feed(b"data: " + data + b"\n\n")
    assert isinstance(reader.failure, EngineDied)
