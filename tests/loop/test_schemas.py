from __future__ import annotations

import json
import time
from typing import Any

import llguidance
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_cases import CASES

from ouzel.core.errors import RequestError
from ouzel.loop.schemas import LARGE, MAX_DEPTH, Schema, schema
from ouzel.loop.schemas_engine import as_grammar, for_engine, refusal
from ouzel.loop.schemas_repair import repair

ORDER = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 3},
        "b": {"type": "array", "items": {"type": "string", "minLength": 2}},
        "c": {"enum": ["x", "y"]},
    },
    "required": ["a"],
    "additionalProperties": False,
}
LOOSE = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "b": {"type": "array", "items": {"type": "string"}},
        "c": {"type": "boolean"},
        "d": {"enum": ["Celsius", "F"]},
        "e": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "t": {"type": "string"},
        "o": {"type": "object"},
    },
    "additionalProperties": False,
}
# Doubles its work with each level; the schema is 150 bytes.
DOUBLING = {
    "$ref": "#/$defs/n",
    "$defs": {
        "n": {
            "type": "object",
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}},
        }
    },
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "pattern": "^[a-f]+$"},
        {"type": "string", "maxLength": 3},
        {"type": "integer", "minimum": 0, "maximum": 9},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": ["boolean", "null"]},
        {"enum": ["a", 1, None]},
        {"const": {"k": [1]}},
        {},
        True,
        {"$ref": "#/$defs/leaf"},
    ]
)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def record(properties: dict[str, Any], required: list[str], more: Any) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": more,
        }

    objects = st.builds(
        record,
        st.dictionaries(NAMES, inner, max_size=3),
        st.lists(NAMES, max_size=2, unique=True),
        st.booleans() | inner,
    )
    arrays = st.builds(
        lambda items, n: {"type": "array", "items": items, "minItems": n}, inner, st.integers(0, 3)
    )
    unions = st.builds(
        lambda key, branches: {key: branches},
        st.sampled_from(["anyOf", "oneOf", "allOf"]),
        st.lists(inner, min_size=1, max_size=3),
    )
    both = st.builds(lambda one, other: {**one, **other}, objects, unions)
    return objects | arrays | unions | both


SCHEMAS = st.recursive(LEAVES, _larger, max_leaves=8).map(
    lambda made: {"$defs": {"leaf": {"type": "string"}}, **(made if isinstance(made, dict) else {})}
)


def _check(wanted: Any, text: str) -> str | None:
    return Schema(json.dumps(wanted)).check(text)


def _engine_takes(wanted: str, text: str) -> bool:
    grammar = llguidance.LLMatcher.grammar_from_json_schema(wanted)
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar, log_level=0)
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and bool(matcher.is_accepting())


def _repair(text: str) -> Any:
    found = repair(text, schema(json.dumps(LOOSE)))
    return None if found is None else json.loads(found)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": 1}', "`a` must be at least 3."),
        ('{"b": ["xx"]}', 'The JSON value lacks the required property "a".'),
        ('{"a": "x"}', "`a` must be an integer, not a string."),
        ('{"a": 3, "z": 1}', 'The JSON value must not have the properties ["z"].'),
        ('{"a": 3, "b": ["aa", "b"]}', "`b[1]` must have at least 2 characters."),
        ('{"a": 3, "c": "q"}', '`c` must be one of ["x","y"].'),
        ("[]", "The JSON value must be an object, not an array."),
        ('{"a": NaN}', "The text is not valid JSON: invalid character (byte 6)."),
    ],
)
def test_a_sentence_says_what_is_wrong_and_where(text: str, sentence: str) -> None:
    assert _check(ORDER, text) == sentence


def test_of_a_union_the_branch_that_was_meant_is_explained() -> None:
    union = CASES["oneOf by constant"][0]
    assert _check(union, '{"t": "a", "x": "1"}') == "`x` must be an integer, not a string."
    assert "it must be a string" in str(
        _check({"anyOf": [{"type": "string"}, {"type": "null"}]}, "1")
    )


def test_of_equal_keys_the_last_counts() -> None:
    assert _check(ORDER, '{"a": "x", "a": 3}') is None


