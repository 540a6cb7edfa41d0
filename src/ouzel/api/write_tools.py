"""Tools, tool choices and formats as the response object repeats them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ouzel.core.request import (
    CustomTool,
    Format,
    FunctionTool,
    HostedTool,
    Request,
    ToolChoice,
    ToolSpec,
)


def tool(value: ToolSpec) -> dict[str, Any]:
    """A tool as Responses write it."""
    match value:
        case FunctionTool():
            return {
                "type": "function",
                "name": value.name,
                "description": value.description or None,
                "parameters": msgspec.json.decode(value.parameters),
                "strict": value.strict,
            }
        case CustomTool():
            return {
                "type": "custom",
                "name": value.name,
                "description": value.description or None,
                "format": _input_format(value),
            }
        case HostedTool():
            return {"type": value.type, **msgspec.json.decode(value.settings)}


def _input_format(value: CustomTool) -> dict[str, Any]:
    if value.grammar is None:
        return {"type": "text"}
    grammar = value.grammar
    return {"type": "grammar", "syntax": grammar.syntax, "definition": grammar.definition}


def tool_choice(choice: ToolChoice, tools: Sequence[ToolSpec]) -> str | dict[str, Any]:
    """The tool choice as Responses write it.

    Args:
        choice: as it was asked for.
        tools: those it chooses from.
    """
    if choice.form == "mode":
        return choice.mode
    named = [_reference(name, tools) for name in choice.names or ()]
    if choice.form == "named":
        return named[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": named}


def _reference(name: str, tools: Sequence[ToolSpec]) -> dict[str, Any]:
    for value in tools:
        match value:
            case FunctionTool(name=known) if known == name:
                return {"type": "function", "name": name}
            case CustomTool(name=known) if known == name:
                return {"type": "custom", "name": name}
    return {"type": name}  # hosted tools go by their type


def text(request: Request) -> dict[str, Any]:
    """The `text` of a response: the answer's format and its length."""
    return {"format": _format(request.format), "verbosity": request.verbosity}


def _format(value: Format) -> dict[str, Any]:
    if value.type != "json_schema":
        return {"type": value.type}
    return {
        "type": "json_schema",
        "name": value.name,
        "description": value.description,
        "schema": msgspec.json.decode(value.schema),
        "strict": value.strict or False,
    }
