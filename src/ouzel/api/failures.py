"""What went wrong, as a client reads it: status, `{"error": ...}` body and headers.

An error that Ouzel raised on purpose is told as it is; any other is told by its request id only.
Pure: it logs nothing and sends nothing. Errors inside a Responses stream are written by
`write_responses`, those inside a Chat Completions stream with the `body` of this file.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.exceptions import HTTPException

from ouzel.core.errors import (
    EngineError,
    EngineUnavailable,
    RequestError,
    ShuttingDown,
    StoreError,
    StoreFull,
    TooManyRequests,
    Unauthorized,
)
from ouzel.core.events import Failure

Answered = tuple[int, dict[str, Any], dict[str, str]]
"""Status, body and further headers."""

_FULL_SECONDS = 30.0
"""When to come back to a server that has no room."""

_RESTART_SECONDS = 5.0
"""When to come back to a server that is being stopped; it is often being restarted."""


def error_body(error: Exception, request_id: str) -> Answered:
    """The reply to a request that ended with an exception.

    Args:
        error: what was raised.
        request_id: given to the client where nothing else may be.
    """
    match error:
        case RequestError():
            return _request_error(error)
        case EngineUnavailable():
            failure = Failure(error.code, error.message, error.status, error.retry_after)
            return of_failure(failure)
        case EngineError():
            return of_failure(Failure(error.code, error.message, error.status))
        case ShuttingDown():
            return of_failure(Failure("server_shutting_down", error.message, 503, _RESTART_SECONDS))
        case StoreFull():
            told = "The server's disk is full; nothing of this request was kept. Try again later."
            return 507, body(507, told, code="insufficient_storage"), _retry_after(_FULL_SECONDS)
        case StoreError():
            # The store's own words may name files.
            return _told_by_id("The server could not read or write what it keeps.", request_id)
        case HTTPException():
            return _routing_error(error)
        case _:
            return _told_by_id("The server had an error while processing your request.", request_id)


def of_failure(failure: Failure) -> Answered:
    """The reply to a request whose run failed before anything of it was sent."""
    headers = {} if failure.retry_after is None else _retry_after(failure.retry_after)
    written = body(failure.status, failure.message, param=failure.param, code=failure.code)
    return failure.status, written, headers


def body(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    kind: str | None = None,
) -> dict[str, Any]:
    """The error object; its `type` follows from the status unless `kind` says otherwise."""
    if kind is None and status == 429:
        kind = "rate_limit_error"
    elif kind is None:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _request_error(error: RequestError) -> Answered:
    headers: dict[str, str] = {}
    if isinstance(error, TooManyRequests):
        headers = _retry_after(error.retry_after)
    elif isinstance(error, Unauthorized):
        headers = {"www-authenticate": "Bearer"}
    elif error.status == 408:
        headers = {"connection": "close"}  # the rest of the body would be in the way
    written = body(error.status, error.message, param=error.param, code=error.code, kind=error.kind)
    return error.status, written, headers


def _routing_error(error: HTTPException) -> Answered:
    """The router found no route: there is no such URL, or not with this method."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:
        allowed = headers.get("allow", "")
        message = f"This URL does not take that method; it takes: {allowed}."
        return 405, body(405, message, code="method_not_allowed"), headers
    if error.status_code == 404:
        return 404, body(404, "There is no such URL on this server.", code="unknown_url"), headers
    return error.status_code, body(error.status_code, error.detail), headers


def _told_by_id(message: str, request_id: str) -> Answered:
    told = f"{message} If you report this, include the request id {request_id}."
    return 500, body(500, told, code="server_error"), {}


def _retry_after(seconds: float) -> dict[str, str]:
    """Both headers that the official SDKs read: whole seconds for HTTP, milliseconds for them."""
    return {
        "retry-after": str(max(1, math.ceil(seconds))),
        "retry-after-ms": str(max(0, math.ceil(seconds * 1000))),
    }
