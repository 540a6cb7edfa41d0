"""The version of a JSON Schema that an engine is given.

Two programs turn it into a grammar: llama.cpp's converter (for chat completions, in the embedded
engine as well) and llguidance (in vLLM and SGLang, and in the embedded engine for grammars that
begin with `%llguidance`, which it drops without a word where it cannot read them). Each refuses or
misreads keywords that the other takes. So the schema is written anew, from what both understand;
llguidance is asked whether it takes the result. It may allow more than the client's schema and
never wants something else: what comes is checked against the client's.

Objects are closed where the client left them open but named properties: weak models add their own.
With llguidance, white space is one blank after commas and colons: weak models go on with it for
ever. The converter of llama.cpp bounds it by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import llguidance
import msgspec

from ouzel.loop.grammars_gbnf import without_edges
from ouzel.loop.grammars_regex import NotExpressible, parse
from ouzel.loop.schemas import schema
from ouzel.loop.schemas_merge import Merger
from ouzel.loop.schemas_pattern import written
from ouzel.loop.schemas_work import point

MAX_TIMES = 1_000
"""Longest minLength, maxItems and so on: llama.cpp writes repetitions out one by one."""

MAX_BOUND = 2**53
_MAX_CHARS = 200_000
_MAX_PLACES = 5_000
_TYPES = ("object", "array", "string", "number", "boolean", "null")
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
)
_HINTS = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_GUIDANCE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}

Made = dict[str, Any]


class _TooLarge(Exception):
    """The schema has more places than are worth writing out."""


@lru_cache(maxsize=256)
def for_engine(schema_text: str) -> str:
    """The JSON Schema, as text, that an engine shall keep to while it generates.

    Args:
        schema_text: the client's schema.

    Raises:
        RequestError: the client's schema cannot be used, as `Schema` says.
    """
    root = schema(schema_text).value
    # Each attempt asks for less; the last is known to be taken by both converters.
    for bounds in (True, False):
        try:
            made = _Writer(root, bounds=bounds).whole()
        except (_TooLarge, RecursionError):
            break
        text = msgspec.json.encode(made).decode()
        if len(text) <= _MAX_CHARS and not refusal(text):
            return text
    sort = root.get("type") if isinstance(root, dict) else None
    made = {"type": sort} if sort in _TYPES else {"type": "object"} if sort is None else {}
    return msgspec.json.encode({**(made or _anything()), "x-guidance": _GUIDANCE}).decode()


def as_grammar(schema_text: str) -> str:
    """The same as a grammar for engines that contain llguidance, in the place of GBNF.

    Keeps closer to the schema than llama.cpp's converter: limits of fractions, lengths beside
    patterns, multiples, and no white space beyond one blank.

    Raises:
        RequestError: as `for_engine`.
    """
    return f"%llguidance {{}}\nstart: %json {for_engine(schema_text)}\n"


def refusal(schema_text: str) -> str:
    """Why llguidance would not take a schema; empty where it does."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema_text)
    wrong: str = llguidance.LLMatcher.validate_grammar(grammar)
    return "" if wrong.startswith("WARNING") else wrong


def _anything() -> Made:
    # Not {}: llama.cpp reads that as "any object".
    return {"type": list(_TYPES)}


