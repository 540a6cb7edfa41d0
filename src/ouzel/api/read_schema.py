"""Checks the JSON Schemas that clients send, of functions' parameters and of answers' formats.

Two levels. *Strict* schemas keep to the subset that OpenAI's guide to Structured Outputs names, so
that a grammar can hold a model to every word of them. All others may say whatever JSON Schema can
say; only what could not be honoured at all is refused: references that lead out of the document,
to nothing or only to themselves, types that do not exist, keywords whose value makes no sense. What
only those who check values can tell (whether a pattern can be read, whether a draft is known) is
theirs to refuse.

Errors are worded as OpenAI words them: people search for these sentences. Pure; the work is in
proportion to the size of the schema, whatever it says. It knows no parameter of any endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ouzel.api.read_errors import Path, literal, show, type_of, wrong_type
from ouzel.api.schema_keywords import (
    LISTS,
    MAPS,
    NOWHERE,
    SAME_VALUE,
    SHAPES,
    SINGLES,
    STRICT,
    STRICT_FORMATS,
)
from ouzel.core.errors import RequestError

MOST_CHARACTERS = 200_000
"""Characters of a schema as compact JSON. Ours to choose: it bounds the work, and no model reads
as much."""

# As the guide to Structured Outputs limits strict schemas.
MOST_PROPERTIES = 5000
MOST_LEVELS = 10
MOST_ENUM_VALUES = 1000
MOST_NAMES = 120_000
"""Characters of all names of properties and definitions, and all enum and const strings."""

_Place = tuple[Any, ...] | None
"""Where a subschema stands: (place of its parent, key, key ...), None for the root. Linked, so
that wide and deep schemas cost no copies."""


class _Flaw(Exception):
    """What is wrong with a schema, in words; for this file only."""


def compact(schema: dict[str, Any]) -> str:
    """The schema as JSON text without spaces, keys in their order."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def read_schema(
    schema: Any, path: Path, *, subject: str, code: str, strict: bool, rooted: bool
) -> str:
    """Check a schema; give it back as compact JSON text.

    Args:
        schema: the decoded value.
        path: where it stands in the request.
        subject: what it is for, as errors say it (`function 'add'`).
        code: the code of errors about what it says.
        strict: hold it against the strict subset.
        rooted: it must describe an object, as strict ones always must.

    Raises:
        RequestError: names the keyword and where in the schema it stands.
    """
    if type(schema) is not dict:
        raise wrong_type(path, "an object", schema)
    written = compact(schema)
    try:
        if len(written) > MOST_CHARACTERS:
            raise _Flaw(
                f"it has {len(written)} characters, and this server reads {MOST_CHARACTERS}"
            )
        _Check(schema, strict, rooted or strict).run()
    except _Flaw as flaw:
        message = f"Invalid schema for {subject}: {flaw}."
        raise RequestError(message, param=show(path), code=code) from None
    return written


def fits_strict(schema: dict[str, Any]) -> bool:
    """Whether the schema keeps to the strict subset."""
    try:
        _Check(schema, strict=True, rooted=True).run()
    except _Flaw:
        return False
    return True


def _inner(node: dict[str, Any], place: _Place) -> Iterator[tuple[str, Any, _Place]]:
    """The schemas right inside of this one: (keyword, schema, place)."""
    for keyword, value in node.items():
        if keyword in MAPS:
            for name, inner in value.items():
                yield keyword, inner, (place, keyword, name)
        elif keyword in LISTS or (keyword == "items" and type(value) is list):
            for index, inner in enumerate(value):
                yield keyword, inner, (place, keyword, str(index))
        elif keyword in SINGLES:
            yield keyword, value, (place, keyword)


