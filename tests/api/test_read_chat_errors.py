"""Chat Completions bodies that are bad: each error names the place and says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from ouzel.api import read_chat
from ouzel.core.errors import RequestError

HELLO = [{"role": "user", "content": "Hello!"}]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "o4-mini", "messages": HELLO, **more}


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "o4-mini", "messages": list(messages)}


def part(value: Any) -> dict[str, Any]:
    return said({"role": "user", "content": [{"type": "text", "text": "a"}, value]})


LATER, UNKNOWN, VALUE, TYPE, MISSING, PAIR = (
    "unsupported_parameter",
    "unknown_parameter",
    "invalid_value",
    "invalid_type",
    "missing_required_parameter",
    "invalid_parameter_combination",
)

BAD: list[tuple[dict[str, Any], str, str]] = [
    # required
    ({}, "model", MISSING),
    ({"model": "m"}, "messages", MISSING),
    ({"messages": HELLO}, "model", MISSING),
    (body(model=1), "model", TYPE),
    (body(model=""), "model", "empty_string"),
    (body(model="m" * 513), "model", "string_above_max_length"),
    (body(model="a\0b"), "model", VALUE),
    (body(messages="Hello!"), "messages", TYPE),
    (body(messages={}), "messages", TYPE),
    (body(messages=[]), "messages", "empty_array"),
    (body(messages=HELLO * 8193), "messages", "array_above_max_length"),
    # messages
    (body(messages=["Hello!"]), "messages[0]", TYPE),
    (body(messages=[None]), "messages[0]", TYPE),
    (said({}), "messages[0].role", MISSING),
    (said({"content": "a"}), "messages[0].role", MISSING),
    (said({"role": None, "content": "a"}), "messages[0].role", TYPE),
    (said({"role": 1, "content": "a"}), "messages[0].role", TYPE),
    (said({"role": "robot", "content": "a"}), "messages[0].role", VALUE),
    (said({"role": "function", "content": "a", "name": "f"}), "messages[0].role", LATER),
    (said({"role": "user"}), "messages[0].content", MISSING),
    (said({"role": "user", "content": None}), "messages[0].content", TYPE),
    (said({"role": "user", "content": 5}), "messages[0].content", TYPE),
    (said({"role": "user", "content": {}}), "messages[0].content", TYPE),
    (said({"role": "user", "content": []}), "messages[0].content", "empty_array"),
    (said(HELLO[0], {"role": "user", "content": "a", "foo": 1}), "messages[1].foo", UNKNOWN),
    (said({"role": "user", "content": "a", "foo": None}), "messages[0].foo", UNKNOWN),
    (said({"role": "user", "content": "a", "refusal": "no"}), "messages[0].refusal", UNKNOWN),
    (said({"role": "user", "content": "a", "name": ""}), "messages[0].name", "empty_string"),
    (said({"role": "user", "content": "a", "name": 1}), "messages[0].name", TYPE),
    (said({"role": "user", "content": "a", "name": "<|x|>"}), "messages[0].name", VALUE),
    (said({"role": "user", "content": "a", "name": "a b"}), "messages[0].name", VALUE),
    (
        said({"role": "user", "content": "a", "name": "n" * 65}),
        "messages[0].name",
        "string_above_max_length",
    ),
    # parts
    (part("a"), "messages[0].content[1]", TYPE),
    (part({}), "messages[0].content[1].type", MISSING),
    (part({"type": "text"}), "messages[0].content[1].text", MISSING),
    (part({"type": "text", "text": None}), "messages[0].content[1].text", TYPE),
    (part({"type": "text", "text": 1}), "messages[0].content[1].text", TYPE),
    (part({"type": "text", "text": "a", "bar": 1}), "messages[0].content[1].bar", UNKNOWN),
    (
        part({"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}),
        "messages[0].content[1].prompt_cache_breakpoint",
        LATER,
    ),
    (part({"type": "input_text", "text": "a"}), "messages[0].content[1].type", VALUE),
    (part({"type": "refusal", "refusal": "a"}), "messages[0].content[1].type", VALUE),
    (part({"type": ["text"]}), "messages[0].content[1].type", TYPE),
    (part({"type": "image_url", "image_url": {}}), "messages[0].content[1].type", LATER),
    (part({"type": "input_audio"}), "messages[0].content[1].type", LATER),
    (part({"type": "file", "file": {}}), "messages[0].content[1].file.file_id", MISSING),
    (
        said({"role": "system", "content": [{"type": "image_url"}]}),
        "messages[0].content[0].type",
        VALUE,
    ),
    # assistant messages
    (said({"role": "assistant"}), "messages[0].content", MISSING),
    (said({"role": "assistant", "content": None}), "messages[0].content", TYPE),
    (said({"role": "assistant", "content": []}), "messages[0].content", "empty_array"),
    (said({"role": "assistant", "content": "a", "refusal": 1}), "messages[0].refusal", TYPE),
    (
        said({"role": "assistant", "content": "a", "reasoning_content": []}),
        "messages[0].reasoning_content",
        TYPE,
    ),
    (
        said({"role": "assistant", "content": "a", "function_call": {}}),
        "messages[0].function_call",
        LATER,
    ),
    (
        said({"role": "assistant", "content": "a", "audio": {"id": "x"}}),
        "messages[0].audio",
        LATER,
    ),
    (
        said({"role": "assistant", "content": "a", "annotations": [{}]}),
        "messages[0].annotations",
        LATER,
    ),
    # numbers
    (body(n=0), "n", "integer_below_min_value"),
    (body(n=9), "n", "integer_above_max_value"),
    (body(n=1.0), "n", TYPE),
    (body(n=True), "n", TYPE),
    (body(n="2"), "n", TYPE),
    (body(temperature=2.1), "temperature", "decimal_above_max_value"),
    (body(temperature=-0.1), "temperature", "decimal_below_min_value"),
    (body(temperature="hot"), "temperature", TYPE),
    (body(temperature=False), "temperature", TYPE),
    (body(temperature=10**300), "temperature", "decimal_above_max_value"),
    (body(top_p=1.01), "top_p", "decimal_above_max_value"),
    (body(presence_penalty=3), "presence_penalty", "decimal_above_max_value"),
    (body(frequency_penalty=-3), "frequency_penalty", "decimal_below_min_value"),
    (body(seed=1.5), "seed", TYPE),
    (body(seed=2**63), "seed", "integer_above_max_value"),
    (body(seed=-(2**63) - 1), "seed", "integer_below_min_value"),
    (body(max_tokens=0), "max_tokens", "integer_below_min_value"),
    (body(max_completion_tokens=-1), "max_completion_tokens", "integer_below_min_value"),
    (body(max_completion_tokens=2**31), "max_completion_tokens", "integer_above_max_value"),
    (body(max_completion_tokens="10"), "max_completion_tokens", TYPE),
    (body(max_tokens=5, max_completion_tokens=5), "max_tokens", PAIR),
    (body(logprobs=1), "logprobs", TYPE),
    (body(logprobs=True, top_logprobs=21), "top_logprobs", "integer_above_max_value"),
    (body(logprobs=True, top_logprobs=-1), "top_logprobs", "integer_below_min_value"),
    (body(top_logprobs=2), "top_logprobs", PAIR),
    (body(logprobs=False, top_logprobs=2), "top_logprobs", PAIR),
    # stop, logit_bias, metadata
    (body(stop=[]), "stop", "empty_array"),
    (body(stop=["a"] * 5), "stop", "array_above_max_length"),
    (body(stop=""), "stop", "empty_string"),
    (body(stop=["a", ""]), "stop[1]", "empty_string"),
    (body(stop=[1]), "stop[0]", TYPE),
    (body(stop={"a": 1}), "stop", TYPE),
    (body(stop="s" * 1025), "stop", "string_above_max_length"),
    (body(logit_bias=[]), "logit_bias", TYPE),
    (body(logit_bias={"hello": 1}), "logit_bias", VALUE),
    (body(logit_bias={"-1": 1}), "logit_bias", VALUE),
    (body(logit_bias={"": 1}), "logit_bias", VALUE),
    (body(logit_bias={"²": 1}), "logit_bias", VALUE),
    (body(logit_bias={"9" * 5000: 1}), "logit_bias", VALUE),
    (body(logit_bias={"1": 101}), "logit_bias.1", "decimal_above_max_value"),
    (body(logit_bias={"1": True}), "logit_bias.1", TYPE),
    (
        body(logit_bias={str(i): 1 for i in range(1025)}),
        "logit_bias",
        "object_above_max_properties",
    ),
    (body(metadata=[]), "metadata", TYPE),
    (body(metadata={"a": 1}), "metadata.a", TYPE),
    (body(metadata={"a": None}), "metadata.a", TYPE),
    (body(metadata={"a": {"b": "c"}}), "metadata.a", TYPE),
    (body(metadata={"a": "v" * 513}), "metadata.a", "string_above_max_length"),
    (body(metadata={"a": "\0"}), "metadata.a", VALUE),
    (body(metadata={"k" * 65: "v"}), "metadata", "string_above_max_length"),
    (body(metadata={"\0": "v"}), "metadata", VALUE),
    (
        body(metadata={str(i): "v" for i in range(17)}),
        "metadata",
        "object_above_max_properties",
    ),
    # labels
    (body(user=1), "user", TYPE),
    (body(user="u" * 513), "user", "string_above_max_length"),
    (body(safety_identifier="s" * 65), "safety_identifier", "string_above_max_length"),
    (body(prompt_cache_key="p" * 65), "prompt_cache_key", "string_above_max_length"),
    (body(prompt_cache_key="\0"), "prompt_cache_key", VALUE),
    (body(service_tier="flex"), "service_tier", LATER),
    (body(service_tier="gold"), "service_tier", VALUE),
    (body(service_tier=1), "service_tier", TYPE),
    # streams
    (body(stream="yes"), "stream", TYPE),
    (body(stream_options={"include_usage": True}), "stream_options", PAIR),
    (body(stream=False, stream_options={"include_usage": True}), "stream_options", PAIR),
    (body(stream_options={"include_usage": 1}), "stream_options.include_usage", TYPE),
    (body(stream_options={"foo": 1}), "stream_options.foo", UNKNOWN),
    (body(stream_options=[]), "stream_options", TYPE),
    (
        body(stream=True, stream_options={"include_obfuscation": True}),
        "stream_options.include_obfuscation",
        LATER,
    ),
    # what other APIs and other servers have
    (body(foo=1), "foo", UNKNOWN),
    (body(foo=None), "foo", UNKNOWN),
    (body(input="a"), "input", UNKNOWN),
    (body(instructions="a"), "instructions", UNKNOWN),
    (body(max_output_tokens=16), "max_output_tokens", UNKNOWN),
    (body(top_k=5), "top_k", UNKNOWN),
    (body(**{"": 1}), "", UNKNOWN),
    # what comes later
    (body(parallel_tool_calls=1), "parallel_tool_calls", TYPE),
    (body(functions=[{"name": "f"}]), "functions", LATER),
    (body(function_call={"name": "f"}), "function_call", LATER),
    (body(reasoning_effort="huge"), "reasoning_effort", VALUE),
    (body(reasoning_effort=1), "reasoning_effort", TYPE),
    (body(response_format={"type": "xml"}), "response_format.type", VALUE),
    (body(response_format={"type": "text", "x": 1}), "response_format.x", UNKNOWN),
    (body(response_format={}), "response_format.type", MISSING),
    (body(response_format="text"), "response_format", TYPE),
    (body(modalities=["text", "audio"]), "modalities", LATER),
    (body(modalities=["video"]), "modalities[0]", VALUE),
    (body(modalities=[]), "modalities", "empty_array"),
    (body(audio={"voice": "alloy", "format": "wav"}), "audio", LATER),
    (body(prediction={"type": "content", "content": "a"}), "prediction", LATER),
    (body(web_search_options={}), "web_search_options", LATER),
    (body(store="yes"), "store", TYPE),
    (body(verbosity="loud"), "verbosity", VALUE),
    (body(moderation={"model": "omni"}), "moderation", LATER),
    (body(prompt_cache_retention="24h"), "prompt_cache_retention", LATER),
    (body(prompt_cache_options={"mode": "explicit"}), "prompt_cache_options.mode", LATER),
]


@pytest.mark.parametrize(("sent", "param", "code"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(sent: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_chat.read(sent)
    error = caught.value
    assert (error.param, error.code, error.status) == (param, code, 400)
    assert type(error) is RequestError
    assert error.message


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (body(foo=1), "Unknown parameter: 'foo'."),
        (
            said({"role": "user", "content": 5}),
            "Invalid type for 'messages[0].content': expected one of a string or array of "
            "objects, but got an integer instead.",
        ),
        (
            body(n=9),
            "Invalid 'n': integer above maximum value. Expected a value <= 8, but got 9 instead.",
        ),
        (
            said({"role": "robot", "content": "a"}),
            "Invalid value: 'robot'. Supported values are: 'developer', 'system', 'user', "
            "'assistant' and 'tool'.",
        ),
        (
            body(prompt_cache_retention="24h"),
            "Unsupported parameter: 'prompt_cache_retention' is not supported by this server yet. "
            "Leave it out or send 'in_memory'.",
        ),
        (
            said({"role": "function", "content": "a", "name": "f"}),
            "Unsupported parameter: 'function' as 'messages[0].role' is not supported by this "
            "server yet. Supported values are: 'developer', 'system', 'user', 'assistant' and "
            "'tool'.",
        ),
    ],
)
def test_errors_read_well(sent: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_chat.read(sent)
    assert caught.value.message == message


def test_an_error_holds_nothing_of_the_conversation() -> None:
    secret = "the launch code is 0000"
    with pytest.raises(RequestError) as caught:
        read_chat.read(said({"role": "user", "content": secret}, {"role": "user", "content": 1}))
    assert secret not in str(caught.value.__dict__)
