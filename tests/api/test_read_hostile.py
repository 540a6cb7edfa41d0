"""Whatever is sent, reading ends with a request or with an error that names a place in it."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ouzel.api import read_chat, read_responses, reading
from ouzel.core.errors import RequestError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": ["string", "null"], "pattern": "^a", "enum": ["a"]},
        "b": {"anyOf": [{"$ref": "#/$defs/d"}, {"type": "integer", "minimum": 1}]},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
    "$defs": {"d": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "a"}], "name": "n"},
        {"role": "user", "content": "b"},
        {
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "c"}],
            "reasoning_content": "d",
            "annotations": [],
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "c2", "type": "custom", "custom": {"name": "c", "input": "x"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "y"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "json"},
        {"role": "user", "content": "json"},
    ],
    "n": 2,
    "stop": ["e"],
    "seed": 1,
    "temperature": 0.5,
    "logit_bias": {"1": 2},
    "logprobs": True,
    "top_logprobs": 2,
    "max_completion_tokens": 9,
    "stream": True,
    "stream_options": {"include_usage": True},
    "metadata": {"f": "g"},
    "user": "h",
    "modalities": ["text"],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": SCHEMA, "strict": True},
    },
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}},
        {
            "type": "custom",
            "custom": {
                "name": "c",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "a"}},
            },
        },
        {"type": "web_search", "filters": {}},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}],
        },
    },
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "verbosity": "low",
    "prompt_cache_options": {"mode": "implicit"},
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "b",
                    "annotations": [],
                    "logprobs": [
                        {
                            "token": "b",
                            "logprob": -1.5,
                            "bytes": [98],
                            "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": [98]}],
                        }
                    ],
                },
                {"type": "refusal", "refusal": "c"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "d"}],
            "content": [{"type": "reasoning_text", "text": "e"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_text", "text": "a"}],
        },
        {"type": "custom_tool_call", "call_id": "c2", "name": "c", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "json"},
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "server_label": "l",
            "name": "n",
            "arguments": "{}",
            "error": {"type": "mcp_tool_execution_error", "content": "e"},
            "status": "failed",
        },
    ],
    "instructions": "f",
    "max_output_tokens": 16,
    "include": ["message.output_text.logprobs"],
    "metadata": {"g": "h"},
    "text": {
        "format": {"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True},
        "verbosity": "high",
    },
    "tools": [
        {"type": "function", "name": "f", "parameters": SCHEMA},
        {
            "type": "custom",
            "name": "c",
            "format": {"type": "grammar", "syntax": "regex", "definition": "a"},
        },
        {"type": "web_search", "filters": {}},
    ],
    "tool_choice": {"type": "custom", "name": "c"},
    "max_tool_calls": 2,
    "reasoning": {"effort": "high", "summary": "auto"},
    "previous_response_id": "resp_1",
    "stream_options": {"include_obfuscation": False},
}
COUNTED = ("model", "input", "instructions", "text", "tools", "tool_choice", "reasoning")
COUNT = {name: RESPONSES[name] for name in COUNTED}

HOSTED = frozenset({"web_search"})
READERS = {
    "chat": (partial(read_chat.read, hosted=HOSTED), CHAT),
    "responses": (partial(read_responses.read, hosted=HOSTED), RESPONSES),
    "input_tokens": (partial(read_responses.read_input_tokens, hosted=HOSTED), COUNT),
}

# Strings that the tables know reach further in than random ones.
KNOWN = {*read_chat._ROWS, *read_chat._LATER, *read_responses._ROWS, *read_responses._LATER}
KNOWN |= {"type", "role", "content", "text", "id", "summary", "user", "assistant", "message"}
KNOWN |= {"function", "custom", "name", "call_id", "parameters", "strict", "properties", "$ref"}
KNOWN |= {"object", "anyOf", "items", "#", "json_object", "json_schema", "schema", "none", "mode"}
KNOWN |= {"input_text", "output_text", "refusal", "reasoning", "image_url", "auto", "include_usage"}
WORDS = st.sampled_from(sorted(KNOWN))
STRINGS = WORDS | st.text(max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=12,
)


def refusal(name: str, body: dict[str, Any]) -> RequestError | None:
    """Read the body, as it arrives. None if it is good, and can be kept and sent on as UTF-8."""
    try:
        read = READERS[name][0](reading.decode_body(msgspec.json.encode(body)))
    except RequestError as error:
        return error
    msgspec.json.encode(read)
    return None


def ends_well(name: str, body: dict[str, Any]) -> bool:
    """Whether the body is good; if it is not, the error must be one that a client can use."""
    error = refusal(name, body)
    if error is None:
        return True
    assert error.status == 400
    assert error.code
    assert error.message.endswith(".")
    msgspec.json.encode([error.message, error.param, error.code])
    sent = [key[:64] for key in body]
    assert error.param is not None
    assert error.param in ("model", "messages", "input", "tool_choice") or error.param.startswith(
        tuple(sent)
    )
    return False


@pytest.mark.parametrize("name", READERS)
def test_what_the_mutations_start_from_is_good(name: str) -> None:
    assert ends_well(name, READERS[name][1])


@pytest.mark.parametrize("name", READERS)
@given(body=st.dictionaries(STRINGS, JSON, max_size=5))
def test_any_object(name: str, body: dict[str, Any]) -> None:
    ends_well(name, body)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside the value."""
    found: list[tuple[Any, Any]] = []
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=400)
@given(data=st.data())
def test_good_bodies_with_a_few_things_wrong(name: str, data: st.DataObject) -> None:
    body = copy.deepcopy(READERS[name][1])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(body) or [(body, "model")]))
        match data.draw(st.sampled_from(["replace", "remove", "add", "swap"])):
            case "replace":
                container[key] = data.draw(JSON)
            case "remove":
                container.pop(key, None) if isinstance(container, dict) else container.pop()
            case "add" if isinstance(container, dict):
                container[data.draw(STRINGS)] = data.draw(JSON)
            case "add":
                container.append(data.draw(JSON))
            case "swap":
                container[key] = copy.deepcopy(data.draw(st.sampled_from(places(body)))[0])
        if not body:
            break
    ends_well(name, body)


