"""Reads what an answer shall be like: its format, its length, and the thinking before it.

Both protocols say the same with other names; their readers stand side by side here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ouzel.api.read_common import TOOL_NAME
from ouzel.api.read_errors import Path, literal, not_together, unsupported_value
from ouzel.api.read_schema import read_schema
from ouzel.api.reading import (
    Reader,
    anything,
    boolean,
    choice,
    not_yet,
    record,
    tagged,
    text,
)
from ouzel.core.errors import RequestError
from ouzel.core.items import Item, Message
from ouzel.core.request import Format, Protocol, Summary

VERBOSITY = choice("low", "medium", "high")

_EFFORTS = ("none", "minimal", "low", "medium", "high")
_EFFORT = choice(*_EFFORTS, "xhigh", "max")


def effort(value: Any, path: Path) -> Any:
    """How much to think; two efforts of the API are beyond what is budgeted here."""
    if _EFFORT(value, path) not in _EFFORTS:
        raise unsupported_value(path, value, _EFFORTS)
    return value


_SUMMARY = choice("auto", "concise", "detailed")

_REASONING_FIELDS = record(
    {
        "effort": effort,
        "summary": _SUMMARY,
        "generate_summary": _SUMMARY,  # its old name
        "context": not_yet("auto", of=choice("auto", "current_turn", "all_turns")),
        "mode": not_yet("standard"),
    }
)


def reasoning(value: Any, path: Path) -> Any:
    """The `reasoning` of Responses: `effort` and `summary`, where they are set."""
    given = _REASONING_FIELDS(value, path)
    old: Summary | None = given.get("generate_summary")
    if old is not None and given.setdefault("summary", old) != old:
        raise not_together(
            (*path, "generate_summary"),
            f"'{path[-1]}.summary' and its old name 'generate_summary' ask for different things.",
        )
    return given


# Formats.

_PLAIN = record({"type": anything})


def _plain(kind: Literal["text", "json_object"]) -> Reader:
    def read(value: Any, path: Path) -> Any:
        _PLAIN(value, path)
        return Format(kind)

    return read


_SCHEMA_ROWS: Mapping[str, Reader] = {
    "name": TOOL_NAME,
    "description": text,
    "schema": anything,
    "strict": boolean,
}


def _json_schema(fields: Reader) -> Reader:
    def read(value: Any, path: Path) -> Any:
        given = fields(value, path)
        strict: bool | None = given.get("strict")
        schema = read_schema(
            given.get("schema", {}),
            (*path, "schema"),
            subject=f"response_format {literal(given['name'])}",
            code="invalid_json_schema",
            strict=strict or False,
            rooted=False,
        )
        return Format("json_schema", given["name"], given.get("description"), schema, strict)

    return read


_INNER_SCHEMA = _json_schema(record(_SCHEMA_ROWS, required=("name",)))
_CHAT_SCHEMA = record({"type": anything, "json_schema": _INNER_SCHEMA}, required=("json_schema",))

RESPONSE_FORMAT = tagged(
    "type",
    {
        "text": _plain("text"),
        "json_object": _plain("json_object"),
        "json_schema": lambda value, path: _CHAT_SCHEMA(value, path)["json_schema"],
    },
)
"""`response_format` of Chat Completions."""

TEXT = record(
    {
        "format": tagged(
            "type",
            {
                "text": _plain("text"),
                "json_object": _plain("json_object"),
                "json_schema": _json_schema(
                    record({"type": anything, **_SCHEMA_ROWS}, required=("name", "schema"))
                ),
            },
        ),
        "verbosity": VERBOSITY,
    }
)
"""`text` of Responses."""

_PLACES: Mapping[Protocol, tuple[str, str, str]] = {
    "chat": ("messages", "'messages'", "'response_format'"),
    "responses": ("input", "Response input messages", "'text.format'"),
}


def check_json_is_asked_for(
    protocol: Protocol, asked: Format, items: Iterable[Item], instructions: str | None = None
) -> None:
    """The API's rule for `json_object`: somebody must have told the model to write JSON.

    Raises:
        RequestError: the word is nowhere in what it is told.
    """
    if asked.type != "json_object":
        return
    told = (item.text for item in items if isinstance(item, Message))
    if any("json" in said.lower() for said in (instructions or "", *told)):
        return
    param, where, name = _PLACES[protocol]
    raise RequestError(
        f"{where} must contain the word 'json' in some form, to use {name} of type 'json_object'.",
        param=param,
        code="invalid_value",
    )