@pytest.mark.parametrize("name", CASES)
def test_fifty_kinds_of_schemas_are_checked(name: str) -> None:
    wanted, good, bad = CASES[name]
    assert _check(wanted, good) is None
    assert _check(wanted, bad) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "[" * 50_000,
        "[" * 200 + "]" * 200,
        '{"a": 1e999}',
        '{"a":' + "9" * 5000 + "}",
        "\0",
        "x" * 2_000_000,
    ],
)
def test_no_text_makes_it_raise(text: str) -> None:
    assert isinstance(_check(ORDER, text), str) or text.startswith('{"a":9')


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ("[]", "object"),
        ("{", "JSON"),
        ("\ud800", "JSON"),
        ("[" * 5000, "nested"),
        ('{"type": "objec"}', "#/type"),
        ('{"pattern": "("}', "#/pattern"),
        ('{"pattern": "(((a{99}){99}){99}){99}"}', "#/pattern"),
        ('{"$ref": "#"}', "circle"),
        ('{"$ref": "#/nowhere"}', "#/nowhere"),
        ('{"$ref": "http://127.0.0.1:9/x"}', "http://127.0.0.1:9/x"),
        ('{"$ref": "file:///etc/passwd"}', "file:///etc/passwd"),
        ('{"items": {"$dynamicRef": "#x"}}', "$dynamicRef"),
        ('{"properties": {"a": {"$id": "b"}}}', "$id"),
        ('{"$schema": "http://else.where/"}', "$schema"),
        (json.dumps({"not": {}} | {"title": "x" * 300_000}), "characters"),
    ],
)
def test_what_cannot_be_used_is_named(wanted: str, word: str) -> None:
    with pytest.raises(RequestError) as caught:
        Schema(wanted)
    assert caught.value.code == "invalid_json_schema"
    assert word in caught.value.message
    assert len(caught.value.message) < 600


def test_large_schemas_are_kept_for_a_while_and_never_many() -> None:
    texts = [json.dumps({"title": f"{number} " + LARGE * "x"}) for number in range(40)]
    read = [schema(text) for text in texts]
    assert schema(texts[-1]) is read[-1]
    assert schema(texts[0]) is not read[0]


def test_branches_without_end_are_refused_at_once() -> None:
    steps = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    with pytest.raises(RequestError, match="branches too often"):
        Schema(json.dumps({"$defs": steps | {"d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}))


@pytest.mark.parametrize("levels", [3, 12, 15, 17, 40, 95])
def test_work_that_doubles_with_each_level_is_not_done(levels: int) -> None:
    # Without the count of steps 15 levels take the library a minute, and 40 for ever.
    began = time.monotonic()
    assert _check(DOUBLING, '{"a":' * levels + "1" + "}" * levels) is not None
    assert time.monotonic() - began < 10


def test_patterns_cannot_backtrack_without_end() -> None:
    began = time.monotonic()
    for pattern in ("^(a+)+$", "^(?=(a+)+$)b", "(a|aa)+$", "^(.*)*x$"):
        assert _check({"type": "string", "pattern": pattern}, '"' + "a" * 5000 + 'b"') is not None
    assert time.monotonic() - began < 10


def test_deep_values_are_read_to_the_limit() -> None:
    anything = Schema("{}")
    assert anything.check("[" * MAX_DEPTH + "]" * MAX_DEPTH) is None
    assert anything.check("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)) is not None


@settings(max_examples=60, deadline=None)
@given(wanted=SCHEMAS, value=JSON)
def test_random_values_and_schemas_are_judged_and_never_raise(wanted: Any, value: Any) -> None:
    try:
        made = Schema(json.dumps(wanted))
    except RequestError:
        return
    assert made.check(json.dumps(value)) == made.check(json.dumps(value))
    assert refusal(for_engine(made.text)) == ""


@pytest.mark.parametrize("name", CASES)
def test_an_engine_is_given_what_it_can_read(name: str) -> None:
    wanted, good, _ = CASES[name]
    given_to_it = for_engine(json.dumps(wanted))
    # Strictly, too: no keyword is in it that llguidance does not know.
    strict = json.loads(given_to_it)
    assert strict.pop("x-guidance")["lenient"] is True
    assert refusal(json.dumps(strict)) == ""
    assert _engine_takes(given_to_it, good)


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "integer", "minimum": 5, "maximum": 1},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [False, False]},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "array", "items": False, "minItems": 2},
        {"enum": ["a"], "type": "integer"},
        False,
    ],
)
def test_what_nothing_is_valid_for_still_makes_a_grammar(wanted: Any) -> None:
    assert refusal(for_engine(json.dumps(wanted))) == ""


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("array bounds", "[]"),
        ("all types", '{"s": "", "i": 0.5, "n": 0.5, "b": true, "z": null}'),
        ("integer bounds", "11"),
        ("fractional bounds", "4"),
        ("pattern", '"ab123"'),
        ("oneOf by constant", '{"t": "a", "y": ""}'),
        ("reference with more", '{"a": 2}'),
        ("tree", '{"value": 1, "children": [{"value": 2}]}'),
    ],
)
def test_the_engine_is_kept_to_what_it_can_be_kept_to(name: str, bad: str) -> None:
    assert not _engine_takes(for_engine(json.dumps(CASES[name][0])), bad)


