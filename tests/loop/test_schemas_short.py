"""A schema with limits where it had none: still one that engines take, and narrower than before."""

from __future__ import annotations

import json

import pytest

from ouzel.loop.schemas import schema
from ouzel.loop.schemas_engine import for_engine, refusal
from ouzel.loop.schemas_short import MOST_CHARACTERS, MOST_ITEMS, short

OPEN = [
    "{}",
    "true",
    '{"type":"object"}',
    '{"type":"array"}',
    '{"type":["string","array"]}',
    '{"type":"object","properties":{"a":{},"b":{"type":"array","items":{"type":"string"}}}}',
    '{"type":"object","additionalProperties":{"type":"string"}}',
    '{"$defs":{"n":{"type":"object","properties":{"kids":{"type":"array",'
    '"items":{"$ref":"#/$defs/n"}}},"required":["kids"]}},"$ref":"#/$defs/n"}',
]


@pytest.mark.parametrize("text", OPEN)
def test_what_is_limited_is_still_taken(text: str) -> None:
    assert refusal(short(for_engine(text))) == ""


@pytest.mark.parametrize("text", ["{}", '{"type":"array"}', '{"type":["string","array"]}'])
def test_long_values_no_longer_fit(text: str) -> None:
    limited = schema(short(for_engine(text)))
    assert limited.check(json.dumps(["x"] * MOST_ITEMS)) is None
    assert limited.check(json.dumps(["x"] * (MOST_ITEMS + 1))) is not None
    assert limited.check(json.dumps(["x" * (MOST_CHARACTERS + 1)])) is not None


def test_limits_of_the_client_stay() -> None:
    given = (
        '{"type":"object","properties":{"a":{"type":"array","items":{"type":"string",'
        '"maxLength":500},"minItems":6,"maxItems":9},"b":{"type":"string","pattern":"^a+$"},'
        '"c":{"enum":["x"]}},"required":["a","b","c"],"additionalProperties":false}'
    )
    assert json.loads(short(for_engine(given))) == json.loads(for_engine(given))


def test_what_needs_more_items_gets_them() -> None:
    limited = schema(short(for_engine('{"type":"array","items":{"type":"integer"},"minItems":6}')))
    assert limited.check("[1, 2, 3, 4, 5, 6]") is None
    assert limited.check("[1, 2, 3, 4, 5, 6, 7]") is not None
