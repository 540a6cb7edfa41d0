"""Reading request bodies: bytes to JSON, and JSON values to checked Python values.

A *reader* is a function `(value, path) -> checked value` that raises RequestError. The factories
here (`integer`, `string`, `array`, `record`, ...) make readers; the protocol files put them into
tables, one row a parameter. `path` is where the value stands (`("messages", 0, "content")`); it is
written out only when something is wrong.

This file knows JSON. It knows no parameter of any endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ouzel.api.read_errors import (
    Path,
    invalid,
    missing,
    out_of_range,
    too_long,
    type_of,
    unknown,
    unsupported,
    unsupported_kind,
    wrong_type,
    wrong_value,
)
from ouzel.core.errors import RequestError

Reader = Callable[[Any, Path], Any]

MAX_DEPTH = 128
"""Levels of nesting that a body may have. Ours to choose: nothing in the API comes near it."""

MAX_TEXT = 10_485_760
"""Characters in one text, as the API reference limits input texts (`maxLength` of
`InputTextContentParam`)."""

_HALF_PAIR = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
"""An escape that is half of a character: what cutting JavaScript strings leaves behind."""


def decode_body(raw: bytes) -> dict[str, Any]:
    """Read a request body.

    Strict JSON in UTF-8: no NaN, no unpaired surrogates, no number that overflows. Of a key that
    comes twice the last one counts, as in most parsers. How big `raw` may be is the caller's to
    decide.

    Raises:
        RequestError: the body is not a JSON object, or is nested deeper than MAX_DEPTH.
    """
    try:
        body = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise _unreadable("it is not valid UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        raise _unreadable(_what_is_wrong(str(error), raw)) from None
    if type(body) is not dict:
        raise RequestError(
            f"Invalid body: expected an object, but got {type_of(body)} instead.",
            code="invalid_type",
        )
    # Depth costs an opening bracket a level, so most bodies need no walk.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        raise _too_deep()
    return body


def _what_is_wrong(detail: str, raw: bytes) -> str:
    """The parser's words, which quote nothing of the body, and the usual culprit by its name."""
    if _HALF_PAIR.search(raw):
        return detail + "; a string holds half of a surrogate pair (\\ud800 to \\udfff)"
    return detail


def _is_deeper(body: Any, limit: int) -> bool:
    """Whether containers are nested in each other more than `limit` times; level by level."""
    level = [body]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _unreadable(why: str) -> RequestError:
    return RequestError(
        f"We could not parse the JSON body of your request: {why}.", code="invalid_json"
    )


def _too_deep() -> RequestError:
    return _unreadable(f"it is nested deeper than {MAX_DEPTH} levels")


# Readers for single values.


def anything(value: Any, path: Path) -> Any:  # noqa: ARG001
    """Takes the value as it is; for what another row has looked at already."""
    return value


def boolean(value: Any, path: Path) -> Any:
    """`true` or `false`, not 0 or 1."""
    if type(value) is not bool:
        raise wrong_type(path, "a boolean", value)
    return value


def integer(minimum: int, maximum: int) -> Reader:
    """A whole number written without a decimal point; `true` is none."""

    def read(value: Any, path: Path) -> Any:
        if type(value) is not int:
            raise wrong_type(path, "an integer", value)
        if not minimum <= value <= maximum:
            raise out_of_range(path, "integer", value, minimum, maximum)
        return value

    return read


def number(minimum: float, maximum: float) -> Reader:
    """Any JSON number in the range; read as a float."""

    def read(value: Any, path: Path) -> Any:
        if type(value) is not float and type(value) is not int:
            raise wrong_type(path, "a decimal", value)
        if not minimum <= value <= maximum:
            raise out_of_range(path, "decimal", value, minimum, maximum)
        return float(value)

    return read


def text(value: Any, path: Path) -> Any:
    """What people and models say: any characters, up to MAX_TEXT of them, none is fine too."""
    if type(value) is not str:
        raise wrong_type(path, "a string", value)
    if len(value) > MAX_TEXT:
        raise too_long(path, value, MAX_TEXT)
    return value


