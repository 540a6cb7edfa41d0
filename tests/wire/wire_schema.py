"""One body against one type, strictly: no wrong type, no missing field, no field too many.

Bodies are held against the official SDK's types and against the Open Responses types. Fields that
one of the two does not know are listed in `EXTRA`, each with its reason; nothing else is let by.
What the fields mean together is not checked here: `checks.py` does that.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any, get_args

import openresponses_types
from openai.types import ErrorObject, Model
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionDeleted,
    ChatCompletionStoreMessage,
)
from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    ConversationItem,
    ConversationItemList,
)
from openai.types.responses import (
    InputTokenCountResponse,
    Response,
    ResponseCodeInterpreterToolCall,
    ResponseItemList,
    ResponseStreamEvent,
)
from openai.types.responses.response_output_item import McpCall
from openai.types.responses.response_output_text import AnnotationContainerFileCitation
from pydantic import BaseModel, TypeAdapter

# A path into a body. "[]" is every entry of a list, "type=x" goes on only where `type` is x.
Path = tuple[str, ...]

_REASONING_STATUS: Path = ("output", "[]", "type=reasoning", "status")
_BYTES: tuple[Path, ...] = (
    ("logprobs", "[]", "bytes"),
    ("logprobs", "[]", "top_logprobs", "[]", "bytes"),
)

_CUSTOM_STATUS: Path = ("type=custom_tool_call", "status")
_OUTPUT_STATUS: Path = ("type=custom_tool_call_output", "status")
_CHUNK_CALLS: Path = ("choices", "[]", "delta", "tool_calls", "[]")

ECHOED = (
    "frequency_penalty",
    "input_user",
    "presence_penalty",
    "request_id",
    "response_format",
    "seed",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
)
"""What a stored completion repeats of its request, as the reference's examples have it."""

EXTRA: dict[tuple[str, str], tuple[Path, ...]] = {
    # The API's replies and Open Responses have these three; the SDK's class does not list them.
    # The API's replies say the status of custom calls; the SDK has it for stored ones only.
    ("sdk", "response"): (
        ("store",),
        ("presence_penalty",),
        ("frequency_penalty",),
        ("output", "[]", *_CUSTOM_STATUS),
    ),
    ("sdk", "response.output_item.added"): (("item", *_CUSTOM_STATUS),),
    ("sdk", "response.output_item.done"): (("item", *_CUSTOM_STATUS),),
    # The reference asks for the name, these two do not list it yet.
    ("sdk", "response.function_call_arguments.done"): (("name",),),
    ("open", "response.function_call_arguments.done"): (("name",),),
    # The API sends the bytes of tokens in streamed log-probabilities, Open Responses demands them.
    ("sdk", "response.output_text.delta"): _BYTES,
    ("sdk", "response.output_text.done"): _BYTES,
    # Customary for thinking in Chat Completions; the SDK keeps it as an extra attribute.
    # Ours, and checked apart: what the server did by itself, and the files that it left.
    ("sdk", "chat.completion"): (
        ("choices", "[]", "message", "reasoning_content"),
        ("choices", "[]", "message", "hosted_tool_calls"),
        ("choices", "[]", "message", "container_files"),
    ),
    # The reference's examples of stored completions have what was asked for, its schema has not.
    ("sdk", "chat.completion.stored"): (
        *((name,) for name in ECHOED),
        ("choices", "[]", "message", "reasoning_content"),
        ("choices", "[]", "message", "hosted_tool_calls"),
        ("choices", "[]", "message", "container_files"),
    ),
    # Messages that were sent: whose they are, and which call they answer. Ours are the last three.
    ("sdk", "chat.message"): (
        ("name",),
        ("tool_call_id",),
        ("reasoning_content",),
        ("hosted_tool_calls",),
        ("container_files",),
    ),
    # Items of conversations: the same as in responses.
    ("sdk", "conversation.item"): (_CUSTOM_STATUS, _OUTPUT_STATUS),
    ("sdk", "conversation.items"): (
        ("data", "[]", *_CUSTOM_STATUS),
        ("data", "[]", *_OUTPUT_STATUS),
    ),
    # In chunks the SDK's types know no custom calls, though its messages do.
    ("sdk", "chat.completion.chunk"): (
        ("choices", "[]", "delta", "reasoning_content"),
        ("choices", "[]", "delta", "hosted_tool_calls"),
        ("choices", "[]", "delta", "container_files"),
        (*_CHUNK_CALLS, "custom"),
        (*_CHUNK_CALLS, "type=custom", "type"),
    ),
    # The SDK has these, the third as a required field; Open Responses does not list them.
    ("open", "response"): (
        ("user",),
        ("prompt_cache_retention",),
        ("usage", "input_tokens_details", "cache_write_tokens"),
        _REASONING_STATUS,
    ),
    ("open", "response.output_item.added"): (("item", "type=reasoning", "status"),),
    ("open", "response.output_item.done"): (("item", "type=reasoning", "status"),),
}

# Open Responses names two events otherwise; clients written for the SDK know the left ones.
_OPEN_NAMES = {
    "response.reasoning_text.delta": "response.reasoning.delta",
    "response.reasoning_text.done": "response.reasoning.done",
}

# What Open Responses does not have at all; there is nothing to hold these against.
_OPEN_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_NOT_OPEN = (
    "response.mcp_call",
    "response.custom_tool_call",
    "response.code_interpreter_call",
    "response.output_text.annotation",  # it is there, for links only
)

_WITH_RESPONSE = ("created", "queued", "in_progress", "completed", "incomplete", "failed")


class _Error(BaseModel):
    error: ErrorObject


class _ModelList(BaseModel):
    object: str
    data: list[Model]


