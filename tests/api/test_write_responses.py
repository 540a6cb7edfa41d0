"""The response object, its events, and what surrounds them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from openai.types.responses import ResponseError, ResponseStreamEvent

from ouzel.api import write_responses
from ouzel.api.write_responses import NAMES, ResponseStream
from ouzel.api.writing import advance
from ouzel.core.errors import RequestError
from ouzel.core.events import Channel, Delta, Failure, RunFinished, RunStarted
from ouzel.core.items import Message, Reasoning, Text
from ouzel.core.request import Sampling
from ouzel.core.turns import Usage
from wire.checks import (
    check_body,
    check_input_items,
    check_response,
    check_response_stream,
)
from wire.wire_runs import FINISHED, responses_run, run_events, said

_CODES = get_args(ResponseError.model_fields["code"].annotation)


def _failed(failure: Failure) -> dict[str, Any]:
    run = replace(responses_run(), status="failed", failure=failure, finished_at=FINISHED)
    return check_response(write_responses.response(run))


def test_a_run_in_progress_says_so() -> None:
    body = check_response(write_responses.response(responses_run()))
    assert (body["status"], body["output"], body["usage"]) == ("in_progress", [], None)
    assert body["completed_at"] is None


def test_what_was_asked_is_given_back() -> None:
    asked = Sampling(temperature=0.0, top_p=0.5, presence_penalty=-1.0, top_logprobs=3)
    run = responses_run(
        sampling=asked,
        instructions="Be brief.",
        max_output_tokens=5,
        previous_id="resp_1",
        store=True,
        metadata={"a": "b"},
        labels={
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "prompt_cache_retention": "24h",
            "service_tier": "auto",
        },
    )
    body = check_response(write_responses.response(run))
    wanted = {
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": -1.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 3,
        "instructions": "Be brief.",
        "max_output_tokens": 5,
        "previous_response_id": "resp_1",
        "store": True,
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "service_tier": "default",
        "model": "tiny",
    }
    assert {name: body[name] for name in wanted} == wanted


def test_defaults_are_those_that_were_in_force() -> None:
    mine = Sampling(temperature=0.7, top_p=0.8, presence_penalty=0.1, frequency_penalty=0.2)
    run = responses_run(sampling=Sampling(top_p=0.3))
    body = write_responses.response(run, defaults=mine)
    assert (body["temperature"], body["top_p"], body["presence_penalty"]) == (0.7, 0.3, 0.1)
    assert ResponseStream(run, defaults=mine).write([RunStarted()]).count(b'"temperature":0.7') == 2


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure("server_error", "x"), "server_error"),
        (Failure("engine_unavailable", "x", 503, 2.0), "server_error"),
        (Failure("server_shutting_down", "x", 503, 5.0), "server_error"),
        (Failure("context_length_exceeded", "x", 400), "invalid_prompt"),
        (Failure("unsupported_parameter", "x", 400), "invalid_prompt"),
        (Failure("slow_down", "x", 429), "rate_limit_exceeded"),
        (Failure("rate_limit_exceeded", "x", 429), "rate_limit_exceeded"),
    ],
)
def test_error_codes_are_those_that_the_types_allow(failure: Failure, code: str) -> None:
    error = _failed(failure)["error"]
    assert error == {"code": code, "message": "x"}
    assert code in _CODES


def test_the_table_knows_every_channel_and_only_events_of_the_sdk() -> None:
    union = get_args(get_args(ResponseStreamEvent)[0])
    known = {name for kind in union for name in get_args(kind.model_fields["type"].annotation)}
    assert {name for names in NAMES.values() for name in names} <= known
    for kind in ("part_started", "delta", "part_done"):
        assert {key[2] for key in NAMES if key[0] == kind} == set(get_args(Channel))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_bytes_do_not_depend_on_the_batches(size: int) -> None:
    events = run_events([said("reasoning", "Hm", "m")], [said("text", "a", "", "b")], queued=True)
    whole = ResponseStream(responses_run()).write(events)
    stream = ResponseStream(responses_run())
    parts = [stream.write(events[start : start + size]) for start in range(0, len(events), size)]
    assert b"".join(parts) == whole
    assert stream.write([]) == b""


def test_the_last_event_is_the_plain_reply() -> None:
    run = responses_run(store=True)
    events = run_events([said("text", "Hello")], status="incomplete", incomplete="content_filter")
    seen = check_response_stream(ResponseStream(run).write(events))
    for event in events:
        run = advance(run, event)
    assert seen.response == write_responses.response(run)
    assert seen.names[-1] == "response.incomplete"


def test_a_finished_run_can_be_told_again_from_its_start() -> None:
    run = responses_run()
    events = run_events([said("text", "Hello")])
    first = ResponseStream(run)
    told = first.write(events)
    assert ResponseStream(first.run).write(events) == told


def test_a_cancelled_run_ends_as_incomplete_with_its_own_status() -> None:
    events = run_events([said("text", "Hel")], status="cancelled")
    seen = check_response_stream(ResponseStream(responses_run()).write(events))
    assert (seen.names[-1], seen.response["status"]) == ("response.incomplete", "cancelled")
    assert seen.response["incomplete_details"] is None
    assert seen.response["output"][0]["status"] == "incomplete"


def test_a_queued_run_is_created_once() -> None:
    seen = check_response_stream(
        ResponseStream(responses_run()).write(run_events([said("text", "a")], queued=True))
    )
    assert seen.names[:3] == ["response.created", "response.queued", "response.in_progress"]


def test_a_run_may_fail_before_it_says_anything() -> None:
    failure = Failure("server_error", "The engine died.")
    events = [RunStarted(), RunFinished("failed", Usage(), FINISHED, failure)]
    seen = check_response_stream(ResponseStream(responses_run()).write(events))
    assert seen.response["error"]["message"] == "The engine died."


def test_half_characters_do_not_break_the_stream() -> None:
    events = run_events([said("text", "a\ud83d", "\ude00b")])
    seen = check_response_stream(ResponseStream(responses_run()).write(events))
    assert seen.text == "a\ufffd\ufffdb"


def test_a_delta_for_a_part_that_never_began_is_an_error() -> None:
    with pytest.raises(KeyError):
        ResponseStream(responses_run()).write([RunStarted(), Delta(0, "msg_0", 0, "text", "a")])


_ITEMS = tuple(Message(f"msg_{n}", "user", (Text(str(n)),)) for n in range(5))


@pytest.mark.parametrize(
    ("arguments", "ids", "more"),
    [
        ({}, [4, 3, 2, 1, 0], False),
        ({"order": "asc"}, [0, 1, 2, 3, 4], False),
        ({"limit": 2}, [4, 3], True),
        ({"limit": 2, "after": "msg_3"}, [2, 1], True),
        ({"limit": 2, "after": "msg_2"}, [1, 0], False),
        ({"limit": 2, "after": "msg_2", "order": "asc"}, [3, 4], False),
        ({"after": "msg_0"}, [], False),
    ],
)
def test_input_items_come_in_pages(arguments: dict[str, Any], ids: list[int], more: bool) -> None:
    page = check_input_items(write_responses.input_items(_ITEMS, **arguments))
    assert [item["id"] for item in page["data"]] == [f"msg_{n}" for n in ids]
    assert page["has_more"] is more


def test_a_page_after_an_unknown_item_is_the_callers_mistake() -> None:
    with pytest.raises(RequestError, match="msg_9") as caught:
        write_responses.input_items(_ITEMS, after="msg_9")
    assert caught.value.param == "after"


def test_input_and_output_are_written_each_in_their_own_words() -> None:
    items = (
        Message("m1", "user", (Text("a"), Text("b"))),
        Message("m2", "developer", (Text("c"),)),
        Message("m3", "assistant", (Text("d"),)),
        Reasoning("r1", "e", ("f",)),
    )
    page = check_input_items(write_responses.input_items(items, order="asc"))
    kinds = [[part["type"] for part in item["content"]] for item in page["data"]]
    assert kinds == [["input_text"] * 2, ["input_text"], ["output_text"], ["reasoning_text"]]
    assert page["data"][3]["summary"] == [{"type": "summary_text", "text": "f"}]


def test_small_replies() -> None:
    assert check_body("deleted", write_responses.deleted("resp_1")) == {
        "id": "resp_1",
        "object": "response",
        "deleted": True,
    }
    assert check_body("input_tokens", write_responses.input_tokens(7))["input_tokens"] == 7
    assert json.dumps(write_responses.input_tokens(7)).count("response.input_tokens") == 1
