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
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import (
    InputTokenCountResponse,
    Response,
    ResponseItemList,
    ResponseStreamEvent,
)
from pydantic import BaseModel, TypeAdapter

# A path into a body. "[]" is every entry of a list, "type=x" goes on only where `type` is x.
Path = tuple[str, ...]

_REASONING_STATUS: Path = ("output", "[]", "type=reasoning", "status")
_BYTES: tuple[Path, ...] = (
    ("logprobs", "[]", "bytes"),
    ("logprobs", "[]", "top_logprobs", "[]", "bytes"),
)

EXTRA: dict[tuple[str, str], tuple[Path, ...]] = {
    # The API's replies and Open Responses have these three; the SDK's class does not list them.
    ("sdk", "response"): (("store",), ("presence_penalty",), ("frequency_penalty",)),
    # The API sends the bytes of tokens in streamed log-probabilities, Open Responses demands them.
    ("sdk", "response.output_text.delta"): _BYTES,
    ("sdk", "response.output_text.done"): _BYTES,
    # Customary for thinking in Chat Completions; the SDK keeps it as an extra attribute.
    ("sdk", "chat.completion"): (("choices", "[]", "message", "reasoning_content"),),
    ("sdk", "chat.completion.chunk"): (("choices", "[]", "delta", "reasoning_content"),),
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
    "response": Response,
    "chat.completion": ChatCompletion,
    "chat.completion.chunk": ChatCompletionChunk,
    "error": _Error,
    "model": Model,
    "models": _ModelList,
    "deleted": _Deleted,
    "input_tokens": InputTokenCountResponse,
    "input_items": ResponseItemList,
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
    elif name.startswith("response."):
        open_name = _OPEN_NAMES.get(name, name)
        kind = _open_events().get(open_name)
        assert kind is not None, f"Open Responses has no event {open_name!r}"
        _strictly(kind, {**_without_extras("open", name, body), "type": open_name})


def open_item(item: dict[str, Any]) -> None:
    """Hold an item, from either side of the conversation, against the Open Responses types."""
    kinds = {
        "message": openresponses_types.Message,
        "reasoning": openresponses_types.ReasoningBody,
    }
    stripped = copy.deepcopy(item)
    _strip(stripped, ("type=reasoning", "status"))
    _strictly(kinds[item["type"]], stripped)


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
    return body


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