class _Deleted(BaseModel):
    id: str
    object: str
    deleted: bool


_SDK: dict[str, Any] = {
    "conversation": Conversation,
    "conversation.deleted": ConversationDeletedResource,
    "conversation.item": ConversationItem,
    "conversation.items": ConversationItemList,
    "chat.completion.stored": ChatCompletion,
    "chat.completion.deleted": ChatCompletionDeleted,
    "chat.message": ChatCompletionStoreMessage,
    "response": Response,
    "chat.completion": ChatCompletion,
    "chat.completion.chunk": ChatCompletionChunk,
    "error": _Error,
    "model": Model,
    "models": _ModelList,
    "deleted": _Deleted,
    "input_tokens": InputTokenCountResponse,
    "input_items": ResponseItemList,
    "code_interpreter_call": ResponseCodeInterpreterToolCall,
    "mcp_call": McpCall,
    "container_file_citation": AnnotationContainerFileCitation,
}


def valid(name: str, body: dict[str, Any]) -> None:
    """Hold a body against the SDK's type and, where there is one, the Open Responses type.

    Args:
        name: a key of the tables above, or the name of a stream event.

    Raises:
        pydantic.ValidationError: it does not fit.
        AssertionError: there is no such type.
    """
    sdk = _SDK.get(name) or _sdk_events().get(name)
    assert sdk is not None, f"the SDK has no type for {name!r}"
    _strictly(sdk, _without_extras("sdk", name, body))
    if name == "response":
        _strictly(openresponses_types.ResponseResource, _without_extras("open", name, body))
    elif name.startswith("response.") and _is_open(name, body):
        open_name = _OPEN_NAMES.get(name, name)
        kind = _open_events().get(open_name)
        assert kind is not None, f"Open Responses has no event {open_name!r}"
        _strictly(kind, {**_without_extras("open", name, body), "type": open_name})


def open_item(item: dict[str, Any]) -> None:
    """Hold an item, from either side of the conversation, against the Open Responses types."""
    kinds = {
        "message": openresponses_types.Message,
        "reasoning": openresponses_types.ReasoningBody,
        "function_call": openresponses_types.FunctionCall,
        "function_call_output": openresponses_types.FunctionCallOutput,
    }
    if item["type"] not in kinds:
        return
    stripped = _uncited(copy.deepcopy(item))
    _strip(stripped, ("type=reasoning", "status"))
    for kind in ("input_file", "input_image"):
        _strip(stripped, ("content", "[]", f"type={kind}", "file_id"))  # it knows no such ids
    _strictly(kinds[item["type"]], stripped)


def _is_open(name: str, body: dict[str, Any]) -> bool:
    item = body.get("item") or {"type": "message"}
    return not name.startswith(_NOT_OPEN) and item["type"] in _OPEN_ITEMS


def _as_open(response: dict[str, Any]) -> None:
    """Take out of a response what Open Responses cannot say."""
    response["output"] = [item for item in response["output"] if item["type"] in _OPEN_ITEMS]
    response["tools"] = [tool for tool in response["tools"] if tool["type"] == "function"]
    choice = response["tool_choice"]
    if isinstance(choice, dict):
        choice["tools"] = [tool for tool in choice.get("tools", ()) if tool["type"] == "function"]
        if choice["type"] != "allowed_tools":
            del choice["tools"]
            if choice["type"] != "function":
                response["tool_choice"] = "required"
    if response["reasoning"]["effort"] == "minimal":
        response["reasoning"]["effort"] = "low"
    if response["text"]["format"]["type"] == "json_schema":
        response["text"]["format"]["schema"] = None  # its types know no schema but null


def _strictly(kind: Any, body: dict[str, Any]) -> None:
    _adapter(kind).validate_json(json.dumps(body), strict=True, extra="forbid")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _without_extras(side: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(body)
    for path in EXTRA.get((side, name), ()):
        _strip(body, path)
    if name.removeprefix("response.") in _WITH_RESPONSE:
        for path in EXTRA[side, "response"]:
            _strip(body.get("response"), path)
    response = body if name == "response" else body.get("response")
    if side == "open" and isinstance(response, dict) and "output" in response:
        _as_open(response)
    return _uncited(body) if side == "open" else body


def _uncited(value: Any) -> Any:
    """The same without citations of files: Open Responses knows annotations for links only."""
    if isinstance(value, list):
        kept = [each for each in value if not _is_citation(each)]
        return [_uncited(each) for each in kept]
    if isinstance(value, dict):
        return {name: _uncited(inner) for name, inner in value.items()}
    return value


def _is_citation(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "container_file_citation"


def _strip(value: Any, path: Path) -> None:
    """Remove the field at the end of the path, wherever the path leads."""
    step, *rest = path
    if step == "[]":
        for entry in value if isinstance(value, list) else ():
            _strip(entry, tuple(rest))
    elif not isinstance(value, dict):
        return
    elif step.startswith("type="):
        if value.get("type") == step.removeprefix("type="):
            _strip(value, tuple(rest))
    elif rest:
        _strip(value.get(step), tuple(rest))
    else:
        value.pop(step, None)


@cache
def _sdk_events() -> dict[str, Any]:
    """The SDK's stream events by their name."""
    union = get_args(ResponseStreamEvent)[0]
    return {
        name: kind
        for kind in get_args(union)
        for name in get_args(kind.model_fields["type"].annotation)
    }


@cache
def _open_events() -> dict[str, Any]:
    """The Open Responses stream events by their name."""
    kinds = [
        kind for name, kind in vars(openresponses_types).items() if name.endswith("StreamingEvent")
    ]
    return {member.value: kind for kind in kinds for member in kind.model_fields["type"].annotation}
