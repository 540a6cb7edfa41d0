"""Responses bodies: what is read from good ones, and where bad ones are wrong.

What may stand in `input` is tested in test_read_items.
"""

from __future__ import annotations

import typing
from typing import Any

import openresponses_types.types as open_responses
import pytest
from openai.types.responses import input_token_count_params, response_create_params

from ouzel.api import read_responses, reading
from ouzel.core.errors import RequestError
from ouzel.core.items import Message, Text
from ouzel.core.request import Request, Sampling

LOGPROBS = "message.output_text.logprobs"


def body(**more: Any) -> dict[str, Any]:
    return {"model": "o4-mini", "input": "Hello!", **more}


def test_the_least_that_can_be_asked() -> None:
    asked = read_responses.read(body())
    message = asked.request.input[0]
    assert message.id.startswith("msg_")
    assert asked == read_responses.ResponsesRequest(
        Request(
            "responses",
            "o4-mini",
            (Message(message.id, "user", (Text("Hello!"),)),),
            store=True,
        ),
        stream=False,
        include_logprobs=False,
    )


def test_everything_that_can_be_asked() -> None:
    asked = read_responses.read(
        body(
            instructions="Be kind.",
            max_output_tokens=16,
            temperature=2,
            top_p=0,
            presence_penalty=2,
            frequency_penalty=-2,
            top_logprobs=3,
            include=[LOGPROBS],
            metadata={"k": "v"},
            previous_response_id="resp_1",
            store=False,
            stream=True,
            stream_options={"include_obfuscation": False},
            user="u",
            safety_identifier="s",
            prompt_cache_key="p",
            service_tier="default",
        )
    )
    assert (asked.stream, asked.include_logprobs) == (True, True)
    request = asked.request
    assert request.sampling == Sampling(
        temperature=2.0,
        top_p=0.0,
        presence_penalty=2.0,
        frequency_penalty=-2.0,
        top_logprobs=3,
    )
    assert request.instructions == "Be kind."
    assert request.max_output_tokens == 16
    assert request.previous_id == "resp_1"
    assert request.store is False
    assert request.metadata == {"k": "v"}
    assert request.labels == {
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "p",
        "service_tier": "default",
    }


@pytest.mark.parametrize(
    ("more", "top", "include"),
    [
        ({}, None, False),
        ({"top_logprobs": 0}, None, False),
        ({"include": []}, None, False),
        ({"include": [LOGPROBS]}, 0, True),
        ({"include": [LOGPROBS], "top_logprobs": 0}, 0, True),
        ({"include": [LOGPROBS], "top_logprobs": 5}, 5, True),
        ({"top_logprobs": 5}, 5, True),
    ],
)
def test_logprobs(more: dict[str, Any], top: int | None, include: bool) -> None:
    asked = read_responses.read(body(**more))
    assert (asked.request.sampling.top_logprobs, asked.include_logprobs) == (top, include)


def test_a_stored_response_is_continued_without_new_input() -> None:
    asked = read_responses.read({"model": "m", "previous_response_id": "resp_1"})
    assert (asked.request.input, asked.request.previous_id) == ((), "resp_1")


