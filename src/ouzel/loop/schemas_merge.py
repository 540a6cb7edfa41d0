"""Several JSON Schemas that hold at once, as one.

Good enough for engines: what cannot be joined is left out, so that the result allows rather more
than all of them together; the client's own schema is checked afterwards.
"""

from __future__ import annotations

from typing import Any

from ouzel.loop.schemas_work import point

_MAX_NESTING = 30
_MAX_STEPS = 3_000
_MAX_STEPS_IN_ALL = 100_000
"""A tenth of a second. What is joined in many places is joined again in each."""

_LARGEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")

Made = dict[str, Any]


class Merger:
    """Merges, as long as its steps last: schemas that refer to themselves have no end.

    Args:
        root: the schema that references lead into.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = 0
        self._left_in_all = _MAX_STEPS_IN_ALL

    def merged(self, *parts: Any) -> Any:
        """One schema in the place of several; references at their tops are followed."""
        given = self._left = min(_MAX_STEPS, self._left_in_all)
        result: Any = {}
        for part in parts:
            result = self._both(result, part, 0)
        self._left_in_all -= given - max(0, self._left)
        return result

    def _opened(self, part: Any) -> Any:
        for _ in range(_MAX_NESTING):
            if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
                return part
            target = point(self._root, part["$ref"])
            rest = {key: value for key, value in part.items() if key != "$ref"}
            if not isinstance(target, dict):
                return target
            part = (
                {**target, **rest}
                if not target.keys() & rest.keys()
                else {**rest, "allOf": [target]}
            )
        return part

    def _both(self, one: Any, other: Any, level: int) -> Any:
        self._left -= 1
        if one in ({}, True) or level > _MAX_NESTING or self._left < 0:
            return other
        if other in ({}, True):
            return one
        if level:
            # Inside, references stay as they are where nothing has to be joined.
            one, other = self._opened(one), self._opened(other)
        else:
            other = self._opened(other)
        if not isinstance(one, dict) or not isinstance(other, dict):
            return False
        result = dict(one)
        for key, value in other.items():
            result[key] = self._joined(key, one[key], value, level) if key in one else value
        for closed, wide in ((one, other), (other, one)):
            # What one of them forbids by leaving it out is not there.
            if closed.get("additionalProperties") is False and isinstance(
                wide.get("properties"), dict
            ):
                named = closed.get("properties") or {}
                result["properties"] = {
                    key: value
                    for key, value in (result.get("properties") or {}).items()
                    if key in named or key in (result.get("required") or ())
                }
        return result

    def _joined(self, key: str, one: Any, other: Any, level: int) -> Any:
        if one == other:
            return one
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        if key in _LARGEST and numbers:
            return max(one, other)
        if key in _SMALLEST and numbers:
            return min(one, other)
        if key == "type":
            return _types(one, other)
        if key in ("properties", "$defs") and isinstance(one, dict) and isinstance(other, dict):
            both = {k: self._both(one[k], other[k], level + 1) for k in one if k in other}
            return {**one, **other, **both}
        if isinstance(one, list) and isinstance(other, list):
            if key in ("required", "allOf"):
                return [*one, *(each for each in other if each not in one)]
            if key == "enum":
                return [each for each in one if each in other] or one
            if key in ("anyOf", "oneOf") and len(one) * len(other) <= 16:
                return [self._both(a, b, level + 1) for a in one for b in other]
        if key in ("items", "additionalProperties"):
            return self._both(one, other, level + 1)
        return one


def _types(one: Any, other: Any) -> Any:
    left, right = ([each] if isinstance(each, str) else each for each in (one, other))
    if not isinstance(left, list) or not isinstance(right, list):
        return one
    shared = [each for each in left if each in right]
    if not shared and {"integer", "number"} <= {*left, *right}:
        shared = ["integer"]
    return shared or one
