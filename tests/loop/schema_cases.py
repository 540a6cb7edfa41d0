"""Fifty JSON Schemas of many kinds, each with a text that is valid for it and one that is not."""

from __future__ import annotations

from typing import Any


def _object(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


TEXT, INT, NUM, BOOL = ({"type": each} for each in ("string", "integer", "number", "boolean"))
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": _object(value=INT, children={"type": "array", "items": {"$ref": "#/$defs/node"}})
    },
}
LIST = {
    "$defs": {
        "cell": _object(head=TEXT, tail={"anyOf": [{"$ref": "#/$defs/cell"}, {"type": "null"}]})
    },
    **_object(first={"$ref": "#/$defs/cell"}),
}
EXPRESSION = {
    "$defs": {
        "e": {
            "anyOf": [
                NUM,
                _object(
                    op={"enum": ["+", "*"]}, left={"$ref": "#/$defs/e"}, right={"$ref": "#/$defs/e"}
                ),
            ]
        }
    },
    **_object(e={"$ref": "#/$defs/e"}),
}
UI = _object(
    kind={"enum": ["div", "button"]},
    label=TEXT,
    children={"type": "array", "items": {"$ref": "#"}},
)

CASES: dict[str, tuple[Any, str, str]] = {
    "one string": (_object(city=TEXT), '{"city": "Oslo"}', '{"city": 1}'),
    "all types": (
        _object(s=TEXT, i=INT, n=NUM, b=BOOL, z={"type": "null"}),
        '{"s": "", "i": -3, "n": 0.5, "b": true, "z": null}',
        '{"s": "", "i": 0.5, "n": 0.5, "b": true, "z": null}',
    ),
    "optional": (_object(["a"], a=TEXT, b=INT), '{"a": "x"}', '{"b": 1}'),
    "nothing": ({"type": "object", "properties": {}}, "{}", "[]"),
    "anything": ({}, '{"a": [1, null]}', "{"),
    "true": (True, "3", "nan"),
    "open object": ({"type": "object"}, '{"x": {"y": []}}', '"x"'),
    "no type": ({"properties": {"a": INT}, "required": ["a"]}, '{"a": 1}', '{"a": "1"}'),
    "not named, required": (
        {"type": "object", "properties": {"a": TEXT}, "required": ["a", "b"]},
        '{"a": "", "b": 1}',
        '{"a": ""}',
    ),
    "enum": (_object(unit={"enum": ["C", "F"]}), '{"unit": "C"}', '{"unit": "K"}'),
    "typed enum": ({"type": "string", "enum": ["a", "b"]}, '"a"', '"c"'),
    "mixed enum": ({"enum": ["a", 1, 2.5, None, True, {"k": [1]}]}, '{"k": [1]}', '"b"'),
    "const": (_object(k={"const": "fixed"}, v=INT), '{"k": "fixed", "v": 1}', '{"k": "x", "v": 1}'),
    "hard characters": (
        _object(**{'é"\\\n': {"enum": ['q"\\', "\n", "😀"]}}),
        '{"é\\"\\\\\\n": "😀"}',
        "{}",
    ),
    "type list": (_object(a={"type": ["string", "null"]}), '{"a": null}', '{"a": 1}'),
    "number or integer": ({"type": ["integer", "number"]}, "1.5", '"1"'),
    "array": ({"type": "array", "items": INT}, "[1, 2]", "[1, null]"),
    "bare array": ({"type": "array"}, '[1, "a"]', "{}"),
    "array bounds": ({"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2}, '["a"]', "[]"),
    "array of arrays": (
        {"type": "array", "items": {"type": "array", "items": NUM, "maxItems": 3}},
        "[[1, 2.5], []]",
        "[[1, 2, 3, 4]]",
    ),
    "array of objects": ({"type": "array", "items": _object(a=INT)}, '[{"a": 1}]', '[{"b": 1}]'),
    "huge array bound": ({"type": "array", "items": INT, "maxItems": 10**9}, "[1]", '["a"]'),
    "tuple": ({"type": "array", "prefixItems": [TEXT, INT], "items": False}, '["a", 1]', "[1, 1]"),
    "draft 7 tuple": (
        {"type": "array", "items": [TEXT, INT], "additionalItems": False},
        '["a", 1]',
        '["a", 1, 2]',
    ),
    "unique items": ({"type": "array", "items": INT, "uniqueItems": True}, "[1, 2]", "[1, 1]"),
    "contains": ({"type": "array", "items": INT, "contains": {"minimum": 5}}, "[5]", "[1]"),
    "lengths": (
        _object(a={"type": "string", "minLength": 2, "maxLength": 3}),
        '{"a": "ab"}',
        '{"a": "a"}',
    ),
    "huge length": ({"type": "string", "minLength": 1, "maxLength": 10**7}, '"a"', '""'),
    "integer bounds": ({"type": "integer", "minimum": 1, "maximum": 10}, "10", "11"),
    "fractional bounds": (
        {"type": "integer", "exclusiveMinimum": 1.5, "exclusiveMaximum": 4},
        "2",
        "4",
    ),
    "number bounds": ({"type": "number", "minimum": -1, "exclusiveMaximum": 1}, "0.5", "1"),
    "huge bounds": ({"type": "integer", "minimum": -1e300, "maximum": 1e300}, "5", '"5"'),
    "multiple": ({"type": "integer", "multipleOf": 5}, "10", "11"),
    "pattern": ({"type": "string", "pattern": "^[A-Z]{2}\\d{3,}$"}, '"AB123"', '"ab123"'),
    "loose pattern": ({"type": "string", "pattern": "cat|dog"}, '"my dog"', '"bird"'),
    "escaped pattern": ({"type": "string", "pattern": "^\\w+@\\w+\\.\\w+$"}, '"a@b.c"', '"a@b"'),
    "look-ahead pattern": ({"type": "string", "pattern": "^(?=a)\\w+$"}, '"ab"', '"b"'),
    "dot pattern": ({"type": "string", "pattern": "^.{1,5}[^x]$"}, '"aa"', '"ax"'),
    "date": (_object(d={"type": "string", "format": "date"}), '{"d": "2024-02-29"}', '{"d": "x"}'),
    "unknown format": ({"type": "string", "format": "colour-name"}, '"red"', "1"),
    "anyOf": ({"anyOf": [TEXT, _object(a=INT)]}, '{"a": 1}', "1"),
    "oneOf by constant": (
        {"oneOf": [_object(t={"const": "a"}, x=INT), _object(t={"const": "b"}, y=TEXT)]},
        '{"t": "b", "y": ""}',
        '{"t": "a", "y": ""}',
    ),
    "union beside properties": (
        {
            "type": "object",
            "properties": {"a": INT},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        '{"a": 1}',
        "{}",
    ),
    "allOf": (
        {
            "allOf": [
                _object(a=INT) | {"additionalProperties": True},
                {"properties": {"b": TEXT}, "required": ["b"]},
            ]
        },
        '{"a": 1, "b": ""}',
        '{"a": 1}',
    ),
    "conditions": (
        _object(["a"], a=INT, b=TEXT)
        | {
            "if": {"properties": {"a": {"const": 1}}},
            "then": {"required": ["b"]},
            "not": {"required": ["c"]},
        },
        '{"a": 1, "b": ""}',
        '{"a": 1}',
    ),
    "map": ({"type": "object", "additionalProperties": INT}, '{"x": 1}', '{"x": "1"}'),
    "pattern map": (
        {"type": "object", "patternProperties": {"^x": INT}, "additionalProperties": False},
        '{"x": 1}',
        '{"y": 1}',
    ),
    "tree": (
        TREE,
        '{"value": 1, "children": [{"value": 2, "children": []}]}',
        '{"value": 1, "children": [{"value": 2}]}',
    ),
    "linked list": (LIST, '{"first": {"head": "a", "tail": null}}', '{"first": {"head": "a"}}'),
    "expression": (
        EXPRESSION,
        '{"e": {"op": "+", "left": 1, "right": 2}}',
        '{"e": {"op": "-", "left": 1}}',
    ),
    "refers to the top": (
        UI,
        '{"kind": "div", "label": "", "children": [{"kind": "div", "label": "x", "children": []}]}',
        '{"kind": "div", "label": "", "children": [{}]}',
    ),
    "reference with more": (
        {"$defs": {"n": INT}, **_object(a={"$ref": "#/$defs/n", "minimum": 3})},
        '{"a": 3}',
        '{"a": 2}',
    ),
    "definitions": (
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a b/c": TEXT}}
        | _object(a={"$ref": "#/definitions/a%20b~1c"}),
        '{"a": ""}',
        '{"a": 1}',
    ),
    "remarks": (
        _object(
            a={"type": "string", "title": "A", "description": "d", "default": "", "examples": ["x"]}
        ),
        '{"a": ""}',
        '{"a": null}',
    ),
}
