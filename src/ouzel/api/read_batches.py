"""Reads what clients say of batches: bodies, queries, and the lines of their input files.

Strict as all readers. The body of a line is read by the same readers as a call over HTTP. This
file does no I/O and knows nothing of when a line is answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ouzel.api import read_chat, read_responses
from ouzel.api.read_common import COMMON, ID
from ouzel.api.read_errors import (
    Path,
    invalid,
    literal,
    unknown,
    unsupported_value,
    wrong_type,
)
from ouzel.api.reading import Reader, choice, decode_body, integer, record, string
from ouzel.core.errors import RequestError
from ouzel.core.request import Request

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
ENDPOINTS: Final = (CHAT, RESPONSES)

_KNOWN = (
    *ENDPOINTS,
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)
_LIMIT = re.compile(r"[0-9]{1,3}")

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class BatchWanted:
    """What a batch shall be; `output_seconds` is how long its files are kept, None for ever."""

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str] | None
    output_seconds: float | None


@dataclass(frozen=True, slots=True)
class LineWanted:
    """One line of an input file: the client's name for it, and the body of a call."""

    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the body of a line asks.

    Args:
        n: how many answers.
        chat: the same as Chat Completions read it, if they did.
    """

    request: Request
    n: int = 1
    chat: read_chat.ChatRequest | None = None


def _endpoint(value: Any, path: Path) -> Any:
    choice(*_KNOWN)(value, path)
    if value not in ENDPOINTS:
        raise unsupported_value(path, value, ENDPOINTS)
    return value


def _object(value: Any, path: Path) -> Any:
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    return value


_CREATE = record(
    {
        "input_file_id": ID,
        "endpoint": _endpoint,
        "completion_window": choice("24h"),
        "metadata": COMMON["metadata"],
        "output_expires_after": record(
            {"anchor": choice("created_at"), "seconds": integer(3600, 2_592_000)},
            ("anchor", "seconds"),
        ),
    },
    ("input_file_id", "endpoint", "completion_window"),
)

# The reference names no length; it is repeated in the results.
_CUSTOM_ID = string(512, shortest=1)


def _line(endpoint: str) -> Reader:
    rows: dict[str, Reader] = {
        "custom_id": _CUSTOM_ID,
        "method": choice("POST"),
        "url": choice(endpoint),
        "body": _object,
    }
    return record(rows, tuple(rows))


_LINES = {endpoint: _line(endpoint) for endpoint in ENDPOINTS}


def read_create(body: dict[str, Any]) -> BatchWanted:
    """Read the body of POST /v1/batches. Raises RequestError."""
    found = _CREATE(body, ())
    return BatchWanted(
        found["input_file_id"],
        found["endpoint"],
        found.get("metadata"),
        found.get("output_expires_after", {}).get("seconds"),
    )


def read_page(query: Query) -> tuple[str | None, int]:
    """Read the query of GET /v1/batches: after which batch, and how many. Raises RequestError."""
    values: dict[str, str] = {}
    for name, value in query:
        if name not in ("after", "limit"):
            raise unknown((name,))
        if name in values:
            raise invalid((name,), "it was given more than once")
        if len(value) > 256 or "\0" in value:
            raise invalid((name,), "expected at most 256 characters, none of them NUL")
        values[name] = value
    limit = values.get("limit", "20")
    if not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= 100):
        raise invalid(("limit",), f"expected an integer from 1 to 100, but got {literal(limit)}")
    return values.get("after"), int(limit)


def read_line(raw: bytes, endpoint: str) -> LineWanted:
    """Read one line of an input file, its body unseen.

    Args:
        endpoint: the batch's.

    Raises:
        RequestError: with `code`, and with `param` within the line.
    """
    try:
        body = decode_body(raw)
    except RequestError as error:
        if error.code == "invalid_json":
            raise RequestError(error.message, code="invalid_json_line") from None
        raise
    found = _LINES[endpoint](body, ())
    return LineWanted(found["custom_id"], found["body"])


def custom_id_of(raw: bytes) -> str | None:
    """What a line that is wrong calls itself, if that much of it can be read."""
    try:
        found: str = _CUSTOM_ID(decode_body(raw).get("custom_id"), ("custom_id",))
    except RequestError:
        return None
    return found


def read_request(endpoint: str, body: dict[str, Any], hosted: frozenset[str]) -> Asked:
    """Read the body of a line as the endpoint reads it over HTTP.

    Nobody waits for the answer, so it has no deadline of its own.

    Args:
        hosted: types of the tools that this server runs by itself.

    Raises:
        RequestError: as over HTTP; and for what makes no sense in a batch.
    """
    if endpoint == CHAT:
        chat = read_chat.read(body, hosted, answer_within=0.0)
        _refuse("stream", chat.stream, "Its answer is written into a file")
        return Asked(chat.request, chat.n, chat)
    asked = read_responses.read(body, hosted, answer_within=0.0)
    _refuse("stream", asked.stream, "Its answer is written into a file")
    _refuse("background", asked.request.background, "All of a batch runs in the background")
    return Asked(asked.request)


def _refuse(name: str, given: bool, why: str) -> None:
    if given:
        raise RequestError(
            f"Unsupported value: '{name}' does not support true in a batch. {why}; leave it out "
            "or send false.",
            param=name,
            code="unsupported_value",
        )
