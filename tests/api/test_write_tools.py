"""What the response object repeats of a request, and calls in the events of a run."""

from __future__ import annotations

from typing import Any

import pytest

from doubles import scripted
from ouzel.api import read_responses, write_chat, write_responses
from ouzel.api.metrics import Metrics
from ouzel.api.write_chat import ChatStream
from ouzel.api.write_responses import ResponseStream
from ouzel.api.writing import advance
from ouzel.core.events import Delta, Event, Failure, ItemDone, ItemStage, ItemStarted, RunFinished
from ouzel.core.items import CustomCall, FunctionCall, HostedCall
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from wire.checks import check_chat, check_chat_stream, check_response, check_response_stream
from wire.wire_runs import (
    CREATED,
    FINISHED,
    called,
    chat_run,
    item_events,
    responses_run,
    run_of,
    said,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
OSLO = FunctionCall("fc_1", "call_1", "weather")
SUM = CustomCall("ctc_1", "call_2", "sums")
FOUND = HostedCall("mcp_1", "web_search", "search", output="A page.")


def finished(run: Run, events: list[Event]) -> Run:
    for event in events:
        run = advance(run, event)
    return run


ECHOED: list[dict[str, Any]] = [
    {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}]},
    {"tools": [{"type": "web_search", "search_context_size": "low"}]},
    {"tools": [{"type": "custom", "name": "c", "format": {"type": "text"}}]},
    {
        "tools": [
            {
                "type": "custom",
                "name": "c",
                "description": "d",
                "format": {"type": "grammar", "syntax": "regex", "definition": "a+"},
            }
        ]
    },
    {"tool_choice": "none"},
    {"tool_choice": {"type": "custom", "name": "c"}, "tools": [{"type": "custom", "name": "c"}]},
    {
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}],
        },
        "tools": [{"type": "custom", "name": "c"}, {"type": "function", "name": "f"}],
    },
    {"parallel_tool_calls": False, "max_tool_calls": 3},
    {"reasoning": {"effort": "minimal", "summary": "auto"}},
    {"text": {"format": {"type": "json_object"}, "verbosity": "high"}},
    {
        "text": {
            "format": {
                "type": "json_schema",
                "name": "n",
                "description": "d",
                "schema": SCHEMA,
                "strict": False,
            },
            "verbosity": "low",
        }
    },
]


@pytest.mark.parametrize("sent", ECHOED, ids=lambda value: str(value)[:60])
def test_what_was_asked_is_repeated_as_it_was_asked(sent: dict[str, Any]) -> None:
    body = {"model": "m", "input": "Write JSON.", **sent}
    request = read_responses.read(body, hosted=frozenset({"web_search"})).request
    written = check_response(write_responses.response(Run("resp_0", "o", "m", 1.0, request)))
    for name, value in sent.items():
        if name != "tools":
            assert written[name] == value
            continue
        for tool, wrote in zip(value, written["tools"], strict=True):
            assert {key: wrote[key] for key in tool} == tool


def test_a_choice_of_a_hosted_tool_goes_by_its_type() -> None:
    sent = {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}
    body = {"model": "m", "input": "a", **sent}
    request = read_responses.read(body, hosted=frozenset({"web_search"})).request
    # The SDK's closed list of such choices has the older name only, so no strict check here.
    written = write_responses.response(Run("resp_0", "o", "m", 1.0, request))
    assert written["tool_choice"] == {"type": "web_search"}


def test_a_call_ends_a_choice_with_tool_calls() -> None:
    events = run_of(called(0, OSLO, '{"city":', '"Oslo"}'), called(1, SUM, "1+1"))
    plain = check_chat(write_chat.completion([finished(chat_run(), events)]))["choices"][0]
    stream = ChatStream("chatcmpl-0", CREATED, "tiny")
    seen = check_chat_stream(stream.write(0, events) + stream.done())
    assert plain["finish_reason"] == seen.finish[0] == "tool_calls"
    assert plain["message"]["content"] is None
    assert plain["message"]["tool_calls"] == seen.calls[0]
    assert seen.calls[0] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
        },
        {"id": "call_2", "type": "custom", "custom": {"name": "sums", "input": "1+1"}},
    ]
    assert seen.chunks[0]["choices"][0]["delta"]["content"] is None


def test_a_choice_cut_short_says_so_even_with_calls() -> None:
    cut = RunFinished("incomplete", Usage(), FINISHED, incomplete="max_output_tokens")
    events = [*run_of(called(0, OSLO, "{}"))[:-1], cut]
    plain = check_chat(write_chat.completion([finished(chat_run(), events)]))["choices"][0]
    assert (plain["finish_reason"], len(plain["message"]["tool_calls"])) == ("length", 1)


