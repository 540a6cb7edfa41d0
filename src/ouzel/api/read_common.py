"""What Chat Completions and Responses read alike: shared rows, and the parts of a Request.

A row is `name: reader`; both protocols put these rows into their own tables. This file knows no
parameter that only one of them has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ouzel.api.read_errors import Path, invalid
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
    text,
)
from ouzel.core.items import Refusal, Text
from ouzel.core.request import Sampling

MOST_TOKENS = 2**31 - 1
"""The largest token limit that is read: what every engine holds in a signed 32-bit integer."""

MOST_ITEMS = 8192
"""Messages or items in one request. The reference names no limit; this one bounds our work."""

MOST_PARTS = 2048
"""Parts in one message; as above."""

ID = string(256, shortest=1)
"""An id that the client gives. Ours have 53 characters; those of other servers may have more."""

STATUS = choice("in_progress", "completed", "incomplete")

_NAME_CHARACTERS = re.compile(r"[a-zA-Z0-9_-]*")


def tool_name(longest: int) -> Reader:
    """The name of a function or custom tool."""
    short = string(longest, shortest=1)

    def read(value: Any, path: Path) -> Any:
        if not _NAME_CHARACTERS.fullmatch(short(value, path)):
            raise invalid(
                path,
                "string does not match pattern. Expected a string that matches the pattern "
                "'^[a-zA-Z0-9_-]+$'",
            )
        return value

    return read


TOOL_NAME = tool_name(64)


def _metadata_name(name: Any, path: Path) -> Any:
    if len(name) > 64:
        raise invalid(
            path,
            "property name too long. Expected names with maximum length 64, "
            f"but got one with length {len(name)} instead",
            "string_above_max_length",
        )
    if "\0" in name:
        raise invalid(path, "a property name holds a NUL character (\\u0000)")
    return name


COMMON: Mapping[str, Reader] = {
    "model": string(512, shortest=1),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "top_logprobs": integer(0, 20),
    "stream": boolean,
    # Sizes as `Metadata` in the reference describes them.
    "metadata": mapping(string(512), most=16, name=_metadata_name),
    "user": string(512),
    "safety_identifier": string(64),
    "parallel_tool_calls": boolean,
    # `read_tools` reads these, with what it knows of the server.
    "tools": anything,
    "tool_choice": anything,
    # The reference gives no length; OpenAI's server and Open Responses take 64.
    "prompt_cache_key": string(64),
}
"""Parameters that have the same name and range in both protocols."""

COMMON_LATER: Mapping[str, Reader] = {
    "moderation": not_yet(),
    "prompt_cache_options": record(
        {
            "mode": not_yet("implicit", of=choice("implicit", "explicit")),
            "ttl": not_yet("30m", of=choice("30m", "12h")),
            "prewarm": not_yet(False, of=boolean),
            "comparison_response_id": not_yet(),
        }
    ),
    "prompt_cache_retention": not_yet("in_memory", of=choice("in_memory", "24h")),
}
"""Parameters of both that this server does not honour yet: only the values shown pass."""

_LABELS = (
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
)


def service_tier(*others: str) -> Reader:
    """There is one way of being served here, with two names; `others` are the paid ones."""
    return not_yet("auto", "default", of=choice("auto", "default", *others))


_TEXT_FIELDS = record(
    {"type": anything, "text": text, "prompt_cache_breakpoint": not_yet()}, required=("text",)
)
_REFUSAL_FIELDS = record({"type": anything, "refusal": text}, required=("refusal",))


def text_part(value: Any, path: Path) -> Any:
    """A part that is said in plain words."""
    return Text(_TEXT_FIELDS(value, path)["text"])


def refusal_part(value: Any, path: Path) -> Any:
    """A part that declines."""
    return Refusal(_REFUSAL_FIELDS(value, path)["refusal"])


def content(part: Reader, shortest: int) -> Reader:
    """A message's content, a string or an array of at least `shortest` parts; a tuple of parts."""
    parts = array(part, MOST_PARTS, shortest, expected="one of a string or array of objects")

    def read(value: Any, path: Path) -> Any:
        if type(value) is str:
            return (Text(text(value, path)),)
        return parts(value, path)

    return read


def sampling(given: Mapping[str, Any], top_logprobs: int | None, **more: Any) -> Sampling:
    """The knobs among the given parameters, with the protocol's own ones in `more`."""
    return Sampling(
        temperature=given.get("temperature"),
        top_p=given.get("top_p"),
        presence_penalty=given.get("presence_penalty"),
        frequency_penalty=given.get("frequency_penalty"),
        top_logprobs=top_logprobs,
        **more,
    )


def labels(given: Mapping[str, Any]) -> dict[str, str]:
    """The given parameters that are echoed and change nothing else."""
    return {name: given[name] for name in _LABELS if name in given}
