"""The keywords of JSON Schema: what each may hold, and which of them strict schemas may use.

Tables for `read_schema`; nothing is walked here. What strict schemas may use is what OpenAI's guide
to Structured Outputs names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

STRICT_FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
)
"""What the guide lists for `format`."""

# What keywords may hold: keyword -> (test, what was expected).

_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def _is_type(value: Any) -> bool:
    if type(value) is list:
        return (
            0 < len(value) <= len(_TYPES)
            and all(type(each) is str and each in _TYPES for each in value)
            and len(set(value)) == len(value)
        )
    return type(value) is str and value in _TYPES


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_filled_array(value: Any) -> bool:
    return type(value) is list and bool(value)


def _is_names(value: Any) -> bool:
    return type(value) is list and all(type(name) is str for name in value)


def _is_name_lists(value: Any) -> bool:
    return type(value) is dict and all(_is_names(names) for names in value.values())


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_step(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_truth(value: Any) -> bool:
    return type(value) is bool


def _is_bound(value: Any) -> bool:
    return _is_number(value) or _is_truth(value)  # draft 4 has booleans here


_Test = Callable[[Any], bool]


def _all_alike(test: _Test, expected: str, *keywords: str) -> dict[str, tuple[_Test, str]]:
    return dict.fromkeys(keywords, (test, expected))


MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLES = (
    "items",
    "additionalProperties",
    "propertyNames",
    "contains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
)

SHAPES: Mapping[str, tuple[_Test, str]] = {
    "type": (_is_type, "one of the seven JSON types or an array of them"),
    **_all_alike(_is_object, "an object", *MAPS),
    **_all_alike(_is_filled_array, "an array with at least one entry", *LISTS, "enum"),
    "required": (_is_names, "an array of strings"),
    "dependentRequired": (_is_name_lists, "an object of arrays of strings"),
    **_all_alike(
        _is_count,
        "a whole number that is not negative",
        *("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"),
        *("minContains", "maxContains"),
    ),
    **_all_alike(_is_number, "a number", "minimum", "maximum"),
    **_all_alike(_is_bound, "a number", "exclusiveMinimum", "exclusiveMaximum"),
    "multipleOf": (_is_step, "a number above 0"),
    "uniqueItems": (_is_truth, "a boolean"),
    **_all_alike(_is_text, "a string", "pattern", "format", "$ref", "title", "description"),
}

NOWHERE = ("$dynamicRef", "$recursiveRef")
"""References whose target is known only while a value is looked at; nothing here follows them."""

STRICT = frozenset(
    {
        *("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions"),
        *("properties", "required", "additionalProperties"),
        *("items", "minItems", "maxItems"),
        *("pattern", "format", "minLength", "maxLength"),
        *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        # These say nothing about values.
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$comment", "$schema", "$id"),
    }
)
"""The keywords of strict schemas: the guide's, two that it does not name and grammars can hold
(`minLength`, `maxLength`), and those that only describe."""

SAME_VALUE = ("anyOf", "oneOf", "allOf", "dependentSchemas", "not", "if", "then", "else")
"""Keywords whose schemas look at the very value that their owner looks at."""
