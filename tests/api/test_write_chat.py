"""Completions and their chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ouzel.api import write_chat
from ouzel.api.write_chat import ChatStream
from ouzel.api.writing import advance
from ouzel.core.events import Event, Failure, RunFinished
from ouzel.core.items import TokenLogprob
from ouzel.core.request import Sampling
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from wire.checks import check_chat, check_chat_stream
from wire.wire_runs import CREATED, FINISHED, Said, chat_run, run_events, said

_DIED = Failure("server_error", "The engine died.")


def _finished(run: Run, events: Sequence[Event]) -> Run:
    for event in events:
        run = advance(run, event)
    return run


def _completion(events: Sequence[Event], **changes: Any) -> dict[str, Any]:
    return check_chat(write_chat.completion([_finished(chat_run(**changes), events)]))


def _stream(n: int = 1, **options: Any) -> ChatStream:
    return ChatStream("chatcmpl-0", CREATED, "tiny", n, **options)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete": "max_output_tokens"}, "length"),
        ({"status": "incomplete", "incomplete": "content_filter"}, "content_filter"),
        ({"status": "cancelled"}, "length"),
    ],
)
def test_finish_reasons_are_the_same_streamed_or_not(ending: dict[str, Any], reason: str) -> None:
    events = run_events([said("text", "Hi")], **ending)
    assert _completion(events)["choices"][0]["finish_reason"] == reason
    stream = _stream()
    assert check_chat_stream(stream.write(0, events) + stream.done()).finish == {0: reason}


def test_a_failed_or_unfinished_run_is_no_completion() -> None:
    failed = _finished(chat_run(), run_events(status="failed", failure=_DIED))
    for run in (failed, chat_run()):
        with pytest.raises(ValueError, match="no finish reason"):
            write_chat.completion([run])


def test_thinking_and_text_are_kept_apart() -> None:
    events = run_events(
        [said("reasoning", "Let me", " see."), said("summary", "Hidden.")], [said("text", "4")]
    )
    message = _completion(events)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("4", "Let me see.")
    stream = _stream()
    data = stream.write(0, events) + stream.done()
    seen = check_chat_stream(data)
    assert (seen.text(), seen.text(name="reasoning_content")) == ("4", "Let me see.")
    assert b"Hidden" not in data


def test_a_refusal_is_not_content() -> None:
    events = run_events([said("refusal", "I ", "won't.")])
    message = _completion(events)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I won't.")
    assert "reasoning_content" not in message
    stream = _stream()
    seen = check_chat_stream(stream.write(0, events) + stream.done())
    assert (seen.text(), seen.text(name="refusal")) == ("", "I won't.")


def test_logprobs_come_where_they_were_asked_for() -> None:
    token = TokenLogprob("Hi", -0.5, (72, 105), (TokenLogprob("Yo", -2.0, (89, 111)),))
    events = run_events([Said("text", [("Hi", (token,))])])
    written = [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top_logprobs": [{"token": "Yo", "logprob": -2.0, "bytes": [89, 111]}],
        }
    ]
    asked = Sampling(top_logprobs=1)
    assert _completion(events, sampling=asked)["choices"][0]["logprobs"]["content"] == written
    assert _completion(events)["choices"][0]["logprobs"] is None
    empty = _completion(run_events([said("text", "")]), sampling=asked)
    assert empty["choices"][0]["logprobs"] == {"content": [], "refusal": None}
    stream = _stream()
    seen = check_chat_stream(stream.write(0, events) + stream.done())
    scored = [choice["logprobs"] for chunk in seen.chunks for choice in chunk["choices"]]
    assert [scores["content"] for scores in scored if scores] == [written]


def test_several_choices_share_one_prompt() -> None:
    one = run_events([said("text", "a")], usage=Usage(10, 4, 3, 1))
    two = run_events([said("text", "b")], usage=Usage(10, 9, 5, 2))
    runs = [_finished(chat_run(), events) for events in (one, two)]
    usage = check_chat(write_chat.completion(runs))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 8)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 3
    stream = _stream(2, include_usage=True)
    # The second choice ends first: the usage waits for both.
    data = stream.write(1, two) + stream.write(0, one) + stream.done()
    assert check_chat_stream(data).usage == usage


def test_usage_is_given_only_where_asked_and_counted() -> None:
    events = run_events([said("text", "a")])
    stream = _stream()
    assert b"usage" not in stream.write(0, events)
    stream = _stream(2, include_usage=True)
    cancelled = run_events([said("text", "b")], status="cancelled")
    data = stream.write(0, events) + stream.write(1, cancelled)
    assert b'"choices":[]' not in data
    runs = [_finished(chat_run(), each) for each in (events, cancelled)]
    assert "usage" not in check_chat(write_chat.completion(runs))


def test_a_failure_ends_the_whole_stream() -> None:
    stream = _stream(2, include_usage=True)
    good, bad = (
        run_events([said("text", "a")]),
        run_events([said("text", "b")], status="failed", failure=_DIED),
    )
    data = stream.write(0, good[:3]) + stream.write(1, bad)
    assert stream.failed
    assert stream.write(0, good[3:]) == b""
    seen = check_chat_stream(data + stream.done())
    assert seen.error == {
        "message": "The engine died.",
        "type": "server_error",
        "param": None,
        "code": "server_error",
    }
    assert seen.usage is None


def test_events_that_mean_nothing_here_write_nothing() -> None:
    stream = _stream()
    events = run_events([said("text", "a")], queued=True)
    silent = [event for event in events if event.kind.startswith(("item", "part", "run_queued"))]
    assert silent
    assert stream.write(0, silent) == b""


@pytest.mark.parametrize("size", [1, 2, 5])
def test_bytes_do_not_depend_on_the_batches(size: int) -> None:
    events = run_events([said("reasoning", "Hm")], [said("text", "a", "", "b")])
    whole = _stream(include_usage=True).write(0, events)
    stream = _stream(include_usage=True)
    parts = [stream.write(0, events[start : start + size]) for start in range(0, len(events), size)]
    assert b"".join(parts) == whole


def test_a_fingerprint_is_given_where_it_is_known() -> None:
    run = _finished(chat_run(), run_events([said("text", "a")]))
    body = check_chat(write_chat.completion([run], fingerprint="fp_1"))
    assert body["system_fingerprint"] == "fp_1"
    stream = _stream(fingerprint="fp_1")
    events = run_events([said("text", "a")])
    assert stream.write(0, events).count(b'"system_fingerprint":"fp_1"') == 3
    assert b"system_fingerprint" not in _stream().write(0, events)


def test_a_failure_without_a_reason_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="says why"):
        _stream().write(0, [RunFinished("failed", Usage(), FINISHED)])
