"""Schemas of clients: what strict ones may say, what no schema may say, and hostile ones."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from ouzel.api import schema_keywords
from ouzel.api.read_schema import fits_strict, read_schema
from ouzel.core.errors import RequestError

S = {"type": "string"}


def obj(**properties: Any) -> dict[str, Any]:
    """A strict object."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read(schema: Any, *, strict: bool = True, rooted: bool = False) -> str:
    return read_schema(
        schema,
        ("text", "format", "schema"),
        subject="response_format 'x'",
        code="invalid_json_schema",
        strict=strict,
        rooted=rooted,
    )


def refusal(schema: dict[str, Any], *, strict: bool, rooted: bool = False) -> str | None:
    """Why a schema is refused; None if it is read, and then as it was written."""
    try:
        written = read(schema, strict=strict, rooted=rooted)
    except RequestError as error:
        return error.message
    assert json.loads(written) == schema
    return None


def flaw(schema: Any, *, strict: bool = True, rooted: bool = False) -> str:
    """What is said of a bad schema, after the words that are always the same."""
    with pytest.raises(RequestError) as caught:
        read(schema, strict=strict, rooted=rooted)
    error = caught.value
    assert (error.param, error.code, error.status) == (
        "text.format.schema",
        "invalid_json_schema",
        400,
    )
    start = "Invalid schema for response_format 'x': "
    assert error.message.startswith(start)
    assert error.message.endswith(".")
    return error.message.removeprefix(start).removesuffix(".")