def string(longest: int, shortest: int = 0) -> Reader:
    """A name, key or other short string, `shortest` to `longest` characters, without NUL.

    NUL is refused because names end up in databases and headers, which do not all take it.
    """

    def read(value: Any, path: Path) -> Any:
        if type(value) is not str:
            raise wrong_type(path, "a string", value)
        if len(value) > longest:
            raise too_long(path, value, longest)
        if len(value) < shortest:
            raise invalid(
                path,
                f"empty string. Expected a string with minimum length {shortest}, "
                "but got an empty string instead",
                "empty_string",
            )
        if "\0" in value:
            raise invalid(path, "the string holds a NUL character (\\u0000)")
        return value

    return read


def choice(*values: str) -> Reader:
    """One of a closed list of strings."""
    allowed = dict.fromkeys(values)  # a set that keeps its order for the error

    def read(value: Any, path: Path) -> Any:
        if type(value) is not str:
            raise wrong_type(path, "a string", value)
        if value not in allowed:
            raise wrong_value(path, value, allowed)
        return value

    return read


def not_yet(*neutral: Any, of: Reader = anything) -> Reader:
    """A parameter that the API has and this server does not: only its neutral values pass.

    Args:
        neutral: values that change nothing, as clients send them by default. null always passes.
        of: tells a wrong value from one that is not supported yet.
    """

    def read(value: Any, path: Path) -> Any:
        value = of(value, path)
        for harmless in neutral:
            # `is` for the type: True == 1 in Python, not in JSON.
            if type(value) is type(harmless) and value == harmless:
                return value
        raise unsupported(path, neutral)

    return read


# Readers for arrays and objects.


def array(item: Reader, longest: int, shortest: int = 0, expected: str = "an array") -> Reader:
    """An array of `shortest` to `longest` items, read as a tuple."""

    def read(value: Any, path: Path) -> Any:
        if type(value) is not list:
            raise wrong_type(path, expected, value)
        if len(value) < shortest:
            raise invalid(
                path,
                f"empty array. Expected an array with minimum length {shortest}, "
                "but got an empty array instead",
                "empty_array",
            )
        if len(value) > longest:
            raise invalid(
                path,
                f"array too long. Expected an array with maximum length {longest}, "
                f"but got an array with length {len(value)} instead",
                "array_above_max_length",
            )
        return tuple([item(element, (*path, index)) for index, element in enumerate(value)])

    return read


def mapping(item: Reader, most: int, name: Reader) -> Reader:
    """An object whose keys are the client's own, at most `most` of them.

    Args:
        name: checks a key; its path is the object's.
    """

    def read(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            raise wrong_type(path, "an object", value)
        if len(value) > most:
            raise invalid(
                path,
                f"too many properties. Expected an object with at most {most} properties, "
                f"but got an object with {len(value)} properties instead",
                "object_above_max_properties",
            )
        return {name(key, path): item(inner, (*path, key)) for key, inner in value.items()}

    return read


def record(rows: Mapping[str, Reader], required: tuple[str, ...] = ()) -> Reader:
    """An object with known keys, read as a dict of those that are there and not null.

    null stands for "not set" everywhere, since clients write out what they leave unset. An unknown
    key is an error even then.
    """

    def read(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            raise wrong_type(path, "an object", value)
        found = {}
        for name, inner in value.items():
            row = rows.get(name)
            if row is None:
                raise unknown((*path, name))
            if inner is not None:
                found[name] = row(inner, (*path, name))
        for name in required:
            if name not in found:
                if name in value:  # null: the row itself knows what it expected
                    rows[name](None, (*path, name))
                raise missing((*path, name))
        return found

    return read


def tagged(tag: str, kinds: Mapping[str, Reader], later: Collection[str] = ()) -> Reader:
    """An object whose `tag` says what else is in it.

    Args:
        kinds: the tag's value -> reader of the whole object.
        later: values that the API has and this server does not yet.
    """

    def read(value: Any, path: Path) -> Any:
        if type(value) is not dict:
            raise wrong_type(path, "an object", value)
        kind = value.get(tag)
        if type(kind) is not str:
            if tag not in value:
                raise missing((*path, tag))
            raise wrong_type((*path, tag), "a string", kind)
        reader = kinds.get(kind)
        if reader is None:
            if kind in later:
                raise unsupported_kind((*path, tag), kind, kinds)
            raise wrong_value((*path, tag), kind, kinds)
        return reader(value, path)

    return read
