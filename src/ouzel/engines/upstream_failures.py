"""What went wrong at an engine's server, as one of our errors.

`read_error` turns an HTTP status and an error body into the error that a run ends with. It knows
the bodies of llama-server, vLLM, SGLang, Ollama and LM Studio (docs/add-an-engine.md says where
each was looked up), does no I/O, and never lets a key or a prompt into a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from ouzel.core.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    OuzelError,
    RequestError,
    TooLarge,
)

SHOWN = 300
"""Characters of an engine's own message that are passed on."""

_UNAVAILABLE = frozenset({429, 502, 503, 504, 529})
# 502 and 504 come from a proxy in front of the engine; 529 is what some say for "overloaded".

_ECHO = re.compile(r"""['"]?\binput(?:_value)?['"]?\s*[:=]""")
# Validators written with pydantic repeat the offending input, which may be the prompt.

_NUMBER = r"(\d{1,12})"
_OVERFLOW = re.compile(
    r"exceed_context_size|context_length_exceeded|available context size"
    r"|maximum context length|(?:longer|greater) than the (?:model's )?context length"
    r"|longer than the maximum model length|context length is only",
    re.IGNORECASE,
)
_WINDOW = re.compile(
    r"(?:maximum context length (?:is|of)|context length is only|available context size \("
    r"|context length \(|maximum model length of) ?" + _NUMBER,
    re.IGNORECASE,
)
_PROMPT = re.compile(
    rf"{_NUMBER} in the messages|passed {_NUMBER} input tokens"
    rf"|contains (?:at least )?{_NUMBER} input tokens|has {_NUMBER} input tokens"
    rf"|request \({_NUMBER} tokens\)|input \({_NUMBER} tokens\)|resulted in {_NUMBER} tokens"
    rf"|prompt \(length {_NUMBER}\)|{_NUMBER} tokens from the input messages",
    re.IGNORECASE,
)


class Overflow(EngineError):
    """Prompt and answer do not fit together, as far as the engine says.

    It never leaves this room: `upstream` learns the missing numbers and raises
    ContextLengthExceeded, or asks again with a smaller answer.

    Args:
        prompt_tokens: tokens of the prompt, None where the engine does not say.
        context_window: tokens that fit, None where the engine does not say.
        exact: `prompt_tokens` is the whole prompt and not a lower bound (vLLM stops counting
            where the window ends).
    """

    def __init__(self, prompt_tokens: int | None, context_window: int | None, exact: bool) -> None:
        super().__init__("The prompt does not fit the engine's context window.")
        self.prompt_tokens = prompt_tokens
        self.context_window = context_window
        self.exact = exact


class Unreachable(EngineUnavailable):
    """No connection to the engine could be made.

    Args:
        passing: another attempt may succeed; a certificate that is not trusted stays so.
    """

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class Overdue(EngineUnavailable):
    """The engine took longer than it may; another attempt would wait as long again."""


class Severed(EngineError):
    """The connection broke. It never leaves this room: whether the engine was unavailable or died
    depends on what had been said by then, which `upstream` knows."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """An engine's error body, whatever its dialect."""

    message: str = ""
    kind: str = ""
    code: str = ""
    status: int | None = None
    param: str | None = None
    prompt_tokens: int | None = None
    context_window: int | None = None


def read_error(
    status: int, body: bytes, *, retry_after: float | None = None, secret: str | None = None
) -> OuzelError:
    """The error that an HTTP answer means.

    Args:
        status: the HTTP status.
        body: the response body, JSON or not.
        retry_after: seconds, from the header of that name.
        secret: the key; taken out of any message that repeats it.
    """
    return error_of(read_complaint(body), status, retry_after=retry_after, secret=secret)


def error_of(
    complaint: Complaint,
    status: int,
    *,
    retry_after: float | None = None,
    secret: str | None = None,
) -> OuzelError:
    """The error that a complaint means. Takes what `read_error` takes."""
    overflow = _overflow(complaint)
    if overflow is not None:
        return overflow
    if status in (401, 403):
        # The engine's own words are left out: some servers repeat the key in them.
        return EngineError(
            f"The engine refused our key (HTTP {status}): engine_key is wrong or missing."
        )
    said = _said(complaint.message, secret)
    if status == 404:
        return EngineError(
            f"The engine does not know what it was asked for (HTTP 404{said}): check engine_url "
            "and engine_model."
        )
    if status == 413:
        return TooLarge(f"The engine says that the request is too large{said}.")
    if status in (400, 422):
        return RequestError(
            f"The engine refused the request{said}.",
            param=complaint.param,
            code="invalid_value",
        )
    if status in _UNAVAILABLE:
        return EngineUnavailable(
            f"The engine takes no requests now (HTTP {status}{said}).",
            **({} if retry_after is None else {"retry_after": retry_after}),
        )
    if 300 <= status < 400:
        return EngineError(
            f"The engine's address redirects elsewhere (HTTP {status}), which is not followed: "
            "set engine_url to the final address."
        )
    return EngineDied(f"The engine failed (HTTP {status}{said}).")