class _Check:
    """One walk through one schema. Raises _Flaw for the first thing that is wrong."""

    def __init__(self, root: dict[str, Any], strict: bool, rooted: bool) -> None:
        self._root = root
        self._strict = strict
        self._rooted = rooted
        self._places: dict[int, _Place] = {}
        self._references: list[tuple[dict[str, Any], _Place]] = []
        # Which schemas look at the same value as this one, by the schemas' identity.
        self._same_value: dict[int, list[dict[str, Any]]] = {}
        self._properties = 0
        self._enum_values = 0
        self._names = 0

    def run(self) -> None:
        if self._rooted:
            self._check_root()
        self._walk(self._root, None)
        while self._references:
            node, place = self._references.pop()
            target = self._follow(node["$ref"], place)
            self._same_value[id(node)].append(target)
            if id(target) not in self._places:
                if self._strict:
                    raise _at(place, f"reference {literal(node['$ref'])} leads to no definition")
                self._walk(target, None)
        self._check_loops()

    def _check_root(self) -> None:
        kind = self._root.get("type")
        if kind != "object":
            shown = kind if type(kind) is str else None if kind is None else literal(kind)
            raise _Flaw(
                "schema must be a JSON Schema of 'type: \"object\"', "
                f"got 'type: \"{str(shown)[:64]}\"'"
            )
        if self._strict and "anyOf" in self._root:
            raise _at(None, "'anyOf' is not permitted at the root")

    def _walk(self, start: dict[str, Any], start_place: _Place) -> None:
        waiting: list[tuple[Any, _Place, int]] = [(start, start_place, 0)]
        while waiting:
            node, place, level = waiting.pop()
            if type(node) is not dict:
                self._check_other(node, place)
                continue
            if id(node) in self._places:
                continue
            self._places[id(node)] = place
            self._check_keywords(node, place)
            if self._strict:
                self._check_strict(node, place, level)
            same = self._same_value.setdefault(id(node), [])
            if "$ref" in node:
                self._references.append((node, place))
            inside = []
            for keyword, inner, inner_place in _inner(node, place):
                if keyword in SAME_VALUE and type(inner) is dict:
                    same.append(inner)
                if keyword == "additionalProperties" and self._strict:
                    continue
                inside.append((inner, inner_place, self._level(keyword, level)))
            waiting.extend(reversed(inside))

    def _level(self, keyword: str, level: int) -> int:
        """How deep the values of an inner schema lie in the value of a strict schema."""
        if keyword in ("$defs", "definitions"):
            return 0
        return level if keyword == "anyOf" else level + 1

    def _check_other(self, node: Any, place: _Place) -> None:
        """true and false are schemas too, but say nothing that a strict one may say."""
        if type(node) is not bool or self._strict:
            raise _at(place, f"a schema must be an object, got {type_of(node)}")

    def _check_keywords(self, node: dict[str, Any], place: _Place) -> None:
        for keyword, value in node.items():
            if self._strict and keyword not in STRICT:
                raise _at(place, f"{literal(keyword)} is not permitted")
            if keyword in NOWHERE or (keyword == "$id" and place is not None):
                raise _at(place, f"'{keyword}' is not supported")
            shape = SHAPES.get(keyword)
            if shape is not None and not shape[0](value):
                what = f"{literal(value)} is not valid as '{keyword}'"
                raise _at(place, f"{what}: expected {shape[1]}")

    # What only strict schemas are asked.

    def _check_strict(self, node: dict[str, Any], place: _Place, level: int) -> None:
        if "$ref" in node:
            beside = node.keys() & {"type", "properties", "items", "anyOf", "enum", "const"}
            if beside:
                raise _at(place, f"'$ref' cannot have keywords {{{literal(min(beside))}}}")
        elif not node.keys() & {"type", "anyOf", "enum", "const"}:
            raise _at(place, "schema must have a 'type' key")
        kinds = node.get("type", ())
        kinds = (kinds,) if type(kinds) is str else kinds
        if "object" in kinds or "properties" in node:
            self._check_object(node, place)
        if "array" in kinds and "items" not in node:
            raise _at(place, "array schema missing items")
        if type(node.get("items")) is list:
            raise _at(place, "array schema items is not an object")
        if level > MOST_LEVELS:
            raise _at(place, f"{level} levels of nesting exceeds limit of {MOST_LEVELS}")
        if node.get("format", STRICT_FORMATS[0]) not in STRICT_FORMATS:
            raise _at(place, f"{literal(node['format'])} is not a valid format")
        self._count(node)

    def _check_object(self, node: dict[str, Any], place: _Place) -> None:
        if node.get("additionalProperties") is not False:
            raise _at(place, "'additionalProperties' is required to be supplied and to be false")
        properties = node.get("properties", {})
        required = node.get("required", [])
        listed = set(required)
        for name in properties:
            if name not in listed:
                raise _at(
                    place,
                    "'required' is required to be supplied and to be an array including every key "
                    f"in properties. Missing {literal(name)}",
                )
        for name in required:
            if name not in properties:
                raise _at(place, f"extra required key {literal(name)} supplied")

    def _count(self, node: dict[str, Any]) -> None:
        values = node.get("enum", [])
        properties = node.get("properties", {})
        self._properties += len(properties)
        self._enum_values += len(values)
        names = (*properties, *node.get("$defs", ()), *node.get("definitions", ()))
        words = (*names, *values, node.get("const"))
        self._names += sum(len(word) for word in words if type(word) is str)
        for what, number, most in (
            ("properties", self._properties, MOST_PROPERTIES),
            ("enum values", self._enum_values, MOST_ENUM_VALUES),
            ("characters of names and enum values", self._names, MOST_NAMES),
        ):
            if number > most:
                raise _Flaw(f"{number} {what} in total exceed the limit of {most}")

    # References.

    def _follow(self, reference: str, place: _Place) -> dict[str, Any]:
        """What a reference within the document leads to."""
        if not reference.startswith("#"):
            raise _at(place, f"reference {literal(reference)} leads out of the schema")
        found: Any = self._root
        steps = unquote(reference[1:]).split("/")
        if steps[0]:
            raise _at(place, f"reference {literal(reference)} can only be resolved as a path")
        for step in steps[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if type(found) is dict and key in found:
                found = found[key]
            elif type(found) is list and key.isdecimal() and int(key[:9]) < len(found):
                found = found[int(key[:9])]
            else:
                raise _at(place, f"reference {literal(reference)} leads to no definition")
        if type(found) is not dict:
            raise _at(place, f"reference {literal(reference)} leads to no definition")
        return found

    def _check_loops(self) -> None:
        """Refuses schemas that say of a value only that it fits themselves."""
        finished: set[int] = set()
        for start in list(self._same_value):
            trail: list[tuple[int, Iterator[dict[str, Any]]]] = []
            on_trail: set[int] = set()
            step: int | None = start if start not in finished else None
            while step is not None or trail:
                if step is not None:
                    on_trail.add(step)
                    trail.append((step, iter(self._same_value[step])))
                node, rest = trail[-1]
                step = None
                for target in rest:
                    if id(target) in on_trail:
                        raise _at(self._places[node], "a reference leads back to its own schema")
                    if id(target) not in finished:
                        step = id(target)
                        break
                if step is None:
                    trail.pop()
                    on_trail.discard(node)
                    finished.add(node)


def _at(place: _Place, problem: str) -> _Flaw:
    """A flaw with its place, as a Python tuple: that is how OpenAI's errors name it."""
    keys: list[str] = []
    while place is not None:
        keys[:0] = [str(key) if len(str(key)) <= 64 else str(key)[:64] + "…" for key in place[1:]]
        place = place[0]
    return _Flaw(f"In context={tuple(keys)!r}, {problem}")
