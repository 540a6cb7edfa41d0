"""Errors about one place in a request body, worded as the OpenAI API words them.

People search for these sentences, and clients match their codes. This file only words them: what
is wrong is decided in `reading` and the protocol files.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from ouzel.core.errors import RequestError

Path = tuple[str | int, ...]
"""Where a value stands: `("messages", 0, "content")`."""

_SHOWN = 64
"""Characters of a client's value or key that an error repeats."""


def show(path: Path) -> str:
    """The path as clients know it: `messages[0].content`."""
    shown = "".join(f"[{key}]" if type(key) is int else f".{_cut(str(key))}" for key in path)
    return shown.removeprefix(".")


def missing(path: Path) -> RequestError:
    """A parameter that has to be there is not."""
    name = show(path)
    return RequestError(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def unknown(path: Path) -> RequestError:
    """A parameter that the API does not have."""
    name = show(path)
    return RequestError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def unsupported(path: Path, neutral: tuple[Any, ...] = ()) -> RequestError:
    """A parameter or value that the API has and this server does not have yet."""
    name = show(path)
    instead = f" or send {_either(neutral)}" if neutral else ""
    return RequestError(
        f"Unsupported parameter: '{name}' is not supported by this server yet. "
        f"Leave it out{instead}.",
        param=name,
        code="unsupported_parameter",
    )


def wrong_type(path: Path, expected: str, value: Any) -> RequestError:
    """A JSON type that does not belong here; `expected` comes with its article."""
    name = show(path)
    return RequestError(
        f"Invalid type for '{name}': expected {expected}, but got {type_of(value)} instead.",
        param=name,
        code="invalid_type",
    )


def wrong_value(path: Path, value: Any, allowed: Collection[str]) -> RequestError:
    """A value outside of a closed list."""
    return RequestError(
        f"Invalid value: {literal(value)}. Supported values are: {_listed(allowed)}.",
        param=show(path),
        code="invalid_value",
    )


def unsupported_value(path: Path, value: Any, allowed: Collection[str]) -> RequestError:
    """A value that the API has and this server does not honour."""
    name = show(path)
    return RequestError(
        f"Unsupported value: '{name}' does not support {literal(value)} with this server. "
        f"Supported values are: {_listed(allowed)}.",
        param=name,
        code="unsupported_value",
    )


def invalid(path: Path, problem: str, code: str = "invalid_value") -> RequestError:
    """Anything else that is wrong at one place; `problem` is a sentence or two without the dot."""
    name = show(path)
    return RequestError(f"Invalid '{name}': {problem}.", param=name, code=code)


def not_together(path: Path, message: str) -> RequestError:
    """Parameters that are right each for itself and make no sense together."""
    return RequestError(message, param=show(path), code="invalid_parameter_combination")


def out_of_range(path: Path, kind: str, value: Any, minimum: float, maximum: float) -> RequestError:
    if value < minimum:
        problem, wanted, code = "below minimum", f">= {minimum}", "below_min"
    else:
        problem, wanted, code = "above maximum", f"<= {maximum}", "above_max"
    return invalid(
        path,
        f"{kind} {problem} value. Expected a value {wanted}, but got {literal(value)} instead",
        f"{kind}_{code}_value",
    )


def too_long(path: Path, value: str, longest: int) -> RequestError:
    return invalid(
        path,
        f"string too long. Expected a string with maximum length {longest}, "
        f"but got a string with length {len(value)} instead",
        "string_above_max_length",
    )


def unsupported_kind(path: Path, kind: str, kinds: Collection[str]) -> RequestError:
    return RequestError(
        f"Unsupported parameter: {literal(kind)} as '{show(path)}' is not supported by this "
        f"server yet. Supported values are: {_listed(kinds)}.",
        param=show(path),
        code="unsupported_parameter",
    )


_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def type_of(value: Any) -> str:
    return _TYPES[type(value)]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def literal(value: Any) -> str:
    """A value as a person would write it in an error."""
    if type(value) is str:
        return f"'{_cut(value)}'"
    return _cut(msgspec.json.encode(value).decode())


def _listed(values: Collection[str]) -> str:
    names = [literal(value) for value in values]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def _either(values: tuple[Any, ...]) -> str:
    return " or ".join(literal(value) for value in values)
