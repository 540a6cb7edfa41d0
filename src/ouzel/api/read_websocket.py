"""Reads what a client sends over a WebSocket: messages that ask for a turn.

A message is the body of POST /v1/responses with a `type`, without what only makes sense over HTTP.
This file does no I/O and knows nothing of sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ouzel.api import read_responses
from ouzel.api.reading import Reader, anything, boolean, not_yet, record, tagged
from ouzel.core.errors import RequestError
from ouzel.core.request import Request

_HTTP_ONLY = ("stream", "stream_options", "background")

_LATER: Mapping[str, Reader] = {"generate": not_yet(True, of=boolean), "stream_id": not_yet()}
"""What only messages have and this server does not yet: only the values shown pass."""

_ENVELOPE = record(_LATER)
_KIND = tagged("type", {"response.create": anything}, later=("response.steer",))


@dataclass(frozen=True, slots=True)
class TurnMessage:
    """What a message asks, or why it cannot be done.

    Args:
        previous_id: what it wants to continue, known even where the rest is wrong.
        asked: the request, or the error.
    """

    previous_id: str | None
    asked: Request | RequestError


def read(
    body: dict[str, Any],
    hosted: frozenset[str] = frozenset(),
    answer_within: float | None = None,
) -> TurnMessage:
    """Check a decoded message. Arguments as `read_responses.read`; it raises nothing."""
    previous_id = body.get("previous_response_id")
    named = previous_id if type(previous_id) is str else None
    try:
        return TurnMessage(named, _request(body, hosted, answer_within))
    except RequestError as error:
        return TurnMessage(named, error)


def _request(body: dict[str, Any], hosted: frozenset[str], within: float | None) -> Request:
    _KIND(body, ())
    for name in _HTTP_ONLY:
        if body.get(name) is not None:
            raise RequestError(
                f"Unsupported parameter: '{name}' is not sent over a WebSocket, where every "
                "response comes event by event and nothing runs in the background. Leave it out.",
                param=name,
                code="unsupported_parameter",
            )
    _ENVELOPE({name: body[name] for name in _LATER if name in body}, ())
    left_out = {"type", *_HTTP_ONLY, *_LATER}
    rest = {name: value for name, value in body.items() if name not in left_out}
    return read_responses.read(rest, hosted, within).request
