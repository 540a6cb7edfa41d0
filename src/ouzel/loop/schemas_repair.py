"""Mends JSON that a model wrote without a grammar.

The text is read once, from left to right, by a reader that forgives what models do: a fence or talk
around it, single quotes, trailing commas, names without quotes, `True` and `None`, line breaks in
strings, comments, brackets that were not closed. Then values are turned into what the schema asks
for where only one reading is possible. Where one would have to guess, nothing is returned. It
never raises, and takes time in proportion to the text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from ouzel.loop.schemas import Schema
from ouzel.loop.schemas_work import Unsupported, point

MAX_CHARS = 200_000
"""Longest text that is read, in bytes."""
_MAX_NESTING = 60
_MAX_STARTS = 8
_SKIP = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_$][\w$-]*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_UNICODE = re.compile(r"u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "undefined": None, "nil": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_CLOSING = {'"': '"', "'": "'", "“": "”"}


class _Unreadable(Exception):
    """What follows is no JSON, not even broken JSON."""


def repair(text: str, schema: Schema) -> str | None:
    """JSON text that is valid for the schema, made from what a model wrote; None if that fails.

    Args:
        text: what the model wrote. Valid text comes back as compact JSON of the same value.
        schema: what it has to be valid for.
    """
    try:
        if len(text.encode()) > MAX_CHARS:
            return None
    except UnicodeEncodeError:
        return None
    for value in _readings(text):
        for _ in range(3):
            for candidate in (value, _fitted(value, schema.value, schema.value, 0)):
                if schema.check_value(candidate) is None:
                    return msgspec.json.encode(candidate).decode()
            # JSON within a JSON string, possibly twice.
            if not isinstance(value, str):
                break
            try:
                value = _read(value, 0)[0]
            except _Unreadable:
                break
    return None


def _readings(text: str) -> list[Any]:
    """Values that the text may stand for, the likeliest first."""
    try:
        return [msgspec.json.decode(text)]
    except (msgspec.DecodeError, RecursionError):
        pass
    found: list[tuple[int, int, Any]] = []
    starts = [match.start() for match in re.finditer(r"[{\[]", text)]
    end = -1
    tried = 0
    for start in starts:
        # Inside what was read already begins nothing new.
        if start < end or tried >= _MAX_STARTS:
            continue
        tried += 1
        try:
            value, end = _read(text, start)
        except _Unreadable:
            continue
        found.append((end - start, start, value))
    if not starts:
        try:
            value, end = _read(text, 0)
        except _Unreadable:
            return []
        return [value] if not text[end:].strip() else []
    # What is longest is what was meant; braces in the talk around it are short.
    return [value for _, _, value in sorted(found, key=lambda each: (-each[0], each[1]))]


def _read(text: str, start: int) -> tuple[Any, int]:
    reader = _Reader(text, start)
    return reader.value(0), reader.at


class _Reader:
    """Reads one value."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def _next(self) -> str:
        match = _SKIP.match(self._text, self.at)
        self.at = match.end() if match else self.at
        return self._text[self.at : self.at + 1]

    def value(self, level: int) -> Any:
        if level > _MAX_NESTING:
            raise _Unreadable
        here = self._next()
        if here == "{":
            return self._object(level)
        if here == "[":
            return self._array(level)
        if here in _CLOSING:
            return self._string(here)
        if number := _NUMBER.match(self._text, self.at):
            return self._number(number)
        word = _WORD.match(self._text, self.at)
        if word is None or word.group().lower() not in _WORDS:
            raise _Unreadable
        self.at = word.end()
        return _WORDS[word.group().lower()]

    def _number(self, match: re.Match[str]) -> Any:
        self.at = match.end()
        number = _number(match.group())
        if number is None:
            raise _Unreadable
        return number

    def _object(self, level: int) -> dict[str, Any]:
        self.at += 1
        found: dict[str, Any] = {}
        while True:
            here = self._next()
            if here in ("", "}"):
                self.at += len(here)
                return found
            if here == ",":
                self.at += 1
                continue
            name = self._name(here)
            if self._next() != ":":
                raise _Unreadable
            self.at += 1
            found[name] = self.value(level + 1)
            self._joint("}")

    def _name(self, here: str) -> str:
        if here in _CLOSING:
            return self._string(here)
        word = _WORD.match(self._text, self.at)
        if word is None:
            raise _Unreadable
        self.at = word.end()
        return word.group()

    def _array(self, level: int) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while True:
            here = self._next()
            if here in ("", "]"):
                self.at += len(here)
                return found
            if here == ",":
                self.at += 1
                continue
            found.append(self.value(level + 1))
            self._joint("]")

    def _joint(self, closing: str) -> None:
        if self._next() not in (",", closing, ""):
            raise _Unreadable

    def _string(self, quote: str) -> str:
        closing = _CLOSING[quote]
        at = self.at + 1
        parts: list[str] = []
        while at < len(self._text):
            here = self._text[at]
            if here == closing and self._ends(at, closing):
                self.at = at + 1
                return "".join(parts)
            if here != "\\":
                parts.append(here)
                at += 1
                continue
            taken, at = self._escape(at + 1)
            parts.append(taken)
        # Where the quote was meant to be, nobody knows.
        raise _Unreadable

    def _ends(self, at: int, closing: str) -> bool:
        """Whether a quote ends its string; `it's` has one that does not."""
        if closing != "'":
            return True
        before, after = self._text[at - 1 : at], self._text[at + 1 : at + 2]
        return not (before.isalnum() and after.isalnum())

    def _escape(self, at: int) -> tuple[str, int]:
        here = self._text[at : at + 1]
        if here != "u":
            return _ESCAPES.get(here, here), at + 1
        match = _UNICODE.match(self._text, at)
        if match is None:
            raise _Unreadable
        code = int(match[1], 16)
        if not 0xD800 <= code < 0xE000:
            return chr(code), at + 5
        if code >= 0xDC00 or match[2] is None:
            return "\ufffd", at + 5
        low = int(match[2], 16)
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), match.end()


