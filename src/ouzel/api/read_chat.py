"""Reads the body of POST /v1/chat/completions.

To add a parameter: move its row from `_LATER` to `_ROWS` with the reader that checks it, and use
it in `read`. This file does no I/O and knows nothing of what is done with a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ouzel.api.read_common import (
    COMMON,
    COMMON_LATER,
    MOST_ITEMS,
    MOST_TOKENS,
    VERBOSITY,
    content,
    labels,
    refusal_part,
    sampling,
    service_tier,
    text_part,
)
from ouzel.api.read_errors import Path, invalid, missing, not_together, wrong_type
from ouzel.api.reading import (
    Reader,
    anything,
    array,
    boolean,
    choice,
    integer,
    mapping,
    not_yet,
    number,
    record,
    string,
    tagged,
    text,
)
from ouzel.core.items import Item, Message, Reasoning, Refusal, Role, new_id
from ouzel.core.request import Request

MOST_CHOICES = 8
"""Answers to one request. The API's own limit is 128; each is a generation on this machine."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What was asked of Chat Completions.

    Args:
        n: how many answers, 1 to MOST_CHOICES.
        stream: send the answer as it is made.
        include_usage: end the stream with a chunk that carries the token counts.
    """

    request: Request
    n: int = 1
    stream: bool = False
    include_usage: bool = False


def read(body: dict[str, Any]) -> ChatRequest:
    """Check a decoded body and say what it asks.

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
    request = Request(
        protocol="chat",
        model=given["model"],
        input=tuple([item for items in given["messages"] for item in items]),
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
    )
    return ChatRequest(request, given.get("n", 1), stream, include_usage)


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


# Messages. Each reads to one or two items.


_NAME = string(64, shortest=1)


def _name(value: Any, path: Path) -> Any:
    """A participant's name. Chat templates may print it, so it cannot look like their markup."""
    for character in _NAME(value, path):
        if character.isspace() or character in "<|\\/>":
            raise invalid(
                path,
                "string does not match pattern. Expected a string that matches the pattern "
                r"'^[^\s<|\\/>]+$'",
            )
    return value


def _spoken(role: Role, part: Reader) -> Reader:
    """Messages that are nothing but content, and perhaps a name."""
    fields = record(
        {"role": anything, "content": content(part, shortest=1), "name": _name},
        required=("content",),
    )

    def read(value: Any, path: Path) -> Any:
        said = fields(value, path)
        return (Message(new_id("msg"), role, said["content"], name=said.get("name")),)

    return read


_ANSWER_FIELDS = record(
    {
        "role": anything,
        "content": content(
            tagged("type", {"text": text_part, "refusal": refusal_part}), shortest=1
        ),
        "name": _name,
        "refusal": text,
        "reasoning_content": text,  # ours and other open servers'; not in OpenAI's reference
        # What the SDK writes out when it gives a message back, and later issues read:
        "annotations": not_yet([]),
        "audio": not_yet(),
        "function_call": not_yet(),
        "tool_calls": not_yet([]),
    }
)


def _answer(value: Any, path: Path) -> Any:
    """An assistant's message that is given back, with its thinking before it."""
    said = _ANSWER_FIELDS(value, path)
    items: list[Item] = []
    if said.get("reasoning_content"):
        items.append(Reasoning(new_id("rs"), text=said["reasoning_content"]))
    parts = said.get("content", ())
    if "refusal" in said:
        parts = (*parts, Refusal(said["refusal"]))
    if parts:
        items.append(Message(new_id("msg"), "assistant", parts, name=said.get("name")))
    if not items:
        if "content" in value:
            raise wrong_type((*path, "content"), "one of a string or array of objects", None)
        raise missing((*path, "content"))
    return tuple(items)


_PLAIN_PART = tagged("type", {"text": text_part})
_USER_PART = tagged("type", {"text": text_part}, later=("image_url", "input_audio", "file"))

_MESSAGE = tagged(
    "role",
    {
        "developer": _spoken("developer", _PLAIN_PART),
        "system": _spoken("system", _PLAIN_PART),
        "user": _spoken("user", _USER_PART),
        "assistant": _answer,
    },
    later=("tool", "function"),
)


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
    "messages": array(_MESSAGE, MOST_ITEMS, shortest=1),
    "n": integer(1, MOST_CHOICES),
    "stop": _stop,
    "seed": integer(-(2**63), 2**63 - 1),
    "logit_bias": mapping(number(-100, 100), most=1024, name=_token_id),
    "logprobs": boolean,
    "max_completion_tokens": integer(1, MOST_TOKENS),
    "max_tokens": integer(1, MOST_TOKENS),
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
    "reasoning_effort": not_yet(
        of=choice("none", "minimal", "low", "medium", "high", "xhigh", "max")
    ),
    "response_format": tagged(
        "type", {"text": record({"type": anything})}, later=("json_object", "json_schema")
    ),
    "store": not_yet(False, of=boolean),
    "verbosity": VERBOSITY,
    "web_search_options": not_yet(),
}
"""What the API has and this server does not yet: only the values shown pass."""

_BODY = record({**_ROWS, **_LATER}, required=("model", "messages"))
