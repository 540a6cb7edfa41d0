"""What is wrong with a JSON value, in one sentence that a model can act on.

Made from the errors of `jsonschema_rs`. It knows no schema, only what failed and where.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jsonschema_rs
import msgspec

MAX_CHARS = 400
_A = {"integer": "an integer", "array": "an array", "object": "an object", "null": "null"}
_SMALLEST = {"minLength": "characters", "minItems": "items", "minProperties": "properties"}
_LARGEST = {"maxLength": "characters", "maxItems": "items", "maxProperties": "properties"}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}


def sentence(error: jsonschema_rs.ValidationError) -> str:
    """The sentence for an error, at most 400 characters."""
    error = _telling(error)
    text = f"{_place(error.instance_path)} {_complaint(error)}."
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 4] + " ..."


def _telling(error: jsonschema_rs.ValidationError) -> jsonschema_rs.ValidationError:
    """Of a failed union, the error in the branch that the value came closest to."""
    # The library bounds how deep unions nest; so does the depth of values.
    for _ in range(20):
        if error.kind.name not in ("anyOf", "oneOf") or not hasattr(error.kind, "context"):
            return error
        branches = [branch for branch in error.kind.context if branch]
        here = len(error.instance_path)
        close = [b for b in branches if not any(_is_kind_of_thing(e, here) for e in b)]
        if len(close) != 1:
            return error
        error = close[0][0]
    return error


def _is_kind_of_thing(error: jsonschema_rs.ValidationError, here: int) -> bool:
    """Whether the value is another sort of thing than the branch is for."""
    name = error.kind.name
    if name in ("const", "enum"):
        return True
    return name == "type" and len(error.instance_path) <= here


def _place(path: Iterable[str | int]) -> str:
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else str(part)
    return f"`{shown[:120]}`" if shown else "The JSON value"


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    kind: Any = error.kind
    name = kind.name
    match name:
        case "type":
            return f"must be {_types(kind.types)}, not {_sort(error.instance)}"
        case "required":
            return f'lacks the required property "{kind.property}"'
        case "additionalProperties" | "unevaluatedProperties":
            return f"must not have the properties {_json(kind.unexpected)}"
        case "enum":
            return f"must be one of {_json(kind.options)}"
        case "const":
            return f"must be {_json(kind.expected_value)}"
        case "anyOf" | "oneOf":
            return _union(kind, len(error.instance_path))
        case "pattern":
            return f"must match the pattern {kind.pattern[:200]}"
        case "format":
            return f"must have the format {kind.format}"
        case "uniqueItems":
            return "must not have equal items"
    if name in _BOUNDS:
        return f"must be {_BOUNDS[name]} {_json(_limit(kind))}"
    if name in _SMALLEST:
        return f"must have at least {kind.limit} {_SMALLEST[name]}"
    if name in _LARGEST:
        return f"must have at most {kind.limit} {_LARGEST[name]}"
    return f"is not valid: {error.message[:200].rstrip('.')}"


def _union(kind: Any, here: int) -> str:
    firsts = [branch[0] for branch in getattr(kind, "context", ()) if branch]
    # A union inside a union is named, not opened: its sentence would hold all of the others.
    wanted = list(dict.fromkeys(_form(each, here) for each in firsts[:4]))
    if wanted:
        return "must fit one of the allowed forms: " + ", or ".join(wanted)
    return "must fit exactly one of the allowed forms"


def _form(error: jsonschema_rs.ValidationError, here: int) -> str:
    nested = error.kind.name in ("anyOf", "oneOf")
    complaint = "must fit one of several forms" if nested else _complaint(error)
    place = _place(error.instance_path) if len(error.instance_path) > here else "it"
    return f"{place} {complaint}"


def _limit(kind: Any) -> Any:
    return kind.multiple_of if hasattr(kind, "multiple_of") else kind.limit


def _types(types: list[str]) -> str:
    return " or ".join(_A.get(each, f"a {each}") for each in types)


def _sort(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {
        bool: "a boolean",
        str: "a string",
        int: "an integer",
        float: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "that")


def _json(value: object) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 200 else text[:196] + " ..."