@pytest.mark.parametrize("given", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_goes_by_its_id(given: Any) -> None:
    asked = read_responses.read(body(conversation=given))
    assert asked.request.conversation_id == "conv_1"
    silent = read_responses.read({"model": "m", "conversation": given, "input": None})
    assert (silent.request.input, silent.request.conversation_id) == ((), "conv_1")
    counted = read_responses.read_input_tokens(body(conversation=given))
    assert counted.conversation_id == "conv_1"


def test_what_was_said_earlier_may_have_asked_for_json() -> None:
    text = {"format": {"type": "json_object"}}
    for earlier in ({"conversation": "conv_1"}, {"previous_response_id": "resp_1"}):
        assert read_responses.read(body(text=text, **earlier)).request.format.type == "json_object"


@pytest.mark.parametrize(
    ("more", "field", "value"),
    [
        ({}, "background", False),
        ({"background": True}, "background", True),
        ({"background": True, "store": True}, "background", True),
        ({"background": False, "store": False}, "background", False),
        ({}, "truncation", "disabled"),
        ({"truncation": "auto"}, "truncation", "auto"),
        ({"truncation": "disabled"}, "truncation", "disabled"),
        ({}, "compact_at", None),
        ({"context_management": None}, "compact_at", None),
        ({"context_management": [{"type": "compaction"}]}, "compact_at", 0),
        (
            {"context_management": [{"type": "compaction", "compact_threshold": None}]},
            "compact_at",
            0,
        ),
        (
            {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
            "compact_at",
            1000,
        ),
        (
            {"include": ["reasoning.encrypted_content"]},
            "include",
            frozenset({"reasoning.encrypted_content"}),
        ),
    ],
)
def test_what_outlives_the_request(more: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(read_responses.read(body(**more)).request, field) == value


def test_tokens_are_counted_for_what_would_be_asked() -> None:
    prompt = {
        "model": "m",
        "input": [{"role": "user", "content": "a"}],
        "instructions": "b",
        "previous_response_id": "resp_1",
    }
    counted = read_responses.read_input_tokens(prompt)
    asked = read_responses.read(prompt).request
    assert counted.store is False
    assert counted.sampling == Sampling()
    assert counted.protocol == "responses"
    assert counted.input[0] == Message(counted.input[0].id, "user", (Text("a"),))
    for attribute in ("model", "instructions", "previous_id"):
        assert getattr(counted, attribute) == getattr(asked, attribute)


NEUTRAL: list[dict[str, Any]] = [
    {"tools": []},
    {"tool_choice": "auto"},
    {"tool_choice": "none"},
    {"parallel_tool_calls": True},
    {"truncation": "disabled"},
    {"text": {}},
    {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
    {"text": {"format": None, "verbosity": None}},
    {"reasoning": {}},
]
NEUTRAL_FOR_CREATE: list[dict[str, Any]] = [
    {"background": False},
    {"include": []},
    {"service_tier": "auto"},
    {"stream_options": {}},
    {"stream_options": {"include_obfuscation": False}},
    {"prompt_cache_retention": "in_memory"},
    {"prompt_cache_options": {"mode": "implicit", "ttl": "30m", "prewarm": False}},
]


@pytest.mark.parametrize("more", NEUTRAL + NEUTRAL_FOR_CREATE, ids=str)
def test_values_that_ask_for_nothing_pass(more: dict[str, Any]) -> None:
    plain, asked = read_responses.read(body()), read_responses.read(body(**more))
    assert asked.request.sampling == plain.request.sampling
    assert (asked.stream, asked.include_logprobs) == (False, False)


@pytest.mark.parametrize("more", NEUTRAL, ids=str)
def test_values_that_ask_for_nothing_pass_for_counting(more: dict[str, Any]) -> None:
    read_responses.read_input_tokens(body(**more))


KNOWN = {
    *typing.get_type_hints(response_create_params.ResponseCreateParamsBase),
    *open_responses.CreateResponseBody.model_fields,
    "stream",
}
KNOWN_FOR_COUNTING = set(typing.get_type_hints(input_token_count_params.InputTokenCountParams))


@pytest.mark.parametrize("name", sorted(KNOWN - {"model", "input"}))
def test_null_stands_for_not_set(name: str) -> None:
    read_responses.read(body(**{name: None}))


@pytest.mark.parametrize("name", sorted(KNOWN_FOR_COUNTING - {"model", "input"}))
def test_null_stands_for_not_set_when_counting(name: str) -> None:
    read_responses.read_input_tokens(body(**{name: None}))


def test_every_parameter_of_the_sdk_and_open_responses_is_known_and_no_other() -> None:
    assert {*read_responses._ROWS, *read_responses._LATER} == KNOWN
    assert not set(read_responses._ROWS) & set(read_responses._LATER)


EXAMPLES = [
    """{"model": "gpt-5.4",
        "input": "Tell me a three sentence bedtime story about a unicorn."}""",
    """{"model": "gpt-5.4", "instructions": "You are a helpful assistant.",
        "input": "Hello!", "stream": true}""",
]


@pytest.mark.parametrize("raw", EXAMPLES)
def test_the_references_text_examples_are_read(raw: str) -> None:
    read_responses.read(reading.decode_body(raw.encode()))


def test_the_references_counting_example_is_read() -> None:
    raw = b'{"model": "gpt-5", "input": "Tell me a joke."}'
    read_responses.read_input_tokens(reading.decode_body(raw))


LATER, UNKNOWN, VALUE, TYPE, MISSING, TOGETHER = (
    "unsupported_parameter",
    "unknown_parameter",
    "invalid_value",
    "invalid_type",
    "missing_required_parameter",
    "invalid_parameter_combination",
)
COMPACTION = {"type": "compaction"}


def managed(threshold: Any) -> dict[str, Any]:
    return body(context_management=[COMPACTION | {"compact_threshold": threshold}])


BAD: list[tuple[dict[str, Any], str, str]] = [
    # required
    ({}, "model", MISSING),
    ({"input": "a"}, "model", MISSING),
    ({"model": "m"}, "input", MISSING),
    ({"model": "m", "input": None}, "input", MISSING),
    ({"model": "m", "instructions": "a"}, "input", MISSING),
    (body(model=None), "model", TYPE),
    (body(model=[]), "model", TYPE),
    (body(input=5), "input", TYPE),
    (body(input=""), "input", "empty_string"),
    (body(input=[]), "input", "empty_array"),
    (body(input={"role": "user", "content": "a"}), "input", TYPE),
    (body(instructions=["a"]), "instructions", TYPE),
    (body(previous_response_id=1), "previous_response_id", TYPE),
    (body(previous_response_id=""), "previous_response_id", "empty_string"),
    (body(previous_response_id="r\0"), "previous_response_id", VALUE),
    # numbers and flags
    (body(max_output_tokens=15), "max_output_tokens", "integer_below_min_value"),
    (body(max_output_tokens=10**20), "max_output_tokens", "integer_above_max_value"),
    (body(max_output_tokens=20.0), "max_output_tokens", TYPE),
    (body(temperature=3), "temperature", "decimal_above_max_value"),
    (body(top_p=-1), "top_p", "decimal_below_min_value"),
    (body(top_logprobs=21), "top_logprobs", "integer_above_max_value"),
    (body(top_logprobs=True), "top_logprobs", TYPE),
    (body(store="yes"), "store", TYPE),
    (body(store=0), "store", TYPE),
    (body(stream=1), "stream", TYPE),
    (body(metadata={"a": 1}), "metadata.a", TYPE),
    (body(metadata="a"), "metadata", TYPE),
    (body(safety_identifier="s" * 65), "safety_identifier", "string_above_max_length"),
    (body(user={}), "user", TYPE),
    # what belongs to Chat Completions
    (body(messages=[]), "messages", UNKNOWN),
    (body(seed=1), "seed", UNKNOWN),
    (body(stop="a"), "stop", UNKNOWN),
    (body(logit_bias={}), "logit_bias", UNKNOWN),
    (body(n=1), "n", UNKNOWN),
    (body(max_tokens=20), "max_tokens", UNKNOWN),
    (body(response_format={"type": "text"}), "response_format", UNKNOWN),
    (body(foo=None), "foo", UNKNOWN),
    # options
    (body(include="all"), "include", TYPE),
    (body(include=["everything"]), "include[0]", VALUE),
    (body(include=[LOGPROBS, 1]), "include[1]", TYPE),
    (body(include=[LOGPROBS, "web_search_call.results"]), "include[1]", LATER),
    (body(include=["file_search_call.results"]), "include[0]", LATER),
    (body(include=[LOGPROBS] * 65), "include", "array_above_max_length"),
    (body(stream_options={"include_usage": True}), "stream_options.include_usage", UNKNOWN),
    (
        body(stream=True, stream_options={"include_obfuscation": True}),
        "stream_options.include_obfuscation",
        LATER,
    ),
    (body(service_tier="ultrafast"), "service_tier", LATER),
    (body(service_tier="slow"), "service_tier", VALUE),
    (body(max_tool_calls=0), "max_tool_calls", "integer_below_min_value"),
    (body(parallel_tool_calls="no"), "parallel_tool_calls", TYPE),
    (body(background="later"), "background", TYPE),
    (body(background=True, store=False), "background", TOGETHER),
    (body(conversation=""), "conversation", "empty_string"),
    (body(conversation="c\0"), "conversation", VALUE),
    (body(conversation=["conv_1"]), "conversation", TYPE),
    (body(conversation={}), "conversation.id", MISSING),
    (body(conversation={"id": None}), "conversation.id", TYPE),
    (body(conversation={"id": "c" * 257}), "conversation.id", "string_above_max_length"),
    (body(conversation={"id": "conv_1", "name": "a"}), "conversation.name", UNKNOWN),
    (body(conversation="conv_1", previous_response_id="resp_1"), "conversation", TOGETHER),
    (body(prompt={"id": "p"}), "prompt", LATER),
    (body(context_management={"type": "compaction"}), "context_management", TYPE),
    (body(context_management=[]), "context_management", "empty_array"),
    (body(context_management=[COMPACTION] * 2), "context_management", "array_above_max_length"),
    (body(context_management=[{}]), "context_management[0].type", MISSING),
    (body(context_management=[{"type": "summary"}]), "context_management[0].type", VALUE),
    (managed(999), "context_management[0].compact_threshold", "integer_below_min_value"),
    (managed(2**31), "context_management[0].compact_threshold", "integer_above_max_value"),
    (managed(1000.0), "context_management[0].compact_threshold", TYPE),
    (body(context_management=[COMPACTION | {"at": 1}]), "context_management[0].at", UNKNOWN),
    (body(truncation="middle"), "truncation", VALUE),
    (body(text={"format": {"type": "yaml"}}), "text.format.type", VALUE),
    (body(text={"format": {}}), "text.format.type", MISSING),
    (body(text={"format": "text"}), "text.format", TYPE),
    (body(text={"verbosity": "loud"}), "text.verbosity", VALUE),
    (body(text={"size": 1}), "text.size", UNKNOWN),
    (body(text="plain"), "text", TYPE),
    (body(prompt_cache_options={"ttl": "12h"}), "prompt_cache_options.ttl", LATER),
    (body(prompt_cache_options={"ttl": "1s"}), "prompt_cache_options.ttl", VALUE),
]


@pytest.mark.parametrize(("sent", "param", "code"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(sent: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_responses.read(sent)
    error = caught.value
    assert (error.param, error.code, error.status) == (param, code, 400)


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        ({}, "model", MISSING),
        ({"model": "m"}, "input", MISSING),
        (body(temperature=1), "temperature", UNKNOWN),
        (body(stream=True), "stream", UNKNOWN),
        (body(store=True), "store", UNKNOWN),
        (body(personality="friendly"), "personality", LATER),
        (body(personality=1), "personality", TYPE),
        (body(tools=[{}]), "tools[0].type", MISSING),
        (body(tools=[{"type": "web_search"}]), "tools[0].type", LATER),
        (body(max_tool_calls=1), "max_tool_calls", UNKNOWN),
        (body(truncation="middle"), "truncation", VALUE),
        (body(background=True), "background", UNKNOWN),
        (body(conversation={}), "conversation.id", MISSING),
        (body(conversation="c", previous_response_id="r"), "conversation", TOGETHER),
        (body(input=[{"role": "user"}]), "input[0].content", MISSING),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_is_named_when_counting(sent: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_responses.read_input_tokens(sent)
    assert (caught.value.param, caught.value.code) == (param, code)
