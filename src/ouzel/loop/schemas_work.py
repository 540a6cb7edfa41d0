"""How much work a schema makes, before anybody does it.

Validation follows every branch of `anyOf` and its like. A schema of a few hundred bytes can
thereby ask for more steps than a computer will ever do, and the library that validates cannot be
interrupted. Here the steps are counted, not taken: each pair of a place in the schema and a place
in the value is looked at once, so that counting is cheap where validating would not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

MAX_WORK = 300_000
"""Steps that one validation may take, about a third of a second at worst."""

_MAX_LOOKS = 150_000
_MAX_CHAIN = 150
_LISTS = ("anyOf", "oneOf", "allOf")
_SINGLES = ("not", "if", "then", "else")
_EACH_PROPERTY = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_EACH_ITEM = ("contains", "additionalItems", "unevaluatedItems")
_REFUSED = ("$dynamicRef", "$recursiveRef")


class TooMuchWork(Exception):
    """Counting itself takes too long, or runs in a circle."""


class Unsupported(Exception):
    """The schema uses what is not supported; the message names it."""


def depth(value: object, limit: int) -> int:
    """How many arrays and objects are inside each other; counting ends past `limit`."""
    level, here = 0, [value]
    while here and level <= limit:
        here = [
            child
            for each in here
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        level += bool(here)
    return level


def point(root: Any, reference: str) -> Any:
    """What a local reference (`#`, `#/$defs/a`) points at.

    Raises:
        Unsupported: it points out of the schema, or at nothing.
    """
    if reference != "#" and not reference.startswith("#/"):
        raise Unsupported(f"the `$ref` {reference[:100]!r} is not supported; only `#/...` is.")
    here = root
    for part in unquote(reference[1:]).split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and part.isdecimal() and int(part) < len(here):
            here = here[int(part)]
        elif isinstance(here, dict) and part in here:
            here = here[part]
        else:
            raise Unsupported(f"the `$ref` {reference[:100]!r} points at nothing.")
    if not isinstance(here, dict | bool):
        raise Unsupported(f"the `$ref` {reference[:100]!r} does not point at a schema.")
    return here


class Worker:
    """Counts the work of one schema."""

    def __init__(self, root: dict[str, Any] | bool) -> None:
        self._root = root
        self._paths: int | None = None

    def survey(self) -> None:
        """Look at the whole schema once.

        Raises:
            Unsupported: a keyword or a reference is not supported.
            TooMuchWork: references lead round in a circle, or branch too often.
        """
        seen: set[int] = set()
        waiting: list[Any] = [self._root]
        count = _Count(self._root)
        while waiting:
            here = waiting.pop()
            if not isinstance(here, dict) or id(here) in seen:
                continue
            seen.add(id(here))
            for keyword in _REFUSED:
                if keyword in here:
                    raise Unsupported(f"the keyword `{keyword}` is not supported.")
            if "$id" in here and here is not self._root:
                raise Unsupported("the keyword `$id` is supported at the top only.")
            if count.of(here, None) > MAX_WORK:
                raise TooMuchWork("it branches too often.")
            waiting.extend(_same_place(self._root, here))
            waiting.extend(_other_places(here))
        try:
            self._paths = _Count(self._root, everything=True).of(self._root, None)
        except TooMuchWork:
            self._paths = None

    def work(self, value: object) -> int:
        """An upper bound of the steps that validating this value takes, up to a factor."""
        # Most schemas are trees: then the number of values alone says enough.
        if self._paths is not None and self._paths * 200 <= MAX_WORK:
            return self._paths
        try:
            return _Count(self._root).of(self._root, value)
        except TooMuchWork:
            return MAX_WORK + 1


class _Count:
    """One count: what was looked at, and what is being looked at."""

    def __init__(self, root: Any, *, everything: bool = False) -> None:
        self._root = root
        self._everything = everything
        self._known: dict[tuple[int, int], int] = {}
        self._open: set[tuple[int, int]] = set()

    def of(self, schema: Any, value: object) -> int:
        if not isinstance(schema, dict):
            return 1
        container = isinstance(value, dict | list)
        key = (id(schema), id(value) if container else 0)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            raise TooMuchWork("a `$ref` in it leads round in a circle.")
        if len(self._open) > _MAX_CHAIN or len(self._known) > _MAX_LOOKS:
            raise TooMuchWork("its references make a chain that is too long.")
        self._open.add(key)
        total = 1 + sum(self.of(part, value) for part in _same_place(self._root, schema))
        if self._everything:
            total += sum(self.of(part, None) for part in _other_places(schema))
        elif isinstance(value, dict):
            total += sum(self.of(part, child) for part, child in _by_property(schema, value))
        elif isinstance(value, list):
            total += sum(self.of(part, child) for part, child in _by_item(schema, value))
        self._open.discard(key)
        self._known[key] = total
        return total


def _same_place(root: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """Schemas that apply to the very value that this one applies to."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield point(root, reference)
    for keyword in _LISTS:
        part = schema.get(keyword)
        if isinstance(part, list):
            yield from part
    for keyword in _SINGLES:
        if keyword in schema:
            yield schema[keyword]
    for keyword in ("dependentSchemas", "dependencies"):
        part = schema.get(keyword)
        if isinstance(part, dict):
            yield from part.values()


def _other_places(schema: dict[str, Any]) -> Iterator[Any]:
    """Schemas that apply to what is inside the value."""
    for keyword in ("properties", "patternProperties"):
        part = schema.get(keyword)
        if isinstance(part, dict):
            yield from part.values()
    for keyword in ("prefixItems", "items"):
        part = schema.get(keyword)
        if isinstance(part, list):
            yield from part
        elif part is not None:
            yield part
    for keyword in (*_EACH_PROPERTY, *_EACH_ITEM):
        if keyword in schema:
            yield schema[keyword]


def _by_property(schema: dict[str, Any], value: dict[str, Any]) -> Iterator[tuple[Any, object]]:
    named, patterns = schema.get("properties"), schema.get("patternProperties")
    every = [schema[keyword] for keyword in _EACH_PROPERTY if keyword in schema]
    if isinstance(patterns, dict):
        every.extend(patterns.values())
    for name, child in value.items():
        if isinstance(named, dict) and name in named:
            yield named[name], child
        yield from ((part, child) for part in every)


def _by_item(schema: dict[str, Any], value: list[Any]) -> Iterator[tuple[Any, object]]:
    every = [schema[keyword] for keyword in _EACH_ITEM if keyword in schema]
    items, prefix = schema.get("items"), schema.get("prefixItems")
    if isinstance(items, list):
        prefix = items
    elif items is not None:
        every.append(items)
    for index, child in enumerate(value):
        if isinstance(prefix, list) and index < len(prefix):
            yield prefix[index], child
        yield from ((part, child) for part in every)
