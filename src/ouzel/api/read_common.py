"""What Chat Completions and Responses read alike: shared rows, and the parts of a Request.

A row is `name: reader`; both protocols put these rows into their own tables. This file knows no
parameter that only one of them has.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

from ouzel.api.read_errors import Path, invalid, missing, not_together, show
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
from ouzel.core.items import File, FileCitation, Refusal, Text
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


# Files that a message hands over.

_FILE_ROWS: Mapping[str, Reader] = {
    "file_id": ID,
    "filename": string(255, shortest=1),
    "file_data": string(73_400_320, shortest=1),  # as the reference has it
}

FILE_ROWS: Mapping[str, Reader] = {
    **_FILE_ROWS,
    "type": anything,
    "detail": not_yet("auto", of=choice("auto", "low", "high")),
    "file_url": not_yet(),
    "prompt_cache_breakpoint": not_yet(),
}
"""What Responses say of a file, in the part itself."""

INNER_FILE_ROWS = _FILE_ROWS
"""What Chat Completions say of a file, in an object within the part."""

_DATA_URL = re.compile(r"data:[^,;]{0,127}(?:;[^,;]{1,127}){0,8};base64,", re.IGNORECASE)


def file_of(given: Mapping[str, Any], path: Path) -> File:
    """The file that checked fields speak of: one that is kept, or one that is sent along.

    Args:
        given: fields of `FILE_ROWS`.
        path: of the object that holds them.

    Raises:
        RequestError: neither id nor data, both, a name that is no name, data that are no base64.
    """
    name: str = given.get("filename", "")
    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise invalid(
            (*path, "filename"), "expected the name of a file, without folders and line ends"
        )
    if "file_data" not in given:
        if "file_id" not in given:
            raise missing((*path, "file_id"))
        return File(given["file_id"], name)
    if "file_id" in given:
        where = show(path)
        raise not_together(
            (*path, "file_data"),
            f"Only one of 'file_id' and 'file_data' may be given in '{where}'.",
        )
    if not name:
        raise missing((*path, "filename"))
    return File(name=name, data=_base64(given["file_data"], (*path, "file_data")))


def _base64(value: str, path: Path) -> str:
    """The base64 text in a data URL, or the text that is nothing else."""
    head = _DATA_URL.match(value)
    data = value[head.end() :] if head else value
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        raise invalid(
            path, "expected base64-encoded data, or a data URL of it ('data:...;base64,...')"
        ) from None
    return data


# What an answer says of files, where it is given back.

_CITED: Mapping[str, Reader] = {
    "container_id": ID,
    "file_id": ID,
    "filename": string(4096),
    "start_index": integer(0, 2**31 - 1),
    "end_index": integer(0, 2**31 - 1),
}


def citation_reader(**more: Reader) -> Reader:
    """The reader of a file in a container that a text speaks of, with rows of its own besides."""
    fields = record({**_CITED, **more}, required=tuple(_CITED))

    def read(value: Any, path: Path) -> Any:
        given = fields(value, path)
        start, end = given["start_index"], given["end_index"]
        if end < start:
            raise invalid((*path, "end_index"), "it comes before 'start_index'")
        return FileCitation(given["container_id"], given["file_id"], given["filename"], start, end)

    return read


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