def passing(error: OuzelError, longest: float) -> bool:
    """Whether the same request may succeed a moment later.

    Args:
        longest: seconds that a moment may take.
    """
    if not isinstance(error, EngineUnavailable) or isinstance(error, Overdue):
        return False
    if isinstance(error, Unreachable):
        return error.passing
    return error.retry_after <= longest


def shrink(body: dict[str, object], overflow: Overflow) -> bool:
    """Ask for a shorter answer, where the prompt alone fits. True if the body was changed.

    vLLM and SGLang refuse a request whose prompt and longest answer do not fit together, where
    llama-server and the API reference take `max_tokens` as a bound and end with `length`.
    """
    wanted, window = body.get("max_tokens"), overflow.context_window
    if not isinstance(wanted, int):
        return False
    prompt = overflow.prompt_tokens
    if prompt is not None and window is not None and prompt >= window:
        return False
    if overflow.exact and prompt is not None and window is not None:
        room = max(1, window - prompt - 1)  # SGLang keeps one token for itself
        body["max_tokens"] = room
        return room < wanted
    del body["max_tokens"]  # only a lower bound of the prompt is known: take what is left
    return True


def read_complaint(body: bytes) -> Complaint:
    """An error body in any of the dialects; text that is not JSON is the message itself."""
    try:
        data = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        text = body[: 4 * SHOWN].decode("utf-8", "replace").strip()
        return Complaint() if text.startswith("<") else Complaint(message=text)
    return complaint_of(data)


def complaint_of(data: object, depth: int = 0) -> Complaint:
    """The same from decoded JSON: `{"error": {…}}`, `{"error": "…"}`, a flat object, or text."""
    if isinstance(data, dict):
        inner = data.get("error") or data.get("detail")
        if inner is not None and not isinstance(inner, bool):
            return complaint_of(inner, depth)
        return _flat(data, depth)
    text = data if isinstance(data, str) else str(data)[:SHOWN]
    if depth < 3 and text.lstrip().startswith("{"):
        # Ollama wraps the error of the llama-server inside it as text.
        try:
            return complaint_of(msgspec.json.decode(text), depth + 1)
        except (ValueError, RecursionError):
            return Complaint(message=text)
    return Complaint(message=text)


def _flat(data: dict[str, Any], depth: int) -> Complaint:
    message = data.get("message")
    if isinstance(message, str) and depth < 3 and message.lstrip().startswith("{"):
        inner = complaint_of(message, depth + 1)
        if inner.kind or inner.code or inner.message != message:
            return inner
    code, param = data.get("code"), data.get("param")
    return Complaint(
        message=message if isinstance(message, str) else "",
        kind=str(data.get("type") or ""),
        code=str(code or ""),
        status=_count(code) if isinstance(code, int) else None,
        param=param if isinstance(param, str) and param else None,
        prompt_tokens=_count(data.get("n_prompt_tokens")),
        context_window=_count(data.get("n_ctx")),
    )


def _overflow(complaint: Complaint) -> Overflow | None:
    message = complaint.message[: 8 * SHOWN]
    if not any(_OVERFLOW.search(text) for text in (complaint.kind, complaint.code, message)):
        return None
    prompt, window = complaint.prompt_tokens, complaint.context_window
    if prompt is None and (found := _PROMPT.search(message)):
        prompt = int(next(group for group in found.groups() if group))
    if window is None and (found := _WINDOW.search(message)):
        window = int(found.group(1))
    return Overflow(prompt, window, exact=prompt is not None and "at least" not in message)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**40 else None


def _said(message: str, secret: str | None) -> str:
    """`: message`, cleaned and cut, or nothing."""
    if secret:
        message = message.replace(secret, "***")
    if echo := _ECHO.search(message):
        message = message[: echo.start()].rstrip(" ,{[(")
    message = " ".join(message.split())
    if len(message) > SHOWN:
        message = message[:SHOWN].rstrip() + "…"
    return f": {message.rstrip('.')}" if message else ""
