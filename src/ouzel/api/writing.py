"""What every writer needs: JSON bytes, server-sent events, log-probabilities, a run's progress.

Pure functions. This file knows how JSON travels, not what is in it: no field of any endpoint is
named here, save the four of a token's log-probability, which all endpoints share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ouzel.core.events import Event, ItemDone, RunFinished, RunQueued, RunStarted
from ouzel.core.items import TokenLogprob
from ouzel.core.runs import Run

UNLIKELY = -9999.0
"""What OpenAI's reference writes for a probability of nearly nothing; JSON has no infinity."""

_json = msgspec.json.Encoder()
_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_ENDS = (
    (b"\xc2\x85", b"\\u0085"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


def encode(value: Any) -> bytes:
    """A value as JSON in UTF-8, on one line whoever reads it.

    U+0085, U+2028 and U+2029 are legal in JSON and no line ends for server-sent events, but many
    readers split lines as Python's `str.splitlines` does and would cut the event in two there, so
    they are escaped. Half a surrogate pair, which UTF-8 cannot carry, becomes U+FFFD.
    """
    try:
        data = _json.encode(value)
    except UnicodeEncodeError:
        data = _json.encode(_without_surrogates(value))
    if not data.isascii():
        for raw, escaped in _LINE_ENDS:
            data = data.replace(raw, escaped)
    return data


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(entry) for entry in value]
    return value


def logprobs(tokens: Sequence[TokenLogprob], no_bytes: list[int] | None) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities.

    Args:
        tokens: one for each generated token, each with its alternatives.
        no_bytes: written where the engine gave no bytes: Chat Completions want null there,
            Responses a list.
    """
    return [
        {**_token(token, no_bytes), "top_logprobs": [_token(top, no_bytes) for top in token.top]}
        for token in tokens
    ]


def _token(token: TokenLogprob, no_bytes: list[int] | None) -> dict[str, Any]:
    logprob = token.logprob if math.isfinite(token.logprob) else UNLIKELY
    raw = list(token.raw) if token.raw else no_bytes
    return {"token": token.token, "bytes": raw, "logprob": logprob}


def advance(run: Run, event: Event) -> Run:
    """The run after one more of its events; the same run where the event changes nothing in it.

    Tokens of a run that failed or was cancelled stay unknown: the engine counts at the end.
    """
    match event:
        case RunQueued():
            return replace(run, status="queued")
        case RunStarted():
            return replace(run, status="in_progress")
        case ItemDone():
            return replace(run, output=(*run.output, event.item))
        case RunFinished():
            return replace(
                run,
                status=event.status,
                usage=event.usage if event.status in ("completed", "incomplete") else None,
                failure=event.failure,
                incomplete=event.incomplete,
                finished_at=event.at,
            )
        case _:
            return run


def unbegun(run: Run) -> Run:
    """The run as it was before its first event, however far it is by now."""
    return replace(
        run,
        status="in_progress",
        output=(),
        usage=None,
        failure=None,
        incomplete=None,
        finished_at=None,
    )
