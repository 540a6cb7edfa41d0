"""Reads the items that a Responses client sends as `input`.

An item that the server wrote reads back as what it was written from, id included. This file knows
nothing of the parameters around the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ouzel.api.read_calls import CALL_ITEMS
from ouzel.api.read_common import (
    FILE_ROWS,
    ID,
    MOST_ITEMS,
    MOST_PARTS,
    STATUS,
    citation_reader,
    content,
    file_of,
    refusal_part,
    text_part,
)
from ouzel.api.read_errors import Path, invalid, not_together, show
from ouzel.api.reading import (
    Reader,
    anything,
    array,
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
from ouzel.core.errors import RequestError
from ouzel.core.items import (
    Compaction,
    Image,
    Item,
    Message,
    Reasoning,
    Role,
    Text,
    TokenLogprob,
    new_id,
)


def read_input(value: Any, path: Path) -> tuple[Item, ...]:
    """A string, which is said by the user, or an array of at least one item.

    Raises:
        RequestError: also when two items have the same id.
    """
    if type(value) is str:
        if not value:
            raise invalid(path, "empty string. Expected some text or items", "empty_string")
        return (Message(new_id("msg"), "user", (Text(text(value, path)),)),)
    return _unlike(_ITEMS(value, path), path)


def items_reader(longest: int) -> Reader:
    """An array of at most so many items, or of none; two with the same id are refused."""
    items = array(_item, longest)
    return lambda value, path: _unlike(items(value, path), path)


def _unlike(items: tuple[Item, ...], path: Path) -> tuple[Item, ...]:
    if len({item.id for item in items}) < len(items):
        raise _duplicate(items, path)
    return items


def _duplicate(items: tuple[Item, ...], path: Path) -> RequestError:
    first = {item.id: index for index, item in reversed(list(enumerate(items)))}
    index = next(index for index, item in enumerate(items) if first[item.id] < index)
    return RequestError(
        f"Duplicate item found with id {items[index].id}. Remove duplicate items from your input "
        "and try again.",
        param=show((*path, index, "id")),
        code="invalid_value",
    )


# Parts of messages.

_BYTES = array(integer(0, 255), longest=MOST_PARTS)
# Some servers write -9999 for "next to impossible"; the range only keeps the number a float.
_ALTERNATIVE = {"token": text, "logprob": number(-1e9, 1e9), "bytes": _BYTES}


def _token_logprob(fields: Reader) -> Reader:
    def read(value: Any, path: Path) -> Any:
        token = fields(value, path)
        return TokenLogprob(
            token["token"],
            token["logprob"],
            token.get("bytes", ()),
            token.get("top_logprobs", ()),
        )

    return read


_LOGPROBS = array(
    _token_logprob(
        record(
            {
                **_ALTERNATIVE,
                "top_logprobs": array(
                    _token_logprob(record(_ALTERNATIVE, required=("token", "logprob"))),
                    longest=20,
                ),
            },
            required=("token", "logprob"),
        )
    ),
    longest=2**20,  # one a token, so more than any context window
)


def _left_out(value: Any, path: Path) -> Any:
    """An annotation of a kind that nothing here writes, nor shows to the model."""
    _KEYS(value, path)
    return None


_KEYS = mapping(anything, most=16, name=string(64))
_ANNOTATIONS = array(
    tagged(
        "type",
        {
            "container_file_citation": citation_reader(type=anything),
            **dict.fromkeys(("file_citation", "url_citation", "file_path"), _left_out),
        },
    ),
    longest=MOST_PARTS,
)

_OUTPUT_TEXT_FIELDS = record(
    {
        "type": anything,
        "text": text,
        "annotations": _ANNOTATIONS,
        "logprobs": _LOGPROBS,
    },
    required=("text",),
)


def _output_text_part(value: Any, path: Path) -> Any:
    part = _OUTPUT_TEXT_FIELDS(value, path)
    annotations = tuple(each for each in part.get("annotations", ()) if each is not None)
    return Text(part["text"], part.get("logprobs", ()), annotations)


_FILE_FIELDS = record(FILE_ROWS)


def _file_part(value: Any, path: Path) -> Any:
    return file_of(_FILE_FIELDS(value, path), path)


_IMAGE_FIELDS = record(
    {
        "type": anything,
        "image_url": string(20_971_520, shortest=1),  # as long as the reference allows
        "file_id": ID,
        "detail": choice("auto", "low", "high"),
        "prompt_cache_breakpoint": not_yet(),
    }
)


def _image_part(value: Any, path: Path) -> Any:
    given = _IMAGE_FIELDS(value, path)
    if ("image_url" in given) == ("file_id" in given):
        raise not_together(
            (*path, "image_url"),
            f"Exactly one of 'image_url' and 'file_id' has to be given in '{show(path)}'.",
        )
    return Image(given.get("image_url", ""), given.get("file_id", ""), given.get("detail", "auto"))


_INPUT_LATER = ("input_audio", "input_video")
_USER_PART = tagged(
    "type",
    {"input_text": text_part, "input_file": _file_part, "input_image": _image_part},
    _INPUT_LATER,
)
_INPUT_PART = tagged(
    "type", {"input_text": text_part}, later=(*_INPUT_LATER, "input_file", "input_image")
)
_OUTPUT_PART = tagged(
    "type",
    # The reference allows input_text in an assistant's message that has no id.
    {"output_text": _output_text_part, "refusal": refusal_part, "input_text": text_part},
)


# Items.


def _message(role: Role, part: Reader, more: Mapping[str, Reader]) -> Reader:
    fields = record(
        {
            "type": anything,
            "role": anything,
            "content": content(part, shortest=0),  # an answer cut short may have no part
            "id": ID,
            "status": STATUS,
            **more,
        },
        required=("content",),
    )

    def read(value: Any, path: Path) -> Any:
        said = fields(value, path)
        return Message(
            said.get("id") or new_id("msg"),
            role,
            said["content"],
            said.get("status", "completed"),
            phase=said.get("phase"),
        )

    return read


_PHASE = {"phase": choice("commentary", "final_answer")}


def _texts(kind: str) -> Reader:
    """An array of parts of one kind that hold nothing but text, read as strings."""
    fields = record({"type": anything, "text": text}, required=("text",))
    part = tagged("type", {kind: lambda value, path: fields(value, path)["text"]})
    return array(part, longest=MOST_PARTS)


_SEALED = string(20_971_520)
"""What only this server can read again; as long as the reference allows for a compaction."""

_SEALED_ALWAYS = string(20_971_520, shortest=1)

_REASONING_FIELDS = record(
    {
        "type": anything,
        "id": ID,
        "summary": _texts("summary_text"),
        "content": _texts("reasoning_text"),
        "status": STATUS,
        "encrypted_content": _SEALED,
    },
    required=("summary",),
)


def _reasoning(value: Any, path: Path) -> Any:
    thought = _REASONING_FIELDS(value, path)
    return Reasoning(
        thought.get("id") or new_id("rs"),
        "\n\n".join(thought.get("content", ())),
        thought["summary"],
        thought.get("status", "completed"),
        thought.get("encrypted_content", ""),
    )


_COMPACTION_FIELDS = record(
    {"type": anything, "id": ID, "encrypted_content": _SEALED_ALWAYS, "created_by": anything},
    required=("encrypted_content",),
)


def _compaction(value: Any, path: Path) -> Any:
    given = _COMPACTION_FIELDS(value, path)
    return Compaction(given.get("id") or new_id("cmp"), sealed=given["encrypted_content"])


_TAGGED_ITEM = tagged(
    "type",
    {
        "message": tagged(
            "role",
            {
                "user": _message("user", _USER_PART, {}),
                "assistant": _message("assistant", _OUTPUT_PART, _PHASE),
                "system": _message("system", _INPUT_PART, {}),
                "developer": _message("developer", _INPUT_PART, {}),
            },
        ),
        "reasoning": _reasoning,
        "compaction": _compaction,
        **CALL_ITEMS,
    },
    later=(
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "file_search_call",
        "image_generation_call",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    ),
)


def _item(value: Any, path: Path) -> Any:
    """`type` may be left out of a message, and of a reference, which then is nothing but an id."""
    if type(value) is dict and value.get("type") is None:
        kind = "item_reference" if "id" in value and "role" not in value else "message"
        value = {**value, "type": kind}
    return _TAGGED_ITEM(value, path)


_ITEMS = array(_item, MOST_ITEMS, shortest=1, expected="one of a string or array of objects")