class _Writer:
    """Writes one schema anew.

    Args:
        bounds: with lengths, limits, patterns and formats.
    """

    def __init__(self, root: dict[str, Any] | bool, *, bounds: bool) -> None:
        self._root = root
        self._merged = Merger(root).merged
        self._bounds = bounds
        self._names: dict[int, str] = {}
        self._waiting: list[tuple[str, Any]] = []
        self._places = 0

    def whole(self) -> Made:
        made = self._schema(self._root) or _anything()
        definitions: Made = {}
        while self._waiting:
            name, part = self._waiting.pop(0)
            definitions[name] = self._schema(part) or _anything()
        made = {**made, "$defs": definitions} if definitions else made
        return {**made, "x-guidance": _GUIDANCE}

    def _schema(self, part: Any) -> Made | None:
        """The new schema; None where nothing is valid."""
        self._places += 1
        if self._places > _MAX_PLACES:
            raise _TooLarge
        if not isinstance(part, dict):
            return None if part is False else _anything()
        if isinstance(part.get("$ref"), str):
            target = point(self._root, part["$ref"])
            if not _says_more(part):
                return self._reference(target)
            part = self._merged({k: v for k, v in part.items() if k != "$ref"}, target)
        if isinstance(part.get("allOf"), list):
            rest = {k: v for k, v in part.items() if k != "allOf"}
            return self._schema(self._merged(rest, *part["allOf"]))
        if "const" in part:
            return {"enum": [part["const"]]}
        if isinstance(part.get("enum"), list) and part["enum"]:
            return self._enum(part)
        for keyword in ("anyOf", "oneOf"):
            if isinstance(part.get(keyword), list):
                return self._union(part, keyword)
        return self._typed(part)

    def _reference(self, target: Any) -> Made | None:
        if not isinstance(target, dict):
            return self._schema(target)
        name = self._names.get(id(target))
        if name is None:
            name = self._names[id(target)] = f"d{len(self._names)}"
            self._waiting.append((name, target))
        return {"$ref": f"#/$defs/{name}"}

    def _enum(self, part: Made) -> Made:
        types = _types(part)
        fitting = [value for value in part["enum"] if not types or _sort(value) & set(types)]
        return {"enum": fitting or part["enum"]}

    def _union(self, part: Made, keyword: str) -> Made | None:
        rest = {k: v for k, v in part.items() if k not in ("anyOf", "oneOf")}
        whole = (self._merged(rest, each) if _says_more(rest) else each for each in part[keyword])
        made = [branch for branch in map(self._schema, whole) if branch is not None]
        return (made[0] if len(made) == 1 else {"anyOf": made}) if made else None

    def _typed(self, part: Made) -> Made:
        types = _types(part) or [
            sort for sort, keywords in _HINTS.items() if any(k in part for k in keywords)
        ]
        if "number" in types and "integer" in types:
            types.remove("integer")
        if not types:
            return _anything()
        made = [self._one(part, sort) for sort in types]
        return made[0] if len(made) == 1 else {"anyOf": made}

    def _one(self, part: Made, sort: str) -> Made:
        if sort == "object":
            return self._object(part)
        if sort == "array":
            return self._array(part)
        if not self._bounds:
            return {"type": sort}
        if sort == "string":
            return _string(part)
        return _number(part, sort) if sort in ("number", "integer") else {"type": sort}

    def _object(self, part: Made) -> Made:
        named = part.get("properties")
        named = named if isinstance(named, dict) else {}
        required = [name for name in part.get("required") or () if isinstance(name, str)]
        other = part.get("additionalProperties")
        patterns = part.get("patternProperties")
        if not named and isinstance(patterns, dict) and patterns:
            other = next(iter(patterns.values()))
        for name in required:
            if name not in named:
                named = {**named, name: other if isinstance(other, dict) else True}
        written_out = {name: self._schema(each) for name, each in named.items()}
        properties = {name: each for name, each in written_out.items() if each is not None}
        made: Made = {"type": "object"}
        if properties:
            made["properties"] = properties
            made["required"] = [name for name in dict.fromkeys(required) if name in properties]
        if isinstance(other, dict):
            rest = self._schema(other)
            made["additionalProperties"] = False if rest is None else rest
        elif named or other is False:
            made["additionalProperties"] = False
        return made

    def _array(self, part: Made) -> Made:
        items, prefix = part.get("items", True), part.get("prefixItems")
        if isinstance(items, list):
            items, prefix = part.get("additionalItems", True), items
        if isinstance(prefix, list) and prefix:
            # llama.cpp writes all of a prefix and nothing behind it.
            each = [self._schema(one) or _anything() for one in prefix]
            return {
                "type": "array",
                "prefixItems": each,
                "minItems": len(each),
                "maxItems": len(each),
            }
        made_items = self._schema(items)
        if made_items is None:
            return {"type": "array", "items": _anything(), "maxItems": 0}
        return {"type": "array", "items": made_items, **_times(part, "minItems", "maxItems")}


def _says_more(part: Made) -> bool:
    """Whether anything but references and remarks is in it."""
    remarks = {"$ref", "$defs", "definitions", "$schema", "$id", "$comment", "title"}
    remarks |= {"description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    return bool(part.keys() - remarks)


def _types(part: Made) -> list[str]:
    sort = part.get("type")
    listed = sort if isinstance(sort, list) else [sort]
    return [each for each in dict.fromkeys(listed) if isinstance(each, str)]


def _sort(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    names: dict[type, str] = {str: "string", list: "array", dict: "object", float: "number"}
    return {names.get(type(value), "null")}


def _times(part: Made, least: str, most: str) -> Made:
    """Bounds on how many; those that are too large are left out."""
    low, high = part.get(least), part.get(most)
    made: Made = {}
    if isinstance(low, int | float) and 0 < low <= MAX_TIMES:
        made[least] = int(low)
    if isinstance(high, int | float) and made.get(least, 0) <= high <= MAX_TIMES:
        made[most] = int(high)
    return made


def _string(part: Made) -> Made:
    pattern, form = part.get("pattern"), part.get("format")
    if isinstance(pattern, str):
        try:
            return {"type": "string", "pattern": written(without_edges(parse(pattern)))}
        except (NotExpressible, RecursionError):
            return {"type": "string", **_times(part, "minLength", "maxLength")}
    if form in _FORMATS:
        return {"type": "string", "format": form}
    return {"type": "string", **_times(part, "minLength", "maxLength")}


def _number(part: Made, sort: str) -> Made:
    made: Made = {"type": sort}
    step = part.get("multipleOf")
    if isinstance(step, int) and 0 < step <= MAX_TIMES:
        made["multipleOf"] = step
    for keyword, way in (("minimum", 1), ("maximum", -1)):
        strict = "exclusive" + keyword.capitalize()
        bound: Any = part.get(keyword)
        beyond: Any = part.get(strict)
        if _usable(bound):
            # llama.cpp reads bounds of integers as integers.
            made[keyword] = bound if sort == "number" else _inwards(bound, way)
        if _usable(beyond):
            if sort == "number":
                made[strict] = beyond
            else:
                edge = _inwards(beyond, way)
                edge += way if edge == beyond else 0
                known = made.get(keyword, edge)
                made[keyword] = max(edge, known) if way == 1 else min(edge, known)
    return made


def _usable(bound: Any) -> bool:
    number = isinstance(bound, int | float) and not isinstance(bound, bool)
    return number and bool(abs(bound) <= MAX_BOUND)


def _inwards(bound: float, step: int) -> int:
    return -int(-bound // 1) if step == 1 else int(bound // 1)
