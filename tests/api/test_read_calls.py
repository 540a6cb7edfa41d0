"""Calls and their outputs that clients give back, in both protocols."""

from __future__ import annotations

from typing import Any

import openresponses_types.types as open_responses
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import ResponseFunctionToolCall

from ouzel.api import read_chat, write_items
from ouzel.api.read_items import read_input
from ouzel.core.errors import RequestError
from ouzel.core.items import (
    CallOutput,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    Reasoning,
    Text,
    new_id,
)

MISSING, TYPE, VALUE, UNKNOWN, LATER = (
    "missing_required_parameter",
    "invalid_type",
    "invalid_value",
    "unknown_parameter",
    "unsupported_parameter",
)


def one(sent: dict[str, Any]) -> Any:
    (item,) = read_input([sent], ("input",))
    return item


def call(**more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", **more}


def output(**more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c", "output": "x", **more}


def test_calls_and_outputs_are_read() -> None:
    read = one(call(id="fc_1", status="incomplete"))
    assert read == FunctionCall("fc_1", "c", "f", "{}", "incomplete")
    bare = one({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "a\nb"})
    assert bare == CustomCall(bare.id, "c", "f", "a\nb")
    answered = one(output())
    assert answered == CallOutput(answered.id, "c", (Text("x"),))
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    answered = one({**output(output=parts), "type": "custom_tool_call_output"})
    assert (answered.parts, answered.of, answered.plain) == (
        (Text("a"), Text("b")),
        "custom",
        False,
    )
    assert len({one(call()).id, one(call()).id, bare.id, answered.id}) == 4


def test_items_dumped_by_clients_are_read() -> None:
    dumped = ResponseFunctionToolCall.model_validate(call(id="fc_1")).model_dump(by_alias=True)
    assert one(dumped) == FunctionCall("fc_1", "c", "f", "{}")
    sent = open_responses.FunctionCallItemParam.model_validate(call())
    assert one(sent.model_dump(mode="json")).call_id == "c"
    answered = open_responses.FunctionCallOutputItemParam.model_validate(output())
    assert one(answered.model_dump(mode="json")).text == "x"


def hosted(**more: Any) -> dict[str, Any]:
    return {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "l",
        "name": "n",
        "arguments": "{}",
        **more,
    }


def test_hosted_calls_are_read() -> None:
    assert one(hosted(output="o")) == HostedCall("mcp_1", "l", "n", "{}", "o")
    assert one(hosted(error="e")) == HostedCall("mcp_1", "l", "n", "{}", None, "e", "failed")
    assert one(hosted(status="calling")).status == "in_progress"
    assert one(hosted(status="incomplete")).status == "failed"
    for error, told in (
        ({"type": "http_error", "code": 500, "message": "m"}, "m"),
        ({"type": "mcp_protocol_error", "code": -1, "message": "m"}, "m"),
        ({"type": "mcp_tool_execution_error", "content": "m"}, "m"),
        ({"type": "mcp_tool_execution_error", "content": [{"text": "m"}, {"text": "n"}]}, "m\nn"),
        ({"type": "mcp_tool_execution_error", "content": [{"x": 1}]}, '{"content":[{"x":1}]}'),
    ):
        assert one(hosted(error=error, status="failed")).error == told


NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
TEXTS = st.text(max_size=20)
STATUSES = st.sampled_from(["in_progress", "completed", "incomplete"])
PLAIN = st.builds(Text, TEXTS).map(lambda part: (part,))
PARTS = st.lists(st.builds(Text, TEXTS), max_size=3).map(tuple)
KINDS = st.sampled_from(["function", "custom"])
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(FunctionCall, st.builds(new_id, st.just("fc")), NAMES, NAMES, TEXTS, STATUSES),
    st.builds(CustomCall, st.builds(new_id, st.just("ctc")), NAMES, NAMES, TEXTS, STATUSES),
    st.builds(
        CallOutput,
        st.builds(new_id, st.just("fco")),
        NAMES,
        PLAIN,
        KINDS,
        st.just(True),
        STATUSES,
    ),
    st.builds(CallOutput, st.builds(new_id, st.just("fco")), NAMES, PARTS, KINDS, st.just(False)),
    st.builds(
        HostedCall,
        st.builds(new_id, st.just("mcp")),
        NAMES,
        NAMES,
        TEXTS,
        st.none() | TEXTS,
        st.none() | TEXTS,
        st.sampled_from(["in_progress", "completed", "failed"]),
    ),
)


@given(st.lists(ITEMS, min_size=1, max_size=4).map(tuple))
def test_what_the_server_writes_reads_back_as_it_was(items: tuple[Item, ...]) -> None:
    assert read_input([write_items.item(item) for item in items], ("input",)) == items


BAD: list[tuple[dict[str, Any], str, str]] = [
    (call(call_id=None), "call_id", TYPE),
    (call(call_id=""), "call_id", "empty_string"),
    (call(name="a b"), "name", VALUE),
    (call(name=None), "name", TYPE),
    (call(arguments={}), "arguments", TYPE),
    (call(status="failed"), "status", VALUE),
    (call(namespace="n"), "namespace", LATER),
    (call(caller={"type": "program", "caller_id": "p"}), "caller", LATER),
    (call(output="x"), "output", UNKNOWN),
    ({"type": "function_call", "name": "f", "arguments": ""}, "call_id", MISSING),
    ({"type": "custom_tool_call", "call_id": "c", "name": "f"}, "input", MISSING),
    (output(output=None), "output", TYPE),
    (output(output=5), "output", TYPE),
    (output(output=[{"type": "input_image", "image_url": "x"}]), "output[0].type", LATER),
    (output(output=[{"type": "input_file", "file_id": "x"}]), "output[0].type", LATER),
    (output(output=[{"type": "output_text", "text": "x"}]), "output[0].type", VALUE),
    (output(name="f"), "name", LATER),
    ({"type": "function_call_output", "output": "x"}, "call_id", MISSING),
    (hosted(server_label=None), "server_label", TYPE),
    (hosted(error={"type": "bad luck"}), "error.type", VALUE),
    (hosted(error={"type": "http_error", "code": 1}), "error.message", MISSING),
    (hosted(error=5), "error", TYPE),
    (hosted(status="done"), "status", VALUE),
    (hosted(approval_request_id="a"), "approval_request_id", LATER),
]


@pytest.mark.parametrize(("item", "where", "code"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(item: dict[str, Any], where: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        one(item)
    assert (caught.value.param, caught.value.code) == (f"input[0].{where}", code)


# Chat Completions.

ASK = {"role": "user", "content": "a"}


def chat(*messages: dict[str, Any]) -> tuple[Item, ...]:
    return read_chat.read({"model": "m", "messages": list(messages)}).request.input


def function(made: str, **more: Any) -> dict[str, Any]:
    return {
        "id": made,
        "type": "function",
        "function": {"name": "f", "arguments": "{}", **more},
    }


def calls(*made: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(made), **more}


def result(made: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": made, "content": content, **more}


CUSTOM = {"id": "d", "type": "custom", "custom": {"name": "g", "input": "1+1"}}


def test_a_conversation_with_calls_is_read() -> None:
    read = chat(
        ASK,
        calls(function("c"), CUSTOM, content="Wait.", reasoning_content="Hm."),
        result("d", [{"type": "text", "text": "2"}, {"type": "text", "text": "!"}]),
        result("c", name="f"),
        calls(function("c"), content=""),
        result("c", ""),
        {"role": "assistant", "content": "Done."},
    )
    assert [type(item) for item in read] == [
        *(Message, Reasoning, Message, FunctionCall, CustomCall, CallOutput, CallOutput),
        *(FunctionCall, CallOutput, Message),
    ]
    made, custom, second, first = read[3:7]
    assert made == FunctionCall(made.id, "c", "f", "{}")
    assert custom == CustomCall(custom.id, "d", "g", "1+1")
    assert second == CallOutput(second.id, "d", (Text("2"), Text("!")), "custom", plain=False)
    assert first == CallOutput(first.id, "c", (Text("x"),))
    assert len({item.id for item in read}) == len(read)


def test_a_message_of_the_sdk_is_given_back_as_it_came() -> None:
    message = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "tool_calls": [function("c"), CUSTOM]}
    )
    for dumped in (message.model_dump(), message.to_dict()):
        read = chat(ASK, dumped, result("c"), result("d"))
        assert [type(item) for item in read[1:3]] == [FunctionCall, CustomCall]


UNPAIRED: list[tuple[list[dict[str, Any]], str, str]] = [
    ([result("c")], "messages[0].tool_call_id", "must be a response to a preceding message"),
    ([ASK, calls(function("c")), result("d")], "messages[2].tool_call_id", "the id 'd'"),
    (
        [calls(function("c")), result("c"), result("c")],
        "messages[2].tool_call_id",
        "must be a response",
    ),
    ([calls(function("c"))], "messages[0].tool_calls", "response messages: 'c'."),
    (
        [ASK, calls(function("c"), function("d")), result("c"), ASK],
        "messages[1].tool_calls",
        "response messages: 'd'.",
    ),
    (
        [calls(function("c")), calls(function("d")), result("d")],
        "messages[0].tool_calls",
        "must be followed by tool messages responding to each 'tool_call_id'",
    ),
    ([calls(function("c"), function("c"))], "messages[0].tool_calls[1].id", "the same id"),
]


@pytest.mark.parametrize(
    ("messages", "param", "words"), UNPAIRED, ids=lambda value: str(value)[:60]
)
def test_calls_and_outputs_go_together(
    messages: list[dict[str, Any]], param: str, words: str
) -> None:
    with pytest.raises(RequestError) as caught:
        chat(*messages)
    assert (caught.value.param, caught.value.code) == (param, VALUE)
    assert words in caught.value.message


BAD_CHAT: list[tuple[dict[str, Any], str, str]] = [
    (calls(), "content", TYPE),
    ({"role": "assistant", "tool_calls": []}, "content", MISSING),
    (calls({}), "tool_calls[0].type", MISSING),
    (calls({**function("c"), "type": "magic"}), "tool_calls[0].type", VALUE),
    (calls({"type": "function", "id": "c"}), "tool_calls[0].function", MISSING),
    (calls({**function("c"), "id": 1}), "tool_calls[0].id", TYPE),
    (calls({**function("c"), "index": 0}), "tool_calls[0].index", UNKNOWN),
    (calls(function("c", arguments={})), "tool_calls[0].function.arguments", TYPE),
    (calls(function("c", name="a b")), "tool_calls[0].function.name", VALUE),
    (calls(function("c"), function_call={}), "function_call", LATER),
    ({"role": "tool", "content": "x"}, "tool_call_id", MISSING),
    ({"role": "tool", "tool_call_id": "c"}, "content", MISSING),
    (result("c", None), "content", TYPE),
    (result("c", []), "content", "empty_array"),
    (result("c", [{"type": "image_url"}]), "content[0].type", VALUE),
    (result("c", call_id="c"), "call_id", UNKNOWN),
]


@pytest.mark.parametrize(("message", "where", "code"), BAD_CHAT, ids=lambda value: str(value)[:60])
def test_what_is_wrong_in_chat_is_named(message: dict[str, Any], where: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat(message)
    assert (caught.value.param, caught.value.code) == (f"messages[0].{where}", code)
