"""Chat Completions bodies that are good: what is read from them."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from openai.types.chat import completion_create_params

from ouzel.api import read_chat, reading
from ouzel.core.errors import RequestError
from ouzel.core.items import Message, Reasoning, Refusal, Text
from ouzel.core.request import Request, Sampling

HELLO = [{"role": "user", "content": "Hello!"}]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "o4-mini", "messages": HELLO, **more}


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "o4-mini", "messages": list(messages)}


def items(*messages: dict[str, Any]) -> list[Any]:
    """What was read, without the ids, which are new each time."""
    read = read_chat.read(said(*messages)).request.input
    assert len({item.id for item in read}) == len(read)
    return [
        (item.role, item.parts, item.name) if isinstance(item, Message) else item.text
        for item in read
    ]


def test_the_least_that_can_be_asked() -> None:
    asked = read_chat.read(body())
    message = asked.request.input[0]
    assert message.id.startswith("msg_")
    assert asked == read_chat.ChatRequest(
        Request(
            "chat",
            "o4-mini",
            (Message(message.id, "user", (Text("Hello!"),)),),
            sampling=Sampling(),
        ),
        n=1,
        stream=False,
        include_usage=False,
    )
    assert asked.request.store is False


def test_everything_that_can_be_asked() -> None:
    asked = read_chat.read(
        body(
            n=8,
            stop=["END", "\n\n"],
            seed=-5,
            temperature=0,
            top_p=1,
            presence_penalty=-2,
            frequency_penalty=1.5,
            logit_bias={"50256": -100, "7": 0.5},
            logprobs=True,
            top_logprobs=20,
            max_completion_tokens=64,
            stream=True,
            stream_options={"include_usage": True, "include_obfuscation": False},
            metadata={"k": "v", "": ""},
            user="u",
            safety_identifier="s",
            prompt_cache_key="p",
            prompt_cache_retention="in_memory",
            service_tier="auto",
        )
    )
    assert (asked.n, asked.stream, asked.include_usage) == (8, True, True)
    request = asked.request
    assert request.sampling == Sampling(
        temperature=0.0,
        top_p=1.0,
        presence_penalty=-2.0,
        frequency_penalty=1.5,
        seed=-5,
        stop=("END", "\n\n"),
        logit_bias={"50256": -100.0, "7": 0.5},
        top_logprobs=20,
    )
    assert request.max_output_tokens == 64
    assert request.metadata == {"k": "v", "": ""}
    assert request.labels == {
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "p",
        "prompt_cache_retention": "in_memory",
        "service_tier": "auto",
    }


@pytest.mark.parametrize(
    ("more", "attribute", "expected"),
    [
        ({"stop": "END"}, "sampling.stop", ("END",)),
        ({"logprobs": True}, "sampling.top_logprobs", 0),
        ({"logprobs": True, "top_logprobs": 2}, "sampling.top_logprobs", 2),
        ({"logprobs": False}, "sampling.top_logprobs", None),
        ({"logprobs": False, "top_logprobs": 0}, "sampling.top_logprobs", None),
        ({"max_tokens": 3}, "max_output_tokens", 3),
        ({"max_tokens": None, "max_completion_tokens": 4}, "max_output_tokens", 4),
        ({"seed": 2**63 - 1}, "sampling.seed", 2**63 - 1),
    ],
)
def test_single_parameters(more: dict[str, Any], attribute: str, expected: Any) -> None:
    found: Any = read_chat.read(body(**more)).request
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == expected


def test_every_role_and_part() -> None:
    read = items(
        {"role": "developer", "content": "d"},
        {"role": "system", "content": [{"type": "text", "text": "s"}], "name": "sys"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "x"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": None, "refusal": "never"},
        {"role": "user", "content": "", "name": "Zoë"},
    )
    assert read == [
        ("developer", (Text("d"),), None),
        ("system", (Text("s"),), "sys"),
        ("user", (Text("a"), Text("b")), None),
        ("assistant", (Text("x"),), None),
        ("assistant", (Refusal("no"),), None),
        ("assistant", (Refusal("never"),), None),
        ("user", (Text(""),), "Zoë"),
    ]


def test_thinking_given_back_comes_before_its_answer() -> None:
    answer = {"role": "assistant", "content": "4", "reasoning_content": "two and two"}
    asked = read_chat.read(said(HELLO[0], answer, HELLO[0]))
    kinds = [type(item) for item in asked.request.input]
    assert kinds == [Message, Reasoning, Message, Message]
    assert items(answer) == ["two and two", ("assistant", (Text("4"),), None)]
    assert items({**answer, "content": None}) == ["two and two"]
    assert items({**answer, "reasoning_content": ""}) == [("assistant", (Text("4"),), None)]


def test_an_answer_of_the_sdk_is_given_back_as_it_came() -> None:
    """What `message.model_dump()` of the SDK writes, unset fields and all."""
    dumped = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "reasoning_content": None,
    }
    assert items(dumped) == [("assistant", (Text("Hi"),), None)]


def test_text_may_hold_any_character() -> None:
    odd = "a\0b\x1b\u2028🦆<|im_end|>"
    assert items({"role": "user", "content": odd}) == [("user", (Text(odd),), None)]


NEUTRAL: list[dict[str, Any]] = [
    {"tools": []},
    {"tool_choice": "auto"},
    {"tool_choice": "none", "tools": []},
    {"parallel_tool_calls": True},
    {"functions": []},
    {"function_call": "auto"},
    {"function_call": "none"},
    {"modalities": ["text"]},
    {"response_format": {"type": "text"}},
    {"store": False},
    {"service_tier": "default"},
    {"verbosity": "medium"},
    {"stream_options": {}},
    {"stream_options": {"include_usage": False, "include_obfuscation": False}},
    {"stream_options": {"include_usage": None}},
    {"prompt_cache_retention": "in_memory"},
    {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}},
    {"metadata": {}},
    {"logit_bias": {}},
]


@pytest.mark.parametrize("more", NEUTRAL, ids=str)
def test_values_that_ask_for_nothing_pass(more: dict[str, Any]) -> None:
    plain, asked = read_chat.read(body()), read_chat.read(body(**more))
    assert asked.request.sampling == plain.request.sampling
    assert (asked.n, asked.stream, asked.include_usage) == (1, False, False)


KNOWN = sorted(typing.get_type_hints(completion_create_params.CompletionCreateParamsBase))


@pytest.mark.parametrize("name", [*KNOWN, "stream"])
def test_null_stands_for_not_set(name: str) -> None:
    if name in ("model", "messages"):
        with pytest.raises(RequestError, match="but got null") as caught:
            read_chat.read(body(**{name: None}))
        assert (caught.value.param, caught.value.code) == (name, "invalid_type")
    else:
        read_chat.read(body(**{name: None}))


def test_every_parameter_of_the_sdk_is_known_and_no_other() -> None:
    assert sorted({**read_chat._ROWS, **read_chat._LATER}) == sorted([*KNOWN, "stream"])
    assert not set(read_chat._ROWS) & set(read_chat._LATER)


EXAMPLES = [
    """{"model": "gpt-5.4", "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"}]}""",
    """{"model": "gpt-5.4", "stream": true, "messages": [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"}]}""",
    """{"model": "gpt-5.4", "logprobs": true, "top_logprobs": 2,
        "messages": [{"role": "user", "content": "Hello!"}]}""",
]


@pytest.mark.parametrize("raw", EXAMPLES)
def test_the_references_text_examples_are_read(raw: str) -> None:
    read_chat.read(reading.decode_body(raw.encode()))


def test_a_body_is_left_as_it_was() -> None:
    sent = body(stop="a", metadata={"a": "b"})
    read_chat.read(sent)
    assert sent == body(stop="a", metadata={"a": "b"})
