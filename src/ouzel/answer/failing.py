"""What a client may be told of an error that ended a run. Pure."""

from __future__ import annotations

from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    RequestError,
    ShuttingDown,
    StoreError,
    StoreFull,
)
from ouzel.core.events import Failure
from ouzel.core.request import Protocol

PROMPT: dict[Protocol, str] = {"chat": "messages", "responses": "input"}
"""The parameter that holds the prompt."""

UNSTORED = Failure("server_error", "The response could not be stored.", 500)
NO_ROOM = Failure(
    "insufficient_storage",
    "The response could not be stored: the server's disk is full.",
    507,
    retry_after=30.0,
)


def unstored(error: StoreError) -> Failure:
    """The failure of a run that could not be kept."""
    return NO_ROOM if isinstance(error, StoreFull) else UNSTORED


def failure_of(error: BaseException, protocol: Protocol) -> Failure:
    """The failure to tell.

    An error that Ouzel did not raise on purpose is not shown: only that something went wrong.

    Args:
        error: what ended the run.
        protocol: names the parameter that is to blame for a prompt that does not fit.
    """
    match error:
        case ContextLengthExceeded():
            param = error.param or PROMPT[protocol]
            return Failure("context_length_exceeded", error.message, 400, param=param)
        case RequestError():
            code = error.code or "invalid_request"
            return Failure(code, error.message, error.status, param=error.param)
        case EngineUnavailable():
            return Failure(error.code, error.message, error.status, error.retry_after)
        case EngineError():
            return Failure(error.code, error.message, error.status)
        case ShuttingDown():
            return Failure("server_shutting_down", error.message, 503, 5.0)
        case StoreError():
            return unstored(error)
    return Failure("server_error", "The server had an error while processing the request.", 500)
