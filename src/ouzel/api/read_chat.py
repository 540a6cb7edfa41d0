"""Reads the body of POST /v1/chat/completions.

To add a parameter: move its row from `_LATER` to `_ROWS` with the reader that checks it, and use
it in `read`. What may stand in `messages` is in `read_messages`. This file does no I/O and knows
nothing of what is done with a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ouzel.api.read_common import (
    COMMON,
    COMMON_LATER,
    MOST_TOKENS,
    labels,
    sampling,
    service_tier,
)
from ouzel.api.read_errors import Path, invalid, not_together
from ouzel.api.read_messages import read_messages
from ouzel.api.read_output import RESPONSE_FORMAT, VERBOSITY, check_json_is_asked_for, effort
from ouzel.api.read_tools import read_offer
from ouzel.api.reading import (
    Reader,
    array,
    boolean,
    choice,
    integer,
    mapping,
    not_yet,
    number,
    record,
    string,
)
from ouzel.core.items import Item, Message
from ouzel.core.request import Format, Request

MOST_CHOICES = 8
"""Answers to one request. The API's own limit is 128; each is a generation on this machine."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What was asked of Chat Completions.

    Args:
        n: how many answers, 1 to MOST_CHOICES.
        stream: send the answer as it is made.
        include_usage: end the stream with a chunk that carries the token counts.
        users: which of the messages, and so which of the items, are the users'.
    """

    request: Request
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    users: tuple[tuple[int, int], ...] = field(default=(), compare=False, repr=False)

    def place(self, param: str | None) -> str | None:
        """Where in the body something of a user's message stands.

        Args:
            param: its place among the request's items (`input[3].content[1].file_id`); anything
                else stays as it is.
        """
        found = _IN_AN_ITEM.fullmatch(param or "")
        if found is None:
            return param
        messages = {item: message for message, item in self.users}
        message = messages.get(int(found[1]))
        return "messages" if message is None else f"messages[{message}]{found[2]}.file.{found[3]}"


_IN_AN_ITEM = re.compile(r"input\[(\d{1,9})\](\.content\[\d+\])\.(\w+)")


def read(
    body: dict[str, Any],
    hosted: frozenset[str] = frozenset(),
    answer_within: float | None = None,
) -> ChatRequest:
    """Check a decoded body and say what it asks.

    Args:
        body: what was sent.
        hosted: types of the tools that this server runs by itself.
        answer_within: what the header of that name says.

    Raises:
        RequestError: with `param` and `code`, for the first thing that is wrong.
    """
    given = _BODY(body, ())
    stream = given.get("stream", False)
    include_usage = given.get("stream_options", {}).get("include_usage", False)
    if include_usage and not stream:
        raise not_together(
            ("stream_options",),
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        )
    offer = read_offer("chat", given, hosted)
    asked_format = given.get("response_format", Format())
    check_json_is_asked_for("chat", asked_format, given["messages"])
    request = Request(
        protocol="chat",
        model=given["model"],
        input=given["messages"],
        sampling=sampling(
            given,
            _top_logprobs(given),
            seed=given.get("seed"),
            stop=given.get("stop", ()),
            logit_bias=given.get("logit_bias", {}),
        ),
        max_output_tokens=_max_tokens(given),
        metadata=given.get("metadata", {}),
        labels=labels(given),
        tools=offer.tools,
        tool_choice=offer.choice,
        parallel_tool_calls=given.get("parallel_tool_calls", True),
        effort=given.get("reasoning_effort"),
        format=asked_format,
        verbosity=given.get("verbosity", "medium"),
        answer_within=answer_within,
        store=given.get("store", False),
    )
    users = _users(body["messages"], request.input)
    return ChatRequest(request, given.get("n", 1), stream, include_usage, users)


def _users(
    messages: Sequence[Mapping[str, Any]], items: Sequence[Item]
) -> tuple[tuple[int, int], ...]:
    """Each user's message is one item; a message of the assistant may be several."""
    said = [at for at, message in enumerate(messages) if message["role"] == "user"]
    read = [
        at for at, item in enumerate(items) if isinstance(item, Message) and item.role == "user"
    ]
    return tuple(zip(said, read, strict=True))


def _top_logprobs(given: Mapping[str, Any]) -> int | None:
    top: int = given.get("top_logprobs", 0)
    if given.get("logprobs", False):
        return top
    if top:
        raise not_together(
            ("top_logprobs",),
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
        )
    return None


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    if "max_tokens" in given and "max_completion_tokens" in given:
        raise not_together(
            ("max_tokens",),
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        )
    most: int | None = given.get("max_completion_tokens", given.get("max_tokens"))
    return most


# The body.

_STOP = string(1024, shortest=1)
_STOPS = array(_STOP, longest=4, shortest=1, expected="one of a string or array of strings")


def _stop(value: Any, path: Path) -> Any:
    return (_STOP(value, path),) if type(value) is str else _STOPS(value, path)


def _token_id(name: Any, path: Path) -> Any:
    if not (name.isascii() and name.isdigit() and len(name) <= 10):
        raise invalid(
            path, "a key is not a token id. You should only be submitting non-negative integers"
        )
    return name


_ROWS: Mapping[str, Reader] = {
    **COMMON,
    "messages": read_messages,
    "n": integer(1, MOST_CHOICES),
    "store": boolean,
    "stop": _stop,
    "seed": integer(-(2**63), 2**63 - 1),
    "logit_bias": mapping(number(-100, 100), most=1024, name=_token_id),
    "logprobs": boolean,
    "max_completion_tokens": integer(1, MOST_TOKENS),
    "max_tokens": integer(1, MOST_TOKENS),
    "reasoning_effort": effort,
    "response_format": RESPONSE_FORMAT,
    "verbosity": VERBOSITY,
    "service_tier": service_tier("flex", "scale", "priority", "fast"),
    "stream_options": record(
        {"include_usage": boolean, "include_obfuscation": not_yet(False, of=boolean)}
    ),
}
"""What is read, by name."""

_LATER: Mapping[str, Reader] = {
    **COMMON_LATER,
    "audio": not_yet(),
    "function_call": not_yet("auto", "none"),
    "functions": not_yet([]),
    "modalities": not_yet(("text",), of=array(choice("text", "audio"), longest=2, shortest=1)),
    "prediction": not_yet(),
    "web_search_options": not_yet(),
}
"""What the API has and this server does not yet: only the values shown pass."""

_BODY = record({**_ROWS, **_LATER}, required=("model", "messages"))