TREE = {**obj(value=S, children={"type": "array", "items": {"$ref": "#"}})}
UNION = {
    **obj(item={"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"type": "null"}]}),
    "$defs": {"a": obj(kind={"const": "a"}), "b": obj(kind={"type": "string", "enum": ["b"]})},
}

GOOD_STRICT = [
    obj(),
    {"type": "object", "additionalProperties": False},
    obj(a=S, b={"type": ["integer", "null"], "minimum": 0, "maximum": 9, "multipleOf": 3}),
    obj(a={"type": "string", "pattern": "^a+$", "format": "date-time", "description": "d"}),
    obj(a={"type": "array", "items": S, "minItems": 1, "maxItems": 3}),
    obj(a={"enum": [1, "b", None]}, c={"type": "boolean", "title": "t", "default": True}),
    obj(type=S, required=S, allOf=S),  # names of properties, not keywords
    TREE,
    UNION,
]


@pytest.mark.parametrize("schema", GOOD_STRICT, ids=lambda value: str(value)[:50])
def test_strict_schemas_are_read(schema: dict[str, Any]) -> None:
    assert json.loads(read(schema)) == schema
    assert fits_strict(schema)
    assert " " not in read(schema).replace("date-time", "")


class Step(BaseModel):
    explanation: str = Field(description="why")
    at: float | None


class Solution(BaseModel):
    steps: list[Step]
    first: Step
    answer: int | str
    part_of: Solution | None


def test_what_the_sdk_makes_of_a_class_is_strict() -> None:
    schema = to_strict_json_schema(Solution)
    assert json.loads(read(schema)) == schema


BAD_STRICT: list[tuple[Any, str]] = [
    ({}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'"),
    (
        {"type": "array", "items": S},
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'",
    ),
    ({**obj(), "anyOf": [obj()]}, "In context=(), 'anyOf' is not permitted at the root"),
    (
        {"type": "object", "properties": {"a": S}, "required": ["a"]},
        "In context=(), 'additionalProperties' is required to be supplied and to be false",
    ),
    (
        obj(a={**obj(), "additionalProperties": True}),
        "In context=('properties', 'a'), 'additionalProperties' is required to be supplied and "
        "to be false",
    ),
    (
        {**obj(a=S, b=S), "required": ["a"]},
        "In context=(), 'required' is required to be supplied and to be an array including every "
        "key in properties. Missing 'b'",
    ),
    ({**obj(a=S), "required": ["a", "z"]}, "In context=(), extra required key 'z' supplied"),
    (obj(a={}), "In context=('properties', 'a'), schema must have a 'type' key"),
    (obj(a=True), "In context=('properties', 'a'), a schema must be an object, got a boolean"),
    (
        obj(a={"anyOf": [S, {"type": "array"}]}),
        "In context=('properties', 'a', 'anyOf', '1'), array schema missing items",
    ),
    (
        obj(a={"type": "array", "items": [S]}),
        "In context=('properties', 'a'), array schema items is not an object",
    ),
    (
        obj(a={"type": "string", "format": "uri"}),
        "In context=('properties', 'a'), 'uri' is not a valid format",
    ),
    (
        {**obj(a={"$ref": "#/$defs/b", "type": "string"}), "$defs": {"b": S}},
        "In context=('properties', 'a'), '$ref' cannot have keywords {'type'}",
    ),
    (
        obj(a={"$ref": "#/$defs/b"}),
        "In context=('properties', 'a'), reference '#/$defs/b' leads to no definition",
    ),
    (
        obj(a={"$ref": "#/properties"}),
        "In context=('properties', 'a'), reference '#/properties' leads to no definition",
    ),
]


@pytest.mark.parametrize(("schema", "message"), BAD_STRICT, ids=lambda value: str(value)[:50])
def test_what_is_not_strict_is_named(schema: Any, message: str) -> None:
    assert flaw(schema) == message
    assert not fits_strict(schema)


@pytest.mark.parametrize(
    "keyword",
    [
        *("allOf", "oneOf", "not", "if", "then", "else"),
        *("dependentRequired", "dependentSchemas", "patternProperties", "propertyNames"),
        *("unevaluatedProperties", "unevaluatedItems", "contains", "minContains", "uniqueItems"),
        *("prefixItems", "minProperties", "maxProperties", "contentEncoding", "mood"),
    ],
)
def test_keywords_outside_of_the_subset_are_refused_by_name(keyword: str) -> None:
    place = "In context=('properties', 'a', 'items')"
    schema = obj(a={"type": "array", "items": {"type": "object", keyword: []}})
    assert flaw(schema) == f"{place}, '{keyword}' is not permitted"


def test_limits_of_strict_schemas() -> None:
    deep: dict[str, Any] = S
    for _ in range(10):
        deep = obj(a=deep)
    assert fits_strict(deep)
    assert "11 levels of nesting exceeds limit of 10" in flaw(obj(a=deep))
    assert fits_strict(obj(**{str(i): S for i in range(5000)}))
    assert "5001 properties" in flaw(obj(**{str(i): S for i in range(5001)}))
    assert "1001 enum values" in flaw(obj(a={"enum": list(range(1001))}))
    assert "120001 characters" in flaw(obj(a={"const": "x" * 120_000}))


GOOD_LOOSE = [
    {},
    {"type": "array", "items": S},
    {"allOf": [S, {"not": {"const": "a"}}], "if": True, "then": False, "nullable": True},
    {"type": "object", "properties": {"a": {}, "b": True}, "required": ["c"]},
    {"properties": {"a": {"$ref": "#/properties/b"}, "b": S}},
    {"properties": {"a": {"$ref": "#/components/a~1b/0"}}, "components": {"a/b": [{}]}},
    {"patternProperties": {"^x": {"oneOf": [S, {"type": "null"}]}}, "$id": "here"},
    {"items": [S, True], "exclusiveMinimum": True, "pattern": "^\\p{L}+$"},
    TREE,
]


@pytest.mark.parametrize("schema", GOOD_LOOSE, ids=lambda value: str(value)[:50])
def test_all_others_may_say_what_json_schema_can(schema: dict[str, Any]) -> None:
    assert json.loads(read(schema, strict=False)) == schema


BAD_LOOSE: list[tuple[Any, str]] = [
    ({"type": "str"}, "In context=(), 'str' is not valid as 'type'"),
    ({"type": []}, "In context=(), [] is not valid as 'type'"),
    ({"type": ["string", "string"]}, "is not valid as 'type'"),
    ({"properties": {"a": {"required": True}}}, "('properties', 'a'), true is not valid as 'req"),
    ({"properties": []}, "[] is not valid as 'properties': expected an object"),
    (
        {"properties": {"a": 1}},
        "In context=('properties', 'a'), a schema must be an object, got an",
    ),
    ({"items": [S, 1]}, "In context=('items', '1'), a schema must be an object, got an integer"),
    ({"anyOf": []}, "[] is not valid as 'anyOf': expected an array with at least one entry"),
    ({"enum": []}, "is not valid as 'enum'"),
    ({"minLength": -1}, "-1 is not valid as 'minLength'"),
    ({"minLength": True}, "true is not valid as 'minLength'"),
    ({"exclusiveMinimum": "1"}, "'1' is not valid as 'exclusiveMinimum'"),
    ({"multipleOf": 0}, "0 is not valid as 'multipleOf': expected a number above 0"),
    ({"pattern": ["a"]}, "is not valid as 'pattern': expected a string"),
    ({"dependentRequired": {"a": "b"}}, "is not valid as 'dependentRequired'"),
    ({"$ref": 5}, "5 is not valid as '$ref'"),
    (
        {"$ref": "https://example.com/s"},
        "reference 'https://example.com/s' leads out of the schema",
    ),
    ({"$ref": "#/$defs/a"}, "In context=(), reference '#/$defs/a' leads to no definition"),
    ({"$ref": "#anchor"}, "reference '#anchor' can only be resolved as a path"),
    ({"$dynamicRef": "#a"}, "'$dynamicRef' is not supported"),
    ({"items": {"$id": "b"}}, "In context=('items',), '$id' is not supported"),
    ({"$ref": "#"}, "In context=(), a reference leads back to its own schema"),
    ({"anyOf": [{"$ref": "#"}, S]}, "a reference leads back to its own schema"),
    ({"not": {"$ref": "#"}}, "a reference leads back to its own schema"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "a reference leads back to its own schema",
    ),
]


@pytest.mark.parametrize(("schema", "message"), BAD_LOOSE, ids=lambda value: str(value)[:50])
def test_what_cannot_be_honoured_is_named(schema: Any, message: str) -> None:
    assert message in flaw(schema, strict=False)


def test_functions_take_objects() -> None:
    assert "got 'type: \"string\"'" in flaw(S, strict=False, rooted=True)
    assert 'got \'type: "["object","null"]"\'' in flaw(
        {"type": ["object", "null"]}, strict=False, rooted=True
    )
    with pytest.raises(RequestError) as caught:
        read([], strict=False)
    assert caught.value.code == "invalid_type"


# Schemas made to cost time. Each is as big as a body that is read without a thread, or more.


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"items": schema, "anyOf": [{"$ref": "#/items"}, {}]}
    return schema


HOSTILE: dict[str, dict[str, Any]] = {
    "a chain of references": {
        "properties": {
            **{str(i): {"$ref": f"#/properties/{i + 1}"} for i in range(8_000)},
            "8000": {},
        }
    },
    "all point at each other": {
        "properties": {
            str(i): {"anyOf": [{"$ref": f"#/properties/{j}"} for j in range(140) if j != i]}
            for i in range(140)
        }
    },
    "deep, and back up from everywhere": _nested(120),
    "wide and deep": {"allOf": [{"allOf": [{"items": {"not": {}}}] * 100} for _ in range(200)]},
    "many patterns": {"properties": {str(i): {"pattern": "(a?){9}" * 50} for i in range(600)}},
    "patterns that nest": {"pattern": "(" * 50_000 + ")" * 50_000},
    "a long pointer": {"$ref": "#" + "/$defs" * 100_000, "$defs": {}},
    "many types": {"properties": {str(i): {"type": ["string"] * 9} for i in range(9000)}},
    "much too big": {"description": "x" * 200_001},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_cost_little(name: str) -> None:
    for strict in (False, True):
        began = time.process_time()
        assert len(refusal({"type": "object", **HOSTILE[name]}, strict=strict) or "") < 2000
        assert time.process_time() - began < 5


KEYWORDS = st.sampled_from(
    sorted({*schema_keywords.SHAPES, *schema_keywords.SINGLES, *schema_keywords.STRICT})
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["object", "string", "array", "#", "#/$defs/a", "#/properties/a", "a", "[["]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYWORDS | st.sampled_from(["a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(KEYWORDS, VALUES, max_size=5), st.booleans(), st.booleans())
def test_any_schema_is_read_or_refused(schema: Any, strict: bool, rooted: bool) -> None:
    told = refusal(schema, strict=strict, rooted=rooted)
    assert told is None or told.startswith("Invalid schema for response_format 'x': ")
