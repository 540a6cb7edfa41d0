"""Reads calls of tools and their outputs among the items that a Responses client sends.

Whether an output has its call is not known here: the call may be in the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ouzel.api.read_common import ID, MOST_PARTS, STATUS, content, text_part, tool_name
from ouzel.api.read_errors import Path
from ouzel.api.read_schema import compact
from ouzel.api.reading import (
    Reader,
    anything,
    array,
    boolean,
    choice,
    integer,
    not_yet,
    record,
    string,
    tagged,
    text,
)
from ouzel.core.items import (
    CallOutput,
    CodeCall,
    CustomCall,
    FunctionCall,
    HostedCall,
    Logs,
    Picture,
    new_id,
)

_TOOL_NAME = tool_name(128)

_LATER: Mapping[str, Reader] = {
    "async": not_yet(False, of=boolean),
    "caller": not_yet({"type": "direct"}),
    "created_by": not_yet(),
    "namespace": not_yet(),
}
"""What the API has beside these items' own fields: only what says nothing passes."""

_OWN: Mapping[str, Reader] = {"type": anything, "id": ID, "status": STATUS}

_FUNCTION_CALL = record(
    {**_OWN, **_LATER, "call_id": ID, "name": _TOOL_NAME, "arguments": text},
    required=("call_id", "name", "arguments"),
)
_CUSTOM_CALL = record(
    {**_OWN, **_LATER, "call_id": ID, "name": _TOOL_NAME, "input": text},
    required=("call_id", "name", "input"),
)


def _function_call(value: Any, path: Path) -> Any:
    call = _FUNCTION_CALL(value, path)
    return FunctionCall(
        call.get("id") or new_id("fc"),
        call["call_id"],
        call["name"],
        call["arguments"],
        call.get("status", "completed"),
    )


def _custom_call(value: Any, path: Path) -> Any:
    call = _CUSTOM_CALL(value, path)
    return CustomCall(
        call.get("id") or new_id("ctc"),
        call["call_id"],
        call["name"],
        call["input"],
        call.get("status", "completed"),
    )


_OUTPUT = record(
    {
        **_OWN,
        **_LATER,
        "call_id": ID,
        "name": not_yet(of=string(128, shortest=1)),
        "output": content(
            tagged("type", {"input_text": text_part}, later=("input_image", "input_file")),
            shortest=0,
        ),
    },
    required=("call_id", "output"),
)


def _function_output(value: Any, path: Path) -> Any:
    given = _OUTPUT(value, path)
    return CallOutput(
        given.get("id") or new_id("fco"),
        given["call_id"],
        given["output"],
        "function",
        plain=type(value["output"]) is str,
        status=given.get("status", "completed"),
    )


def _custom_output(value: Any, path: Path) -> Any:
    given = _OUTPUT(value, path)
    return CallOutput(
        given.get("id") or new_id("cto"),
        given["call_id"],
        given["output"],
        "custom",
        plain=type(value["output"]) is str,
        status=given.get("status", "completed"),
    )


# Calls of hosted tools, as `write_items` writes them.

_CODE = {"type": anything, "code": integer(-(2**31), 2**31 - 1), "message": text}
_BY_CODE = record(_CODE, required=("message",))
_EXECUTION = record({"type": anything, "content": anything}, required=("content",))


def _execution_error(value: Any, path: Path) -> Any:
    said = _EXECUTION(value, path)["content"]
    if type(said) is list and all(type(p) is dict and type(p.get("text")) is str for p in said):
        return "\n".join(part["text"] for part in said)
    return said if type(said) is str else compact({"content": said})


def _message(value: Any, path: Path) -> Any:
    return _BY_CODE(value, path)["message"]


_TAGGED_ERROR = tagged(
    "type",
    {
        "mcp_tool_execution_error": _execution_error,
        "mcp_protocol_error": _message,
        "http_error": _message,
    },
)


def _error(value: Any, path: Path) -> Any:
    """The error object, or plain text, as older versions of the API had it."""
    return text(value, path) if type(value) is str else _TAGGED_ERROR(value, path)


_HOSTED = record(
    {
        "type": anything,
        "id": ID,
        "server_label": string(256, shortest=1),
        "name": string(256, shortest=1),
        "arguments": text,
        "output": text,
        "error": _error,
        "status": choice("in_progress", "completed", "incomplete", "calling", "failed"),
        "approval_request_id": not_yet(),
    },
    required=("server_label", "name", "arguments"),
)

_HOSTED_STATUS = {"calling": "in_progress", "incomplete": "failed"}
"""Statuses that a `HostedCall` does not have."""


def _hosted_call(value: Any, path: Path) -> Any:
    call = _HOSTED(value, path)
    status = call.get("status", "failed" if "error" in call else "completed")
    return HostedCall(
        call.get("id") or new_id("mcp"),
        call["server_label"],
        call["name"],
        call["arguments"],
        call.get("output"),
        call.get("error"),
        _HOSTED_STATUS.get(status, status),
    )


_LOGS = record({"type": anything, "logs": text}, required=("logs",))
_IMAGE = record({"type": anything, "url": text}, required=("url",))

_CODE_CALL = record(
    {
        "type": anything,
        "id": ID,
        "container_id": ID,
        "code": text,
        "outputs": array(
            tagged(
                "type",
                {
                    "logs": lambda value, path: Logs(_LOGS(value, path)["logs"]),
                    "image": lambda value, path: Picture(_IMAGE(value, path)["url"]),
                },
            ),
            longest=MOST_PARTS,
        ),
        "status": choice("in_progress", "interpreting", "completed", "incomplete", "failed"),
    },
    required=("container_id",),
)


def _code_call(value: Any, path: Path) -> Any:
    """Code that was run. What the model was told of it does not travel: what it wrote does."""
    call = _CODE_CALL(value, path)
    outputs = call.get("outputs", ())
    return CodeCall(
        call.get("id") or new_id("ci"),
        call["container_id"],
        call.get("code", ""),
        outputs,
        "\n".join(each.text for each in outputs if isinstance(each, Logs)),
        call.get("status", "completed"),
    )


HOSTED_CALLS: Mapping[str, Reader] = {"mcp_call": _hosted_call, "code_interpreter_call": _code_call}
"""Calls of tools that the server ran by itself: the item's type -> its reader."""

CALL_ITEMS: Mapping[str, Reader] = {
    "function_call": _function_call,
    "function_call_output": _function_output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _custom_output,
    **HOSTED_CALLS,
}
"""The item's type -> its reader."""
