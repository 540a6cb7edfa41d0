"""Writes batches as OpenAI's API has them, and the lines of their files. Pure.

A line of the error file has one thing more than the reference: `line`, its number in the input
file, since a line that is wrong may have no other name.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ouzel.api import writing
from ouzel.core.contracts_batches import Batch, BatchEnd, BatchProblem
from ouzel.core.items import new_id
from ouzel.core.turns import Usage

WINDOW: Final = "24h"

_UNRUN: dict[BatchEnd, tuple[str, str]] = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}


def batch(info: Batch) -> dict[str, Any]:
    """A `batch` object. Ids of files are there as soon as the files are."""
    ending = info.ending if info.ending is not None and info.ending.written else None
    return {
        "id": info.id,
        "object": "batch",
        "endpoint": info.endpoint,
        "model": info.model,
        "errors": _errors(info.errors),
        "input_file_id": info.input_file_id,
        "completion_window": WINDOW,
        "status": info.status,
        "output_file_id": ending.output_id if ending else None,
        "error_file_id": ending.error_id if ending else None,
        "created_at": int(info.created_at),
        "in_progress_at": _when(info.in_progress_at),
        "expires_at": int(info.expires_at),
        "finalizing_at": _when(info.finalizing_at),
        "completed_at": _ended(info, "completed"),
        "failed_at": _ended(info, "failed"),
        "expired_at": _ended(info, "expired"),
        "cancelling_at": _when(info.cancelling_at),
        "cancelled_at": _ended(info, "cancelled"),
        "request_counts": {
            "total": info.counts.total,
            "completed": info.counts.completed,
            "failed": info.counts.failed,
        },
        "usage": None if info.usage is None else _usage(info.usage),
        "metadata": None if info.metadata is None else dict(info.metadata),
    }


def _when(at: float | None) -> int | None:
    return None if at is None else int(at)


def _ended(info: Batch, end: BatchEnd) -> int | None:
    return _when(info.ended_at) if info.status == end else None


def _errors(problems: tuple[BatchProblem, ...]) -> dict[str, Any] | None:
    if not problems:
        return None
    data = [
        {"code": each.code, "message": each.message, "param": each.param, "line": each.line}
        for each in problems
    ]
    return {"object": "list", "data": data}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


# Lines.


def answered(custom_id: str, request_id: str, body: dict[str, Any]) -> bytes:
    """The line of a request that was answered."""
    response = {"status_code": 200, "request_id": request_id, "body": body}
    return writing.encode(
        {"id": _id(), "custom_id": custom_id, "response": response, "error": None}
    )


def refused(
    number: int, custom_id: str, request_id: str, status: int, body: dict[str, Any]
) -> bytes:
    """The line of a request that was answered with an error."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return writing.encode(
        {
            "id": _id(),
            "custom_id": custom_id,
            "response": response,
            "error": None,
            "line": number,
        }
    )


def unreadable(custom_id: str | None, problem: BatchProblem) -> bytes:
    """The line of something that is no request of the batch."""
    return _without_response(
        problem.line,
        custom_id,
        {
            "code": problem.code,
            "message": problem.message,
            "param": problem.param,
            "line": problem.line,
        },
    )


def unrun(number: int, custom_id: str | None, end: BatchEnd) -> bytes:
    """The line of a request that was not run because the batch came to this end."""
    code, message = _UNRUN[end]
    return _without_response(number, custom_id, {"code": code, "message": message})


def too_slow(number: int, custom_id: str | None, within: float) -> bytes:
    """The line of a request whose answer took longer than so many seconds."""
    message = f"The request was not answered within {within:.0f} seconds."
    return _without_response(number, custom_id, {"code": "request_timeout", "message": message})


def _without_response(number: int | None, custom_id: str | None, error: dict[str, Any]) -> bytes:
    return writing.encode(
        {
            "id": _id(),
            "custom_id": custom_id,
            "response": None,
            "error": error,
            "line": number,
        }
    )


def _id() -> str:
    return new_id("batch_req")


class _Details(msgspec.Struct):
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


class _Response(msgspec.Struct):
    body: _Body | None = None


class _Line(msgspec.Struct):
    response: _Response | None = None


_lines = msgspec.json.Decoder(_Line)


def usage_of(result: bytes) -> Usage:
    """The tokens that an answered line tells, under the names of either endpoint."""
    line = _lines.decode(result)
    found = line.response and line.response.body and line.response.body.usage
    if not found:
        return Usage()
    into = found.input_tokens_details or found.prompt_tokens_details or _Details()
    out = found.output_tokens_details or found.completion_tokens_details or _Details()
    return Usage(
        found.input_tokens + found.prompt_tokens,
        into.cached_tokens,
        found.output_tokens + found.completion_tokens,
        out.reasoning_tokens,
    )
