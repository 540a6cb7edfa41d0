"""Reads the bodies of POST /v1/responses and POST /v1/responses/input_tokens.

To add a parameter: move its row from `_LATER` to `_ROWS` with the reader that checks it, and use
it in `read`. What may stand in `input` is in `read_items`. This file does no I/O and knows
nothing of what is done with a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ouzel.api.read_common import (
    COMMON,
    COMMON_LATER,
    ID,
    MOST_TOKENS,
    labels,
    sampling,
    service_tier,
)
from ouzel.api.read_errors import Path, not_together
from ouzel.api.read_items import read_input
from ouzel.api.read_output import TEXT, check_json_is_asked_for, reasoning
from ouzel.api.read_tools import read_offer
from ouzel.api.reading import (
    Reader,
    array,
    boolean,
    choice,
    integer,
    not_yet,
    record,
    string,
    text,
)
from ouzel.core.errors import RequestError
from ouzel.core.request import Format, Request

_LOGPROBS = "message.output_text.logprobs"
_OUTPUTS = "code_interpreter_call.outputs"
_SEALED = "reasoning.encrypted_content"


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """What was asked of Responses.

    Args:
        stream: send events as they happen.
        include_logprobs: write log-probabilities into the output.
    """

    request: Request
    stream: bool = False
    include_logprobs: bool = False


def read(
    body: dict[str, Any],
    hosted: frozenset[str] = frozenset(),
    answer_within: float | None = None,
) -> ResponsesRequest:
    """Check a decoded body of POST /v1/responses and say what it asks.

    Args:
        body: what was sent.
        hosted: types of the tools that this server runs by itself.
        answer_within: what the header of that name says.

    Raises:
        RequestError: with `param` and `code`, for the first thing that is wrong.
    """
    given = _BODY(body, ())
    top: int = given.get("top_logprobs", 0)
    # Who asks for alternatives wants to see them, with `include` or without.
    include_logprobs = top > 0 or _LOGPROBS in given.get("include", ())
    request = replace(
        _request(given, hosted),
        store=given.get("store", True),
        sampling=sampling(given, top if include_logprobs else None),
        answer_within=answer_within,
        include=frozenset(given.get("include", ())),
        background=given.get("background", False),
    )
    if request.background and not request.store:
        raise not_together(
            ("background",),
            "A background response is kept so that it can be fetched: 'background' is only "
            "allowed when 'store' is not false.",
        )
    return ResponsesRequest(request, given.get("stream", False), include_logprobs)


def read_input_tokens(body: dict[str, Any], hosted: frozenset[str] = frozenset()) -> Request:
    """Check a decoded body of POST /v1/responses/input_tokens: whose prompt is to be counted.

    Arguments and errors as `read`.
    """
    return _request(_COUNT_BODY(body, ()), hosted)


def read_include(values: Sequence[str]) -> frozenset[str]:
    """Read the `include` of a query.

    Raises:
        RequestError: with `param` and `code`; also for what is not there to be included.
    """
    return frozenset(_INCLUDE(list(values), ("include",)))


def _request(given: Mapping[str, Any], hosted: frozenset[str]) -> Request:
    previous_id = given.get("previous_response_id")
    conversation_id = given.get("conversation")
    if previous_id is not None and conversation_id is not None:
        raise not_together(
            ("conversation",),
            "Only one of 'previous_response_id' and 'conversation' may be given.",
        )
    if "input" not in given and previous_id is None and conversation_id is None:
        raise RequestError(
            "One of 'input', 'previous_response_id' or 'conversation' must be provided.",
            param="input",
            code="missing_required_parameter",
        )
    offer = read_offer("responses", given, hosted)
    shape, thinking = given.get("text", {}), given.get("reasoning", {})
    asked_format = shape.get("format", Format())
    # What was said earlier is not known here.
    if previous_id is None and conversation_id is None:
        told = given.get("instructions")
        check_json_is_asked_for("responses", asked_format, given["input"], told)
    return Request(
        protocol="responses",
        model=given["model"],
        input=given.get("input", ()),
        instructions=given.get("instructions"),
        max_output_tokens=given.get("max_output_tokens"),
        previous_id=previous_id,
        metadata=given.get("metadata", {}),
        labels=labels(given),
        tools=offer.tools,
        tool_choice=offer.choice,
        parallel_tool_calls=given.get("parallel_tool_calls", True),
        max_tool_calls=given.get("max_tool_calls"),
        effort=thinking.get("effort"),
        summary=thinking.get("summary"),
        format=asked_format,
        verbosity=shape.get("verbosity", "medium"),
        conversation_id=conversation_id,
        truncation=given.get("truncation", "disabled"),
        compact_at=given.get("context_management"),
    )


_CONVERSATION = record({"id": ID}, required=("id",))


def _conversation(value: Any, path: Path) -> Any:
    """Its id, alone or in an object."""
    if type(value) is dict:
        return _CONVERSATION(value, path)["id"]
    return ID(value, path)


_MANAGED = record(
    # 1,000: the reference's least.
    {"type": choice("compaction"), "compact_threshold": integer(1000, MOST_TOKENS)},
    required=("type",),
)
_ENTRIES = array(_MANAGED, longest=1, shortest=1)


def _context_management(value: Any, path: Path) -> Any:
    """Tokens from which on the conversation is compacted, 0 where that is left open."""
    return _ENTRIES(value, path)[0].get("compact_threshold", 0)


_PROMPT_ROWS: Mapping[str, Reader] = {
    "model": COMMON["model"],
    "input": read_input,
    "instructions": text,
    "previous_response_id": ID,
    "reasoning": reasoning,
    "text": TEXT,
    "conversation": _conversation,
    "truncation": choice("auto", "disabled"),
    **{name: COMMON[name] for name in ("parallel_tool_calls", "tools", "tool_choice")},
}
"""What decides the prompt."""

_INCLUDE = array(
    not_yet(
        _LOGPROBS,
        _OUTPUTS,
        _SEALED,
        of=choice(
            _LOGPROBS,
            _OUTPUTS,
            "computer_call_output.output.image_url",
            "file_search_call.results",
            "message.input_image.image_url",
            _SEALED,
            "web_search_call.action.sources",
            "web_search_call.results",
        ),
    ),
    longest=64,
)
"""Names of further output; those that this server does not have are refused."""

_ROWS: Mapping[str, Reader] = {
    **COMMON,
    **_PROMPT_ROWS,
    "background": boolean,
    "context_management": _context_management,
    "include": _INCLUDE,
    # At least 16: the reference and Open Responses agree.
    "max_output_tokens": integer(16, MOST_TOKENS),
    "max_tool_calls": integer(1, MOST_TOKENS),
    "service_tier": service_tier("flex", "scale", "priority", "fast", "ultrafast"),
    "store": boolean,
}
"""What is read, by name."""

_LATER: Mapping[str, Reader] = {
    **COMMON_LATER,
    "access_programs": not_yet(),
    "background_options": not_yet(),
    "image": not_yet(),
    "prompt": not_yet(),
    "stream_options": record({"include_obfuscation": not_yet(False, of=boolean)}),
}
"""What the API has and this server does not yet: only the values shown pass."""

_BODY = record({**_ROWS, **_LATER}, required=("model",))

_COUNT_BODY = record({**_PROMPT_ROWS, "personality": not_yet(of=string(64))}, required=("model",))
