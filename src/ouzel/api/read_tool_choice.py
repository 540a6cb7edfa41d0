"""Reads which of the tools that a request offers it wants called, for both protocols.

A choice is read on its own, and then held against the tools. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ouzel.api.read_errors import Path, invalid, literal, not_together, wrong_type
from ouzel.api.reading import Reader, anything, array, choice, record, string, tagged
from ouzel.core.request import (
    CustomTool,
    FunctionTool,
    HostedTool,
    Protocol,
    ToolChoice,
    ToolSpec,
)


def called(tool: ToolSpec) -> str:
    """The name under which a tool is chosen: hosted ones go by their type."""
    return tool.type if isinstance(tool, HostedTool) else tool.name


def within(key: str, inner: Reader) -> Reader:
    """Chat Completions put a tool into an object of its own: `{"type": key, key: {...}}`."""
    fields = record({"type": anything, key: inner}, required=(key,))
    return lambda value, path: fields(value, path)[key]


@dataclass(frozen=True, slots=True)
class Wish:
    """A tool choice before it is held against the tools.

    Args:
        wanted: (kind of tool, name) of each tool that may be called, None for all.
    """

    mode: Literal["none", "auto", "required"]
    form: Literal["mode", "named", "allowed"] = "mode"
    wanted: tuple[tuple[str, str], ...] | None = None


_PLAIN = record({"type": anything})
_MODE = choice("none", "auto", "required")


def _reference(key: str, fields: Reader) -> Reader:
    """A tool by name: (kind, name)."""
    return lambda value, path: (key, fields(value, path)["name"])


def _by_type(value: Any, path: Path) -> Any:
    _PLAIN(value, path)  # nothing but a type
    return ("hosted", value["type"])


_NAMED = record({"type": anything, "name": string(128, shortest=1)}, required=("name",))
_INNER_NAMED = record({"name": string(128, shortest=1)}, required=("name",))

_REFERENCES: Mapping[Protocol, Mapping[str, Reader]] = {
    "responses": {
        "function": _reference("function", _NAMED),
        "custom": _reference("custom", _NAMED),
    },
    "chat": {
        "function": _reference("function", within("function", _INNER_NAMED)),
        "custom": _reference("custom", within("custom", _INNER_NAMED)),
    },
}


def _allowed(protocol: Protocol, references: Reader, most: int) -> Reader:
    rows = {
        "mode": choice("auto", "required"),
        "tools": array(references, most, shortest=1),
    }
    if protocol == "responses":
        fields = record({"type": anything, **rows}, required=("mode", "tools"))
    else:
        fields = within("allowed_tools", record(rows, required=("mode", "tools")))

    def read(value: Any, path: Path) -> Any:
        allowed = fields(value, path)
        return Wish(allowed["mode"], "allowed", tuple(dict.fromkeys(allowed["tools"])))

    return read


def _one(reader: Reader) -> Reader:
    return lambda value, path: Wish("required", "named", (reader(value, path),))


def _choice_of(objects: Reader) -> Reader:
    def read(value: Any, path: Path) -> Any:
        if type(value) is str:
            return Wish(_MODE(value, path))
        if type(value) is not dict:
            raise wrong_type(path, "one of a string or object", value)
        return objects(value, path)

    return read


def choice_reader(
    protocol: Protocol, hosted: Collection[str], later: Collection[str], most: int
) -> Reader:
    """The reader of `tool_choice`; it reads a Wish.

    Args:
        hosted: types of the tools that the server runs by itself.
        later: types of tools that the API has and this server does not.
        most: tools that a request may offer.
    """
    references: dict[str, Reader] = {
        **_REFERENCES[protocol],
        **dict.fromkeys(sorted(hosted), _by_type),
    }
    objects = {kind: _one(reader) for kind, reader in references.items()}
    objects["allowed_tools"] = _allowed(protocol, tagged("type", references, later), most)
    return _choice_of(tagged("type", objects, (*later, "computer_use")))


_KINDS: Mapping[str, Callable[[ToolSpec], bool]] = {
    "function": lambda tool: isinstance(tool, FunctionTool),
    "custom": lambda tool: isinstance(tool, CustomTool),
    "hosted": lambda tool: isinstance(tool, HostedTool),
}


def settled(wish: Wish, tools: Sequence[ToolSpec]) -> ToolChoice:
    """Hold the wish against what is offered."""
    path: Path = ("tool_choice",)
    if not tools and (wish.mode == "required" or wish.wanted is not None):
        raise not_together(
            path,
            "Invalid value for 'tool_choice': it asks for tools, but no 'tools' are specified.",
        )
    if wish.wanted is None:
        return ToolChoice(wish.mode)
    for kind, name in wish.wanted:
        if not any(_KINDS[kind](tool) and called(tool) == name for tool in tools):
            what = f"{kind} {literal(name)}" if kind != "hosted" else literal(name)
            raise invalid(path, f"tool choice {what} not found in 'tools' parameter")
    return ToolChoice(wish.mode, tuple(name for _, name in wish.wanted), wish.form)
