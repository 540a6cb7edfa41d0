"""Reads the messages of Chat Completions, each to its items, in their order.

A message of the assistant may be thinking, calls that the server ran itself, text and calls; a
`tool` message is the output of one call. Calls and outputs must match within the request, since a
request of this API is all there is. This file knows nothing of the parameters around the messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ouzel.api.read_calls import HOSTED_CALLS
from ouzel.api.read_common import (
    ID,
    INNER_FILE_ROWS,
    MOST_ITEMS,
    MOST_PARTS,
    citation_reader,
    content,
    file_of,
    refusal_part,
    text_part,
    tool_name,
)
from ouzel.api.read_errors import Path, invalid, literal, missing, show, wrong_type
from ouzel.api.reading import (
    Reader,
    anything,
    array,
    integer,
    not_yet,
    record,
    string,
    tagged,
    text,
)
from ouzel.core.errors import RequestError
from ouzel.core.items import (
    Call,
    CallOutput,
    CustomCall,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    Refusal,
    Role,
    Text,
    new_id,
)


def read_messages(value: Any, path: Path) -> tuple[Item, ...]:
    """At least one message.

    Raises:
        RequestError: also when a call has no output, or an output no call.
    """
    messages: tuple[tuple[Item, ...], ...] = _MESSAGES(value, path)
    pairing = _Pairing(path)
    items = [item for index, read in enumerate(messages) for item in pairing.take(index, read)]
    pairing.end()
    return tuple(items)


class _Pairing:
    """Holds calls and their outputs against each other, message by message."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, Call] = {}
        self._asked_at = 0

    def take(self, index: int, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """The items of the next message; an output learns which kind of call it answers."""
        if isinstance(items[0], CallOutput):
            return (self._answered(index, items[0]),)
        self.end()
        calls = [item for item in items if isinstance(item, FunctionCall | CustomCall)]
        for place, call in enumerate(calls):
            if call.call_id in self._open:
                raise invalid(
                    (*self._path, index, "tool_calls", place, "id"),
                    "two calls of one message have the same id",
                )
            self._open[call.call_id] = call
        self._asked_at = index
        return items

    def _answered(self, index: int, output: CallOutput) -> CallOutput:
        call = self._open.pop(output.call_id, None)
        if call is None:
            raise RequestError(
                "Invalid parameter: messages with role 'tool' must be a response to a preceding "
                "message with 'tool_calls', and this one has no call with the id "
                f"{literal(output.call_id)}.",
                param=show((*self._path, index, "tool_call_id")),
                code="invalid_value",
            )
        return replace(output, of="custom") if isinstance(call, CustomCall) else output

    def end(self) -> None:
        """No more outputs come for the calls so far."""
        if self._open:
            missing_ids = ", ".join(literal(call_id) for call_id in list(self._open)[:8])
            raise RequestError(
                "An assistant message with 'tool_calls' must be followed by tool messages "
                "responding to each 'tool_call_id'. The following tool_call_ids did not have "
                f"response messages: {missing_ids}.",
                param=show((*self._path, self._asked_at, "tool_calls")),
                code="invalid_value",
            )


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


# Calls.


def _call(key: str, inner: Mapping[str, Reader]) -> Reader:
    fields = record(
        {"id": ID, "type": anything, key: record(inner, required=tuple(inner))},
        required=("id", key),
    )

    def read(value: Any, path: Path) -> Any:
        call = fields(value, path)
        return call["id"], call[key]

    return read


_FUNCTION_CALL = _call("function", {"name": tool_name(128), "arguments": text})
_CUSTOM_CALL = _call("custom", {"name": tool_name(128), "input": text})


def _function_call(value: Any, path: Path) -> Any:
    call_id, call = _FUNCTION_CALL(value, path)
    return FunctionCall(new_id("fc"), call_id, call["name"], call["arguments"])


def _custom_call(value: Any, path: Path) -> Any:
    call_id, call = _CUSTOM_CALL(value, path)
    return CustomCall(new_id("ctc"), call_id, call["name"], call["input"])


_CALL = tagged("type", {"function": _function_call, "custom": _custom_call})

_INDEX = integer(0, 2**31 - 1)
"""Where an entry of a list stands; some clients that join chunks leave it in."""

_HOSTED_CALL = tagged("type", HOSTED_CALLS)


def _hosted_call(value: Any, path: Path) -> Any:
    if type(value) is dict and value.get("index") is not None:
        _INDEX(value["index"], (*path, "index"))
        value = {name: inner for name, inner in value.items() if name != "index"}
    return _HOSTED_CALL(value, path)


_ANSWER_FIELDS = record(
    {
        "role": anything,
        "content": content(
            tagged("type", {"text": text_part, "refusal": refusal_part}), shortest=1
        ),
        "name": _name,
        "refusal": text,
        "reasoning_content": text,  # ours and other open servers'; not in OpenAI's reference
        "tool_calls": array(_CALL, longest=MOST_PARTS),
        # Ours, as `write_chat` writes them.
        "hosted_tool_calls": array(_hosted_call, longest=MOST_PARTS),
        "container_files": array(citation_reader(index=_INDEX), longest=MOST_PARTS),
        # What the SDK writes out when it gives a message back, and later issues read:
        "annotations": not_yet([]),
        "audio": not_yet(),
        "function_call": not_yet(),
    }
)


def _answer(value: Any, path: Path) -> Any:
    """An assistant's message that is given back: its thinking, what it said, its calls.

    Those that the server ran come before the text, which speaks of what came of them.
    """
    said = _ANSWER_FIELDS(value, path)
    calls: tuple[Item, ...] = said.get("tool_calls", ())
    items: list[Item] = []
    if said.get("reasoning_content"):
        items.append(Reasoning(new_id("rs"), text=said["reasoning_content"]))
    items.extend(said.get("hosted_tool_calls", ()))
    parts = said.get("content", ())
    if len(parts) == 1 and isinstance(parts[0], Text):  # else nobody knows which part they are of
        parts = (replace(parts[0], annotations=said.get("container_files", ())),)
    if "refusal" in said:
        parts = (*parts, Refusal(said["refusal"]))
    # Beside calls, an empty text is how some clients write that there was none.
    if parts and not (calls and all(not part.text for part in parts)):
        items.append(Message(new_id("msg"), "assistant", parts, name=said.get("name")))
    items.extend(calls)
    if not items:
        if "content" in value:
            raise wrong_type((*path, "content"), "one of a string or array of objects", None)
        raise missing((*path, "content"))
    return tuple(items)


_PLAIN_PART = tagged("type", {"text": text_part})
_FILE_FIELDS = record(
    {"type": anything, "file": record(INNER_FILE_ROWS), "prompt_cache_breakpoint": not_yet()},
    required=("file",),
)


def _file_part(value: Any, path: Path) -> Any:
    return file_of(_FILE_FIELDS(value, path)["file"], (*path, "file"))


_USER_PART = tagged(
    "type", {"text": text_part, "file": _file_part}, later=("image_url", "input_audio")
)

_OUTPUT_FIELDS = record(
    {
        "role": anything,
        "content": content(_PLAIN_PART, shortest=1),
        "tool_call_id": ID,
        "name": tool_name(128),  # the call says it already; many clients repeat it
    },
    required=("content", "tool_call_id"),
)


def _output(value: Any, path: Path) -> Any:
    """What came of a call."""
    said = _OUTPUT_FIELDS(value, path)
    plain = type(value["content"]) is str
    return (CallOutput(new_id("fco"), said["tool_call_id"], said["content"], plain=plain),)


_MESSAGE = tagged(
    "role",
    {
        "developer": _spoken("developer", _PLAIN_PART),
        "system": _spoken("system", _PLAIN_PART),
        "user": _spoken("user", _USER_PART),
        "assistant": _answer,
        "tool": _output,
    },
    later=("function",),
)

_MESSAGES = array(_MESSAGE, MOST_ITEMS, shortest=1)
