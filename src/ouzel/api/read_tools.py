"""Reads the tools that a request offers and which of them it wants called, for both protocols.

Which hosted tools there are is the server's to say, so the readers here take a set of their types.
Everything else is in tables, as in the other readers. Pure; it knows nothing of how tools are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ouzel.api.read_common import TOOL_NAME, tool_name
from ouzel.api.read_errors import Path, invalid, literal, show, wrong_type
from ouzel.api.read_schema import compact, fits_strict, read_schema
from ouzel.api.read_tool_choice import Wish, called, choice_reader, settled, within
from ouzel.api.reading import (
    Reader,
    anything,
    array,
    boolean,
    choice,
    not_yet,
    record,
    string,
    tagged,
    text,
)
from ouzel.core.errors import RequestError
from ouzel.core.request import (
    CustomTool,
    FunctionTool,
    Grammar,
    HostedTool,
    Protocol,
    ToolChoice,
    ToolSpec,
)

MOST_TOOLS = 128
"""Tools in one request, as OpenAI's server limits them."""

NO_PARAMETERS = '{"type":"object","properties":{},"required":[],"additionalProperties":false}'
"""The schema of a function without parameters."""

HOSTED_TYPES = (
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "namespace",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)
"""The tools that the API runs by itself, or has in another form than functions and custom tools."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be called, and whether it must."""

    tools: tuple[ToolSpec, ...] = ()
    choice: ToolChoice = ToolChoice()


def read_offer(protocol: Protocol, given: Mapping[str, Any], hosted: frozenset[str]) -> Offer:
    """Check `tools` and `tool_choice` of a body.

    Args:
        protocol: whose form they have.
        given: the body, null parameters left out.
        hosted: types of the tools that this server runs by itself.

    Raises:
        RequestError: also when the choice and the tools do not go together.
    """
    read_tools, read_choice = _readers(protocol, hosted)
    tools: tuple[ToolSpec, ...] = ()
    if "tools" in given:
        tools = read_tools(given["tools"], ("tools",))
        _check_unlike(tools, protocol)
    if "tool_choice" not in given:
        return Offer(tools)
    wish: Wish = read_choice(given["tool_choice"], ("tool_choice",))
    return Offer(tools, settled(wish, tools))


def param_in_chat(param: str | None) -> str | None:
    """Where something of a tool stands in Chat Completions.

    Args:
        param: where it stands in Responses; what is not of a function or a custom tool stays.
    """
    for old, new in _CHAT_PLACES.items():
        if param is not None and param.startswith("tools[") and param.endswith(f"].{old}"):
            return param.removesuffix(old) + new
    return param


_CHAT_PLACES = {
    "parameters": "function.parameters",
    "format.definition": "custom.format.grammar.definition",
}


def _check_unlike(tools: Sequence[ToolSpec], protocol: Protocol) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if called(tool) in seen:
            raise RequestError(
                f"Duplicate tool {literal(called(tool))}: tools must be unlike each other in name.",
                param=show(("tools", index, *_name_place(tool, protocol))),
                code="invalid_value",
            )
        seen.add(called(tool))


def _name_place(tool: ToolSpec, protocol: Protocol) -> Path:
    if isinstance(tool, HostedTool):
        return ("type",)
    if protocol == "responses":
        return ("name",)
    return ("function" if isinstance(tool, FunctionTool) else "custom", "name")


# Tools.


def _function(value: Any, path: Path, fields: Reader, strict_by_default: bool) -> FunctionTool:
    function = fields(value, path)
    asked: bool | None = function.get("strict")
    schema = function.get("parameters")
    name = function["name"]
    if not schema:  # no parameters at all; `{}` is how some clients write that
        if schema is not None and type(schema) is not dict:
            raise wrong_type((*path, "parameters"), "an object", schema)
        parameters, strict = NO_PARAMETERS, asked if asked is not None else strict_by_default
    else:
        parameters = read_schema(
            schema,
            (*path, "parameters"),
            subject=f"function {literal(name)}",
            code="invalid_function_parameters",
            strict=asked or False,
            rooted=True,
        )
        strict = asked if asked is not None else strict_by_default and fits_strict(schema)
    return FunctionTool(name, function.get("description", ""), parameters, strict)