def _number(text: str) -> int | float | None:
    """The number; None where it is too large to be one."""
    number = float(text) if len(text) <= 40 else math.inf
    if not math.isfinite(number):
        return None
    whole = re.fullmatch(r"[+-]?\d+", text) and abs(number) < 2**63
    return int(text) if whole else number


def _fitted(value: Any, part: Any, root: Any, level: int) -> Any:
    """The value as the schema wants it, where its sort is wrong and only one other is meant."""
    for _ in range(10):
        if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
            break
        try:
            part = point(root, part["$ref"])
        except Unsupported:
            return value
    if not isinstance(part, dict) or level > _MAX_NESTING:
        return value
    branches = part.get("anyOf")
    if isinstance(branches, list) and value is not None:
        # "Or null" is how optional values are written.
        others = [each for each in branches if each != {"type": "null"}]
        return _fitted(value, others[0], root, level + 1) if len(others) == 1 else value
    value = _sorted(value, part)
    if isinstance(value, dict) and isinstance(part.get("properties"), dict):
        named, other = part["properties"], part.get("additionalProperties")
        return {k: _fitted(v, named.get(k, other), root, level + 1) for k, v in value.items()}
    if isinstance(value, list) and isinstance(part.get("items"), dict):
        return [_fitted(each, part["items"], root, level + 1) for each in value]
    return value


def _sorted(value: Any, part: dict[str, Any]) -> Any:
    sort = part.get("type")
    sorts = [sort] if isinstance(sort, str) else sort if isinstance(sort, list) else []
    if not sorts and isinstance(part.get("enum"), list):
        return _of_enum(value, part["enum"])
    if not sorts or _is(value, sorts):
        return value
    for wanted in sorts:
        turned = _turned(value, wanted)
        if _is(turned, [wanted]):
            return _of_enum(turned, part["enum"]) if isinstance(part.get("enum"), list) else turned
    if "array" in sorts and value is not None:
        return [value]
    return value


def _of_enum(value: Any, allowed: list[Any]) -> Any:
    if value in allowed or not isinstance(value, str):
        return value
    close = [a for a in allowed if str(a).casefold() == value.strip().casefold()]
    return close[0] if len(close) == 1 else value


def _turned(value: Any, wanted: str) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if wanted in ("integer", "number") and _NUMBER.fullmatch(text):
            return _number(text)
        if wanted in ("boolean", "null"):
            return _WORDS.get(text.lower(), value)
        if wanted in ("object", "array"):
            try:
                return _read(text, 0)[0]
            except _Unreadable:
                return value
    if wanted == "string" and isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    if wanted not in ("array", "object") and isinstance(value, list) and len(value) == 1:
        return _turned(value[0], wanted) if not isinstance(value[0], list) else value
    return value


def _is(value: Any, sorts: list[Any]) -> bool:
    if isinstance(value, bool):
        return "boolean" in sorts
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer" in sorts or "number" in sorts
    names: dict[type, str] = {str: "string", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null") in sorts
