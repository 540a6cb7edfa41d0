"""Reads query strings, as strictly as bodies: no name unknown, none twice, each value checked.

A query is a sequence of decoded (name, value) pairs. Pure: it knows nothing of what is done with
what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ouzel.api.read_errors import invalid, literal, unknown, unsupported, wrong_value
from ouzel.api.read_responses import read_include

Pairs = Sequence[tuple[str, str]]

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list is wanted; as `write_items.page` takes it."""

    after: str | None
    limit: int
    order: Literal["asc", "desc"]
    include: frozenset[str] = frozenset()


def read_nothing(query: Pairs) -> None:
    """Raises RequestError: there is a parameter, and this endpoint has none."""
    _values(query)


def read_retrieve(query: Pairs) -> frozenset[str]:
    """Read the query for a stored response: what is to be shown beside the rest.

    Raises:
        RequestError: with `param` and `code`.
    """
    values, included = _values(
        query, "stream", "starting_after", "include_obfuscation", include=True
    )
    for name in ("stream", "include_obfuscation"):
        if _truth(values, name):
            raise unsupported((name,), (False,))
    if "starting_after" in values:
        raise unsupported(("starting_after",))
    return included


def read_page(query: Pairs) -> Page:
    """Read the query for a list of items.

    Raises:
        RequestError: with `param` and `code`.
    """
    values, included = _values(query, "after", "limit", "order", include=True)
    limit = values.get("limit", "20")
    # Four digits at most, so that no number is too long for `int`.
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= 100):
        raise invalid(("limit",), f"expected an integer from 1 to 100, but got {literal(limit)}")
    order = values.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_value(("order",), order, ("asc", "desc"))
    return Page(values.get("after"), int(limit), "asc" if order == "asc" else "desc", included)


def _values(
    query: Pairs, *known: str, include: bool = False
) -> tuple[dict[str, str], frozenset[str]]:
    """The values by name, and those of `include`, which is a list."""
    values: dict[str, str] = {}
    included: list[str] = []
    for name, value in query:
        if include and name in ("include", "include[]"):
            included.append(value)
        elif name not in known:
            raise unknown((name,))
        elif name in values:
            raise invalid((name,), "it was given more than once")
        else:
            values[name] = value
    return values, read_include(included)


def _truth(values: dict[str, str], name: str) -> bool:
    given = values.get(name, "false")
    if given.lower() not in _TRUTHS:
        raise wrong_value((name,), given, ("true", "false"))
    return _TRUTHS[given.lower()]