_ONLY_DIRECT = not_yet(["direct"])

_RESPONSES_FUNCTION = record(
    {
        "type": anything,
        "name": tool_name(128),
        "description": text,
        "parameters": anything,
        "strict": boolean,
        "allowed_callers": _ONLY_DIRECT,
        "async": not_yet(False, of=boolean),
        "defer_loading": not_yet(False, of=boolean),
        "output_schema": not_yet(),
    },
    required=("name",),
)

_CHAT_FUNCTION = record(
    {"name": TOOL_NAME, "description": text, "parameters": anything, "strict": boolean},
    required=("name",),
)


def _responses_function(value: Any, path: Path) -> Any:
    # The reference: without a word on it, strict where the schema allows it.
    return _function(value, path, _RESPONSES_FUNCTION, strict_by_default=True)


def _chat_function(value: Any, path: Path) -> Any:
    return _function(value, path, _CHAT_FUNCTION, strict_by_default=False)


_GRAMMAR = {"syntax": choice("lark", "regex"), "definition": string(50_000, shortest=1)}
_TEXT_FORMAT = record({"type": anything})


def _grammar(fields: Reader) -> Reader:
    def read(value: Any, path: Path) -> Any:
        grammar = fields(value, path)
        return Grammar(grammar["syntax"], grammar["definition"])

    return read


def _no_grammar(value: Any, path: Path) -> Any:
    _TEXT_FORMAT(value, path)
    return None


_RESPONSES_FORMAT = tagged(
    "type",
    {
        "text": _no_grammar,
        "grammar": _grammar(
            record({"type": anything, **_GRAMMAR}, required=("syntax", "definition"))
        ),
    },
)

_CHAT_GRAMMAR = record(
    {
        "type": anything,
        "grammar": _grammar(record(_GRAMMAR, required=("syntax", "definition"))),
    },
    required=("grammar",),
)

_CHAT_FORMAT = tagged(
    "type",
    {"text": _no_grammar, "grammar": lambda value, path: _CHAT_GRAMMAR(value, path)["grammar"]},
)


def _custom(rows: Mapping[str, Reader]) -> Reader:
    fields = record(rows, required=("name",))

    def read(value: Any, path: Path) -> Any:
        tool = fields(value, path)
        return CustomTool(tool["name"], tool.get("description", ""), tool.get("format"))

    return read


_responses_custom = _custom(
    {
        "type": anything,
        "name": tool_name(128),
        "description": text,
        "format": _RESPONSES_FORMAT,
        "allowed_callers": _ONLY_DIRECT,
        "async": not_yet(False, of=boolean),
        "defer_loading": not_yet(False, of=boolean),
    }
)

_chat_custom = _custom({"name": TOOL_NAME, "description": text, "format": _CHAT_FORMAT})


def _hosted(value: Any, path: Path) -> Any:
    """The settings are the tool's own to check."""
    settings = {key: inner for key, inner in value.items() if key != "type" and inner is not None}
    written = compact(settings)
    if len(written) > MOST_SETTINGS:
        raise invalid(
            path, f"object too large. Its settings may have up to {MOST_SETTINGS} characters"
        )
    return HostedTool(value["type"], written)


MOST_SETTINGS = 262_144
"""Characters of a hosted tool's settings; ours to choose."""


_TOOLS: Mapping[Protocol, Mapping[str, Reader]] = {
    "responses": {"function": _responses_function, "custom": _responses_custom},
    "chat": {
        "function": within("function", _chat_function),
        "custom": within("custom", _chat_custom),
    },
}


@cache
def _readers(protocol: Protocol, hosted: frozenset[str]) -> tuple[Reader, Reader]:
    """The readers of `tools` and of `tool_choice` on a server with these hosted tools."""
    later = [kind for kind in HOSTED_TYPES if kind not in hosted]
    tool = tagged("type", {**_TOOLS[protocol], **dict.fromkeys(sorted(hosted), _hosted)}, later)
    return array(tool, MOST_TOOLS), choice_reader(protocol, hosted, later, MOST_TOOLS)