@pytest.mark.parametrize("name", CASES)
def test_the_same_can_be_said_as_a_grammar(name: str) -> None:
    text = as_grammar(json.dumps(CASES[name][0]))
    assert not llguidance.LLMatcher.validate_grammar(text).removeprefix("WARNING")
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), text, log_level=0)
    assert matcher.consume_tokens(list(CASES[name][1].encode()))
    assert matcher.is_accepting()


def test_white_space_without_end_and_more_properties_are_not_allowed() -> None:
    made = for_engine('{"type":"object","properties":{"a":{"type":"integer"}}}')
    assert _engine_takes(made, '{"a": 1}')
    assert not _engine_takes(made, '{"a":   1}')
    assert not _engine_takes(made, '{"a": 1, "b": 1}')


def test_what_is_merged_in_many_places_takes_no_minutes() -> None:
    names = {kind: {f"x{i}": {kind: 1} for i in range(1400)} for kind in ("minLength", "maxLength")}
    both = [{"$ref": "#/$defs/minLength"}, {"$ref": "#/$defs/maxLength"}]
    wanted = {
        "type": "object",
        "$defs": {kind: {"$defs": inside} for kind, inside in names.items()},
        "properties": {f"p{i}": {"title": "x", "allOf": both} for i in range(1_500)},
    }
    began = time.process_time()
    made = json.loads(for_engine(msgspec.json.encode(wanted).decode()))
    assert time.process_time() - began < 2  # 3 s and more where each place has steps of its own
    assert len(made["properties"]) == 1_500


def test_schemas_that_merge_into_themselves_end() -> None:
    names = [f"p{i}" for i in range(30)]
    inner = {
        "allOf": [
            {"properties": {n: {"$ref": "#/$defs/n", "minLength": 1} for n in names}},
            {"properties": {n: {"$ref": "#/$defs/n", "maxLength": 9} for n in names}},
        ]
    }
    began = time.monotonic()
    assert refusal(for_engine(json.dumps({"$ref": "#/$defs/n", "$defs": {"n": inner}}))) == ""
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('I call it with {x}: {"a": 1, "b": ["x"]} ok?', {"a": 1, "b": ["x"]}),
        ("{'a': 1, 'c': True, 'e': None}", {"a": 1, "c": True, "e": None}),
        ('{"a": 1,}', {"a": 1}),
        ('{"a": 1, "b": ["x", "y"', {"a": 1, "b": ["x", "y"]}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"o": "{\\"x\\": 1}"}', {"o": {"x": 1}}),
        ('{"a": "12", "e": "2.5", "c": "true"}', {"a": 12, "e": 2.5, "c": True}),
        ('{"t": 5}', {"t": "5"}),
        ('{"b": "x"}', {"b": ["x"]}),
        ('{"a": [3]}', {"a": 3}),
        ('{"d": "celsius"}', {"d": "Celsius"}),
        ("{'t': 'it's fine'}", {"t": "it's fine"}),
        ('{"t": "one\ntwo"}', {"t": "one\ntwo"}),
        ("{a: 1, // why\n c: false}", {"a": 1, "c": False}),
        ('{"t": "\\ud83d\\ude00 \\ud800"', {"t": "😀 \ufffd"}),
    ],
)
def test_what_models_get_wrong_is_mended(text: str, value: Any) -> None:
    assert _repair(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "",
        '{"a": 1, "b": ["x", "y',
        '{"zz": 1}',
        '{"a": 1 "c": true}',
        '{"c": "yes"}',
        '{"a": true}',
        '{"e": 1e999}',
        '{"e": "1e999"}',
        '{"a": }',
        "{placeholder",
        "\ud800",
        "[" * 3000,
        '{"a":' * 3000,
    ],
)
def test_where_one_would_have_to_guess_nothing_is_mended(text: str) -> None:
    assert _repair(text) is None


@pytest.mark.parametrize(
    "piece", ["[", '{"a":', "{'a':'", '{"a":"b,', '\\"', "/*", "{/*", "{ ", '"', "'", "1"]
)
def test_mending_takes_time_in_proportion(piece: str) -> None:
    began = time.monotonic()
    _repair("{" + piece * (150_000 // len(piece)))
    assert time.monotonic() - began < 10


@settings(max_examples=100, deadline=None)
@given(text=st.text() | st.text(alphabet="{}[]\"':,\\abtrue1. \n"))
def test_whatever_is_mended_is_valid(text: str) -> None:
    found = repair(text, schema(json.dumps(LOOSE)))
    assert found is None or _check(LOOSE, found) is None


@settings(max_examples=60, deadline=None)
@given(value=JSON)
def test_valid_text_keeps_its_value(value: Any) -> None:
    text = json.dumps(value)
    found = repair(text, schema("{}"))
    if _check({}, text) is None:
        assert found is not None
        assert msgspec.json.decode(found) == msgspec.json.decode(text)