def test_calls_of_hosted_tools_are_a_field_of_their_own_in_chat() -> None:
    events = run_of(called(0, FOUND, "{}"), item_events(1, [said("text", "Hi")], "completed"))
    plain = check_chat(write_chat.completion([finished(chat_run(), events)]))["choices"][0]
    stream = ChatStream("chatcmpl-0", CREATED, "tiny")
    data = stream.write(0, events) + stream.done()
    seen = check_chat_stream(data)
    assert plain["finish_reason"] == seen.finish[0] == "stop"
    assert "tool_calls" not in plain["message"]
    assert not seen.calls
    assert [call["name"] for call in seen.hosted[0]] == ["search"]
    assert plain["message"]["hosted_tool_calls"] == seen.hosted[0]


def test_each_choice_counts_its_own_calls() -> None:
    events = run_of(called(0, OSLO, "{}"))
    stream = ChatStream("chatcmpl-0", CREATED, "tiny", 2)
    data = stream.write(0, events) + stream.write(1, events) + stream.done()
    seen = check_chat_stream(data)
    assert [len(seen.calls[index]) for index in (0, 1)] == [1, 1]


def test_tools_side_by_side_keep_the_order_of_their_indexes() -> None:
    first = called(0, FOUND, "{}")
    failed = HostedCall("mcp_2", "l", "n", error="No.", status="failed")
    second = called(1, failed, '{"q":1}')
    stage = ItemStage(0, "mcp_1", "searching")
    seen = check_response_stream(
        ResponseStream(responses_run()).write(run_of([*first[:-1], *second, stage, first[-1]]))
    )
    assert [item["id"] for item in seen.response["output"]] == ["mcp_1", "mcp_2"]
    assert [item["status"] for item in seen.response["output"]] == ["completed", "failed"]
    assert not any("searching" in name for name in seen.names)


def test_a_hosted_call_that_was_cut_off_has_failed() -> None:
    cut = HostedCall("mcp_1", "l", "n", status="in_progress")
    events = [*called(0, FOUND, "{}")[:-1], ItemDone(0, cut)]
    names = ResponseStream(responses_run()).write([*run_of()[:1], *events])
    assert b"response.mcp_call.failed" in names


@pytest.mark.parametrize("size", [1, 2, 5])
def test_bytes_of_calls_do_not_depend_on_the_batches(size: int) -> None:
    events = run_of(called(0, OSLO, "{", "}"), called(1, SUM, ""), called(2, FOUND, "{}"))
    stream, chat = ResponseStream(responses_run()), ChatStream("chatcmpl-0", CREATED, "tiny")
    whole = ResponseStream(responses_run()).write(events)
    batches = [events[start : start + size] for start in range(0, len(events), size)]
    assert b"".join(stream.write(batch) for batch in batches) == whole
    whole = ChatStream("chatcmpl-0", CREATED, "tiny").write(0, events)
    assert b"".join(chat.write(0, batch) for batch in batches) == whole


def test_a_failure_after_a_call_is_told() -> None:
    died = RunFinished("failed", Usage(), FINISHED, Failure("server_error", "Died."))
    events = [*run_of(called(0, OSLO, "{}"))[:-1], died]
    stream = ChatStream("chatcmpl-0", CREATED, "tiny")
    assert check_chat_stream(stream.write(0, events) + stream.done()).error is not None
    seen = check_response_stream(ResponseStream(responses_run()).write(events))
    assert seen.response["status"] == "failed"


def test_deltas_need_their_item() -> None:
    with pytest.raises(KeyError):
        ResponseStream(responses_run()).write([Delta(0, "fc_9", 0, "arguments", "{")])
    begun = ItemStarted(0, OSLO)
    assert b"weather" in ChatStream("chatcmpl-0", CREATED, "tiny").write(0, [begun])


def test_what_happened_in_the_loop_is_counted() -> None:
    metrics = Metrics(scripted())
    run = responses_run()
    for tally in ({"calls": 2, "repaired_calls": 1}, {"calls": 1}, {}):
        metrics.run_finished(
            Run(run.id, run.owner, run.model, run.created_at, run.request, tally=tally), 1.0, None
        )
    text = metrics.text().decode()
    assert 'ouzel_loop_events_total{event="calls"} 3.0' in text
    assert 'ouzel_loop_events_total{event="repaired_calls"} 1.0' in text
