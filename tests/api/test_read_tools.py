"""Tools and tool choices of both protocols: what is read, and where bad ones are wrong."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from openai.types.responses import tool_param

from ouzel.api import read_chat, read_responses, read_tools
from ouzel.api.read_tools import NO_PARAMETERS
from ouzel.core.errors import RequestError
from ouzel.core.request import CustomTool, FunctionTool, Grammar, HostedTool, ToolChoice, ToolSpec

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
SCHEMA_TEXT = '{"type":"object","properties":{"a":{"type":"string"}}}'
STRICT = {**SCHEMA, "required": ["a"], "additionalProperties": False}
STRICT_TEXT = SCHEMA_TEXT[:-1] + ',"required":["a"],"additionalProperties":false}'
HOSTED = frozenset({"web_search", "add"})

MISSING, TYPE, VALUE, UNKNOWN, LATER, TOGETHER, SCHEMA_CODE = (
    "missing_required_parameter",
    "invalid_type",
    "invalid_value",
    "unknown_parameter",
    "unsupported_parameter",
    "invalid_parameter_combination",
    "invalid_function_parameters",
)


def chat(hosted: frozenset[str] = HOSTED, **more: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], **more}
    return read_chat.read(body, hosted=hosted).request


def responses(hosted: frozenset[str] = HOSTED, **more: Any) -> Any:
    return read_responses.read({"model": "m", "input": "a", **more}, hosted=hosted).request


def in_chat(tool: dict[str, Any]) -> dict[str, Any]:
    """The same tool in the form of Chat Completions."""
    kind = tool["type"]
    if kind not in ("function", "custom"):
        return tool
    inner = {key: value for key, value in tool.items() if key != "type"}
    grammar = inner.get("format", {})
    if grammar.get("type") == "grammar":
        rest = {key: value for key, value in grammar.items() if key != "type"}
        inner["format"] = {"type": "grammar", "grammar": rest}
    return {"type": kind, kind: inner}


GOOD: list[tuple[dict[str, Any], ToolSpec]] = [
    (
        {
            "type": "function",
            "name": "f",
            "description": "d",
            "parameters": SCHEMA,
            "strict": False,
        },
        FunctionTool("f", "d", SCHEMA_TEXT),
    ),
    (
        {"type": "function", "name": "f_-9", "parameters": STRICT, "strict": True},
        FunctionTool("f_-9", "", STRICT_TEXT, strict=True),
    ),
    (
        {"type": "function", "name": "f", "parameters": None, "strict": True},
        FunctionTool("f", "", NO_PARAMETERS, strict=True),
    ),
    (
        {"type": "function", "name": "f", "description": None, "parameters": {}, "strict": False},
        FunctionTool("f", "", NO_PARAMETERS),
    ),
    ({"type": "custom", "name": "c"}, CustomTool("c")),
    (
        {"type": "custom", "name": "c", "description": "d", "format": {"type": "text"}},
        CustomTool("c", "d"),
    ),
    (
        {
            "type": "custom",
            "name": "c",
            "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'},
        },
        CustomTool("c", "", Grammar("lark", 'start: "a"')),
    ),
    (
        {"type": "web_search", "filters": {"allowed_domains": ["a.b"]}, "user_location": None},
        HostedTool("web_search", '{"filters":{"allowed_domains":["a.b"]}}'),
    ),
    ({"type": "add"}, HostedTool("add")),
]


@pytest.mark.parametrize(("sent", "tool"), GOOD, ids=lambda value: str(value)[:60])
def test_tools_are_read_alike_in_both_protocols(sent: dict[str, Any], tool: ToolSpec) -> None:
    assert responses(tools=[sent]).tools == (tool,)
    assert chat(tools=[in_chat(sent)]).tools == (tool,)


def test_without_a_word_on_it_responses_are_strict_where_they_can() -> None:
    for schema, strict in ((STRICT, True), (SCHEMA, False), (None, True)):
        (tool,) = responses(tools=[{"type": "function", "name": "f", "parameters": schema}]).tools
        assert tool.strict is strict
        (tool,) = chat(tools=[{"type": "function", "function": {"name": "f"}}]).tools
        assert tool.strict is False


def test_neutral_settings_pass() -> None:
    more = {"allowed_callers": ["direct"], "defer_loading": False, "async": False}
    (tool,) = responses(tools=[{"type": "function", "name": "f", **more}]).tools
    assert tool.name == "f"


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "name": "f", **more}


BAD: list[tuple[Any, str, str]] = [
    ({}, "", TYPE),
    (["f"], "[0]", TYPE),
    ([function()] * 129, "", "array_above_max_length"),
    ([{}], "[0].type", MISSING),
    ([{"type": "telepathy"}], "[0].type", VALUE),
    ([{"type": "code_interpreter", "container": "c"}], "[0].type", LATER),
    ([{"type": "mcp", "server_label": "a"}], "[0].type", LATER),
    ([{"type": "function"}], "[0].name", MISSING),
    ([function(name="a b")], "[0].name", VALUE),
    ([function(name="")], "[0].name", "empty_string"),
    ([function(name="n" * 129)], "[0].name", "string_above_max_length"),
    ([function(name="é")], "[0].name", VALUE),
    ([function(strict="yes")], "[0].strict", TYPE),
    ([function(description=1)], "[0].description", TYPE),
    ([function(parameters=[])], "[0].parameters", TYPE),
    ([function(parameters="")], "[0].parameters", TYPE),
    ([function(parameters=[1])], "[0].parameters", TYPE),
    ([function(parameters={"type": "string"})], "[0].parameters", SCHEMA_CODE),
    ([function(parameters=SCHEMA, strict=True)], "[0].parameters", SCHEMA_CODE),
    ([function(function={"name": "f"})], "[0].function", UNKNOWN),
    ([function(defer_loading=True)], "[0].defer_loading", LATER),
    ([function(allowed_callers=["programmatic"])], "[0].allowed_callers", LATER),
    ([function(output_schema={"type": "object"})], "[0].output_schema", LATER),
    ([function(), {"type": "custom", "name": "f"}], "[1].name", VALUE),
    ([{"type": "add"}, function(name="add")], "[1].name", VALUE),
    ([{"type": "add"}, {"type": "add"}], "[1].type", VALUE),
    ([{"type": "add", "x": "y" * 300_000}], "[0]", VALUE),
    ([{"type": "custom", "name": "c", "format": {"type": "json"}}], "[0].format.type", VALUE),
    (
        [{"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark"}}],
        "[0].format.definition",
        MISSING,
    ),
    (
        [
            {
                "type": "custom",
                "name": "c",
                "format": {"type": "grammar", "syntax": "gbnf", "definition": "a"},
            }
        ],
        "[0].format.syntax",
        VALUE,
    ),
    ([{"type": "custom", "name": "c", "parameters": {}}], "[0].parameters", UNKNOWN),
]


@pytest.mark.parametrize(("tools", "where", "code"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_with_tools_is_named(tools: Any, where: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        responses(tools=tools)
    assert (caught.value.param, caught.value.code) == (f"tools{where}", code)


IN_CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "function", "name": "f"}, ".name", UNKNOWN),
    ({"type": "function"}, ".function", MISSING),
    ({"type": "function", "function": {}}, ".function.name", MISSING),
    ({"type": "function", "function": {"name": "n" * 65}}, ".function.name", "string_above_"),
    ({"type": "custom", "custom": {"name": "f"}}, ".custom.name", VALUE),  # not the first so called
    (
        {"type": "function", "function": {"name": "g", "strict": True, "parameters": SCHEMA}},
        ".function.parameters",
        SCHEMA_CODE,
    ),
    (
        {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar"}}},
        ".custom.format.grammar",
        MISSING,
    ),
]


@pytest.mark.parametrize(("tool", "where", "code"), IN_CHAT, ids=lambda value: str(value)[:60])
def test_what_is_wrong_in_chat_is_named(tool: Any, where: str, code: str) -> None:
    first = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(RequestError) as caught:
        chat(tools=[first, tool])
    assert caught.value.param == f"tools[1]{where}"
    assert str(caught.value.code).startswith(code)


def test_a_bad_schema_is_told_as_openai_tells_it() -> None:
    with pytest.raises(RequestError) as caught:
        responses(tools=[function(parameters={**STRICT, "required": []}, strict=True)])
    assert caught.value.message == (
        "Invalid schema for function 'f': In context=(), 'required' is required to be supplied "
        "and to be an array including every key in properties. Missing 'a'."
    )


def test_hosted_tools_are_those_that_the_server_has() -> None:
    tool = {"type": "web_search"}
    assert responses(tools=[tool]).tools == (HostedTool("web_search"),)
    with pytest.raises(RequestError) as caught:
        responses(hosted=frozenset(), tools=[tool])
    assert caught.value.code == LATER
    with pytest.raises(RequestError) as caught:
        responses(hosted=frozenset(), tools=[{"type": "add"}])
    assert caught.value.code == VALUE


def test_every_type_of_the_sdk_is_known() -> None:
    known = {*read_tools.HOSTED_TYPES, "function", "custom"}
    for kind in typing.get_args(tool_param.ToolParam):
        (hint,) = typing.get_args(typing.get_type_hints(kind, include_extras=True)["type"])
        assert set(typing.get_args(hint)) <= known


# Choices.

TOOLS = [
    {"type": "function", "name": "f"},
    {"type": "function", "name": "g"},
    {"type": "custom", "name": "c"},
    {"type": "web_search"},
]


def chooses(choice: Any) -> ToolChoice:
    """What both protocols read, each in its own form."""
    read: ToolChoice = responses(tools=TOOLS, tool_choice=choice).tool_choice
    own = choice
    if type(choice) is dict and choice["type"] == "allowed_tools":
        rest = {key: value for key, value in choice.items() if key != "type"}
        rest["tools"] = [in_chat(tool) for tool in rest["tools"]]
        own = {"type": "allowed_tools", "allowed_tools": rest}
    elif type(choice) is dict:
        own = in_chat(choice)
    assert chat(tools=[in_chat(t) for t in TOOLS], tool_choice=own).tool_choice == read
    return read


def test_every_form_of_choice_is_read() -> None:
    for mode in ("none", "auto", "required"):
        assert chooses(mode) == ToolChoice(mode)
    assert chooses({"type": "function", "name": "g"}) == ToolChoice("required", ("g",), "named")
    assert chooses({"type": "custom", "name": "c"}) == ToolChoice("required", ("c",), "named")
    named = ToolChoice("required", ("web_search",), "named")
    assert chooses({"type": "web_search"}) == named
    allowed = [{"type": "function", "name": "g"}, {"type": "web_search"}]
    for mode in ("auto", "required"):
        assert chooses(
            {"type": "allowed_tools", "mode": mode, "tools": [*allowed, allowed[0]]}
        ) == ToolChoice(mode, ("g", "web_search"), "allowed")
    assert responses().tool_choice == ToolChoice()
    assert responses(tools=TOOLS, tool_choice=None).tool_choice == ToolChoice()


BAD_CHOICES: list[tuple[Any, str, str]] = [
    (1, "", TYPE),
    ([], "", TYPE),
    ("always", "", VALUE),
    ({}, ".type", MISSING),
    ({"type": "telepathy"}, ".type", VALUE),
    ({"type": "file_search"}, ".type", LATER),
    ({"type": "mcp", "server_label": "a"}, ".type", LATER),
    ({"type": "function"}, ".name", MISSING),
    ({"type": "function", "name": "h"}, "", VALUE),
    ({"type": "function", "name": "c"}, "", VALUE),
    ({"type": "custom", "name": "f"}, "", VALUE),
    ({"type": "add"}, "", VALUE),
    ({"type": "web_search", "x": 1}, ".x", UNKNOWN),
    ({"type": "allowed_tools", "tools": []}, ".tools", "empty_array"),
    ({"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}, ".mode", MISSING),
    ({"type": "allowed_tools", "mode": "none", "tools": []}, ".mode", VALUE),
    (
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "h"}]},
        "",
        VALUE,
    ),
    ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "x"}]}, ".tools[0].type", VALUE),
]


@pytest.mark.parametrize(("choice", "where", "code"), BAD_CHOICES, ids=lambda v: str(v)[:60])
def test_what_is_wrong_with_a_choice_is_named(choice: Any, where: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        responses(tools=TOOLS, tool_choice=choice)
    assert (caught.value.param, caught.value.code) == (f"tool_choice{where}", code)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
def test_nothing_can_be_required_of_no_tools(choice: Any) -> None:
    for tools in ({}, {"tools": []}):
        with pytest.raises(RequestError) as caught:
            responses(tool_choice=choice, **tools)
        assert (caught.value.param, caught.value.code) == ("tool_choice", TOGETHER)


def test_limits_on_calls_are_read() -> None:
    request = responses(max_tool_calls=2, parallel_tool_calls=False)
    assert (request.max_tool_calls, request.parallel_tool_calls) == (2, False)
    assert chat(parallel_tool_calls=False).parallel_tool_calls is False
    assert (chat().parallel_tool_calls, chat().max_tool_calls) == (True, None)
    with pytest.raises(RequestError, match="Unknown parameter"):
        chat(max_tool_calls=1)
