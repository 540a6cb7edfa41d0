"""What may go wrong, and who is told.

    OuzelError
    ├── RequestError             the caller's: answered with its `status`, `param` and `code`
    │   ├── Unauthorized         401  no key, or a wrong one
    │   ├── NotFound             404  unknown, or someone else's: the same answer for both
    │   ├── Conflict             409  the object is not in a state that allows this
    │   ├── TooLarge             413  the body exceeds the limit
    │   ├── TooManyRequests      429  try again after `retry_after` seconds
    │   └── ContextLengthExceeded 400 the prompt does not fit; both numbers are in the message
    ├── EngineError              the engine's: ends a run as `failed`, answered with 500 or 503
    │   ├── EngineUnavailable    starting, restarting or unreachable; nothing was emitted
    │   └── EngineDied           it went away, or fell silent, in the middle of a turn
    ├── ToolError                a tool's: shown to the model, which may try again
    ├── StoreError               what had to be kept could not be
    │   └── StoreFull            507  there is no room for it
    ├── WeightsError             a catalogue entry, a download or a file on disk is not usable
    └── ShuttingDown             the server is stopping; running requests end with this

This file does not know HTTP beyond the status numbers, nor how an error is written on the wire:
`api/failures.py` does that.
"""

from __future__ import annotations


class OuzelError(Exception):
    """Root of every error that Ouzel raises on purpose.

    Args:
        message: one sentence for the person who reads it; never holds a key or a prompt.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(OuzelError):
    """Something is wrong with what the caller asked.

    Args:
        message: says what is wrong and what would be right.
        param: path of the parameter in the caller's JSON (`messages[0].content`), if there is one.
        code: machine-readable reason (`invalid_type`, `unknown_parameter`, ...).
    """

    status = 400
    kind = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Unauthorized(RequestError):
    """No key was sent, or it is not one of ours."""

    status = 401


class NotFound(RequestError):
    """There is no such object for this owner."""

    status = 404


class Conflict(RequestError):
    """The object is in a state that does not allow what was asked."""

    status = 409


class TooLarge(RequestError):
    """The request body is over the configured limit."""

    status = 413


class TooManyRequests(RequestError):
    """The server has as much work as it accepts.

    Args:
        retry_after: seconds after which another attempt makes sense.
    """

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.retry_after = retry_after


class ContextLengthExceeded(RequestError):
    """The prompt does not fit into the context window.

    Args:
        prompt_tokens: tokens that the prompt has.
        context_window: tokens that the engine can hold for one request.
        param: the parameter that holds the prompt (`messages` or `input`).
    """

    def __init__(
        self, prompt_tokens: int, context_window: int, *, param: str | None = None
    ) -> None:
        super().__init__(
            f"This model's maximum context length is {context_window} tokens, but your input has "
            f"{prompt_tokens} tokens. Shorten the input or serve the model with a larger context.",
            param=param,
            code="context_length_exceeded",
        )
        self.prompt_tokens = prompt_tokens
        self.context_window = context_window


class EngineError(OuzelError):
    """The engine could not do its part. Ends the run as `failed`."""

    status = 500
    code = "server_error"


class EngineUnavailable(EngineError):
    """The engine cannot take a turn now: it starts, restarts or cannot be reached.

    Args:
        retry_after: seconds after which another attempt makes sense.
    """

    status = 503
    code = "engine_unavailable"

    def __init__(self, message: str, *, retry_after: float = 2.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineDied(EngineError):
    """The engine went away, broke its protocol, or fell silent in the middle of a turn."""


class ToolError(OuzelError):
    """A tool could not do what it was asked; the model sees the message and can act on it."""


class StoreError(OuzelError):
    """What had to be kept could not be written or read (a full disk, a damaged file)."""


class StoreFull(StoreError):
    """There is no room on the disk for what had to be kept."""


class WeightsError(OuzelError):
    """A catalogue entry, a download, or a weights file on disk is not usable."""


class ShuttingDown(OuzelError):
    """The server is being stopped; a run that was under way ends with this."""
