"""Reads query strings, as strictly as bodies: no name unknown, none twice, each value checked.

A query is a sequence of decoded (name, value) pairs. Pure: it knows nothing of what is done with
what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ouzel.api.read_common import COMMON
from ouzel.api.read_errors import (
    invalid,
    literal,
    not_together,
    unknown,
    unsupported,
    wrong_value,
)
from ouzel.api.read_responses import read_include
from ouzel.core.contracts_state import Order

Pairs = Sequence[tuple[str, str]]

_PAGE = ("after", "limit", "order")
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list is wanted; as `write_items.page` takes it."""

    after: str | None
    limit: int
    order: Order
    include: frozenset[str] = frozenset()


def read_nothing(query: Pairs) -> None:
    """Raises RequestError: there is a parameter, and this endpoint has none."""
    _values(query)


@dataclass(frozen=True, slots=True)
class Retrieve:
    """How a stored response is wanted.

    Args:
        include: what is to be shown beside the rest.
        stream: its events, as they come.
        starting_after: the number of the last event that is known already; -1 for none.
    """

    include: frozenset[str] = frozenset()
    stream: bool = False
    starting_after: int = -1


def read_retrieve(query: Pairs) -> Retrieve:
    """Read the query for a stored response.

    Raises:
        RequestError: with `param` and `code`.
    """
    values, included = _values(
        query, "stream", "starting_after", "include_obfuscation", include=True
    )
    if _truth(values, "include_obfuscation"):
        raise unsupported(("include_obfuscation",), (False,))
    stream = _truth(values, "stream")
    after = values.get("starting_after")
    if after is not None and not stream:
        raise not_together(
            ("starting_after",), "'starting_after' is only allowed when 'stream' is true."
        )
    # Ten digits at most, so that no number is too long for `int`.
    if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 10):
        raise invalid(("starting_after",), f"expected an integer from 0, but got {literal(after)}")
    return Retrieve(included, stream, -1 if after is None else int(after))


def read_page(query: Pairs) -> Page:
    """Read the query for a list of items.

    Raises:
        RequestError: with `param` and `code`.
    """
    values, included = _values(query, *_PAGE, include=True)
    return _page(values, "desc", included)


def read_included(query: Pairs) -> frozenset[str]:
    """Read a query that may say what is to be shown beside the rest, and nothing else.

    Raises:
        RequestError: with `param` and `code`.
    """
    return _values(query, include=True)[1]


@dataclass(frozen=True, slots=True)
class ChatPage:
    """Which page of the list of stored completions is wanted, and of which of them.

    Args:
        model: only those that were asked of this one; None for all.
        metadata: only those that have all of these pairs.
    """

    page: Page
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_chat_page(query: Pairs) -> ChatPage:
    """Read the query for a list of stored completions.

    Raises:
        RequestError: with `param` and `code`.
    """
    pairs: list[tuple[str, str]] = []
    metadata: dict[str, str] = {}
    for name, value in query:
        if not (name.startswith("metadata[") and name.endswith("]")):
            pairs.append((name, value))
            continue
        key = name.removeprefix("metadata[").removesuffix("]")
        if key in metadata:
            raise invalid(("metadata", key), "it was given more than once")
        metadata[key] = value
    values, _ = _values(pairs, *_PAGE, "model")
    model = values.get("model")
    if model is not None:
        COMMON["model"](model, ("model",))
    wanted = COMMON["metadata"](metadata, ("metadata",))
    return ChatPage(_page(values, "asc"), model, wanted)


def read_messages_page(query: Pairs) -> Page:
    """Read the query for the messages of a stored completion.

    Raises:
        RequestError: with `param` and `code`.
    """
    return _page(_values(query, *_PAGE)[0], "asc")


def _page(values: dict[str, str], usual: Order, included: frozenset[str] = frozenset()) -> Page:
    limit = values.get("limit", "20")
    # Four digits at most, so that no number is too long for `int`.
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= 100):
        raise invalid(("limit",), f"expected an integer from 1 to 100, but got {literal(limit)}")
    order = values.get("order", usual)
    if order not in ("asc", "desc"):
        raise wrong_value(("order",), order, ("asc", "desc"))
    after = values.get("after")
    if after is not None and (len(after) > 256 or "\0" in after):
        raise invalid(("after",), "expected the id of an entry of this list")
    return Page(after, int(limit), "asc" if order == "asc" else "desc", included)


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