TEXT_PART = st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=9)})
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "system", "developer", "assistant"]),
        "content": st.text(max_size=9) | st.lists(TEXT_PART, min_size=1, max_size=3),
    },
    optional={"name": st.none() | st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)},
)
SHORT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=64)
PENALTY = st.none() | st.floats(-2, 2) | st.integers(-2, 2)
GOOD_CHAT = st.fixed_dictionaries(
    {"model": SHORT.filter(bool), "messages": st.lists(MESSAGE, min_size=1, max_size=4)},
    optional={
        "temperature": st.none() | st.floats(0, 2) | st.integers(0, 2),
        "top_p": st.none() | st.floats(0, 1),
        "presence_penalty": PENALTY,
        "frequency_penalty": PENALTY,
        "n": st.none() | st.integers(1, 8),
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "stream": st.none() | st.booleans(),
        "max_completion_tokens": st.none() | st.integers(1, 2**31 - 1),
        "stop": st.none()
        | SHORT.filter(bool)
        | st.lists(SHORT.filter(bool), min_size=1, max_size=4),
        "metadata": st.none() | st.dictionaries(SHORT, SHORT, max_size=16),
        "logit_bias": st.none()
        | st.dictionaries(st.integers(0, 99_999).map(str), st.integers(-100, 100), max_size=4),
        "user": st.none() | SHORT,
        "safety_identifier": st.none() | SHORT,
        "prompt_cache_key": st.none() | SHORT,
    },
)


@given(GOOD_CHAT)
def test_what_the_reference_allows_is_read(body: dict[str, Any]) -> None:
    assert ends_well("chat", body)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0\\du8 \n', max_size=60).map(str.encode))
def test_any_bytes(raw: bytes) -> None:
    """Agrees with the standard library on what is an object, where that is strict enough."""
    try:
        body = reading.decode_body(raw)
    except RequestError:
        return
    assert body == json.loads(raw)


FREE = ("filters", "content", "enum")
"""Where a client may put any JSON: settings of hosted tools, their errors, values of an enum."""


@pytest.mark.parametrize("name", READERS)
def test_deep_values_in_every_place(name: str) -> None:
    """As deep as a body may be, wherever it stands: no reader walks down blindly."""
    deep: Any = 1
    for _ in range(reading.MAX_DEPTH // 2 - 10):
        deep = [{"type": deep}]
    good = READERS[name][1]
    for index in range(len(places(good))):
        body = copy.deepcopy(good)
        container, key = places(body)[index]
        free = key in FREE or container == SCHEMA["properties"]["a"]["enum"]
        container[key] = deep
        assert not ends_well(name, body) or free


def test_big_bodies_are_read_in_one_pass() -> None:
    """A million keys, parts or messages cost time in proportion, and end in an error."""
    for body in (
        {"model": "m", "messages": [{"role": "user", "content": "a"}] * 100_000},
        {"model": "m", "messages": [{"role": "user", "content": [{}] * 100_000}]},
        {"model": "m", "messages": [], "metadata": {str(i): "v" for i in range(100_000)}},
        {str(i): i for i in range(100_000)},
        {"model": "m" * 10_000_000, "messages": "x" * 10_000_000},
    ):
        assert not ends_well("chat", body)
    same = [{"role": "user", "content": "a", "id": f"m{i % 8000}"} for i in range(8192)]
    assert not ends_well("responses", {"model": "m", "input": same})
