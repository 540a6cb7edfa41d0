"""Chat Completions as an engine's server streams them: events in, deltas out.

Pure: no I/O, no clock, no retries. `read_chunk` turns one chunk into deltas, and `TurnReader`
reads a whole stream of them and keeps what ends a turn. All of this runs once for every token: it
is the hot path. The requests are written by `wire_turn`.

It speaks the common part of llama-server, vLLM, SGLang and Ollama; docs/add-an-engine.md says
where they differ. Which of them answers, and how often it was asked, it does not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from ouzel.core.errors import EngineDied, OuzelError
from ouzel.core.items import TokenLogprob
from ouzel.core.turns import (
    CallDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from ouzel.engines.upstream_failures import complaint_of, error_of
from ouzel.engines.upstream_sse import EventParser

UNLIKELY: Final = -9999.0
"""What the API reference puts for a log-probability too small to say (some servers send null)."""

_REASONS: Final[dict[str, Literal["stop", "length", "calls", "filter"]]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "calls",
    "function_call": "calls",
    "content_filter": "filter",
    "eos": "stop",  # text-generation-inference and its kin
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
}


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Alternative(msgspec.Struct):
    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: _Count | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    reasoning_tokens: _Count | None = None  # SGLang puts it here


class Timings(msgspec.Struct):
    """What llama-server counted and timed so far, in tokens and milliseconds."""

    cache_n: _Count | None = None
    prompt_n: _Count = 0
    prompt_ms: float = 0.0
    predicted_n: _Count = 0
    predicted_ms: float = 0.0


class Chunk(msgspec.Struct):
    """One `chat.completion.chunk`, as far as it is read here; `error` may come in its place."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: Timings | None = None
    error: Any = None
    object: Any = None
    message: Any = None
    code: Any = None
    type: Any = None


Piece = TextDelta | ThinkingDelta | RefusalDelta | CallDelta

_decode = msgspec.json.Decoder(Chunk).decode


def read_chunk(chunk: Chunk, top: int | None = None) -> list[Piece]:
    """The deltas in one chunk; none in one that only opens, ends or counts.

    Args:
        chunk: the decoded chunk.
        top: alternatives that were asked for; more are cut, None drops all log-probabilities.
    """
    choices = chunk.choices
    if not choices:
        return []
    choice = choices[0]
    delta = choice.delta
    if delta is None:
        return []
    deltas: list[Piece] = []
    if thinking := delta.reasoning_content or delta.reasoning:
        deltas.append(ThinkingDelta(thinking))
    logprobs: tuple[TokenLogprob, ...] = ()
    if top is not None and not thinking and choice.logprobs and choice.logprobs.content:
        logprobs = tuple(_logprob(token, top) for token in choice.logprobs.content)
    if delta.content or logprobs:
        deltas.append(TextDelta(delta.content or "", logprobs))
    if delta.refusal:
        deltas.append(RefusalDelta(delta.refusal))
    for position, call in enumerate(delta.tool_calls or ()):
        function = call.function or _Function()
        deltas.append(
            CallDelta(
                position if call.index is None else call.index,
                call.id or None,
                function.name or None,
                function.arguments or "",
            )
        )
    return deltas


def _logprob(token: _Token, top: int) -> TokenLogprob:
    return TokenLogprob(
        token.token,
        UNLIKELY if token.logprob is None else token.logprob,
        _raw(token),
        tuple(
            TokenLogprob(
                other.token, UNLIKELY if other.logprob is None else other.logprob, _raw(other)
            )
            for other in (token.top_logprobs or ())[:top]
        ),
    )


def _raw(token: _Alternative) -> tuple[int, ...]:
    return tuple(token.token.encode()) if token.bytes is None else tuple(token.bytes)


class TurnReader:
    """Reads one streamed answer and remembers how it ended.

    Args:
        top: as for `read_chunk`.
        secret: the key, kept out of error messages.

    Attributes:
        failure: set when the stream cannot be read on; deltas returned before it still count.
        reason: why the engine ended, once it said so; TurnDone's words.
        usage: what the engine said of token counts; see `counted`.
        closed: the engine said that nothing follows.
        logprobs_seen: tokens that came with log-probabilities, thinking included.
        timings: what llama-server said last of its counts and times, where it was asked to.
        channel: the name under which thinking came, if any did.
    """

    __slots__ = (
        "_parser",
        "_secret",
        "_started",
        "_text",
        "_thinking",
        "_thought",
        "_top",
        "channel",
        "closed",
        "failure",
        "logprobs_seen",
        "reason",
        "timings",
        "usage",
    )

    def __init__(self, top: int | None = None, secret: str | None = None) -> None:
        self._parser = EventParser()
        self._top = top
        self._secret = secret
        self._started = False
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._thought: int | None = None  # tokens so far when thinking came last
        self.timings: Timings | None = None
        self.failure: OuzelError | None = None
        self.reason: Literal["stop", "length", "calls", "filter"] | None = None
        self.usage: _Usage | None = None
        self.closed = False
        self.logprobs_seen = 0
        self.channel: Literal["reasoning_content", "reasoning"] | None = None

    def feed(self, data: bytes) -> list[Piece]:
        """The deltas that these bytes complete. Raises nothing: see `failure`."""
        deltas: list[Piece] = []
        try:
            for event in self._parser.feed(data):
                self._read(event, deltas)
                if self.closed:
                    break
        except OuzelError as error:
            self.failure = error
        return deltas

    def end(self) -> list[Piece]:
        """The bytes are over: what was still to come. Sets `failure` where the answer is cut."""
        deltas: list[Piece] = []
        try:
            for event in self._parser.close():
                self._read(event, deltas)
        except OuzelError as error:
            self.failure = self.failure or error
        if self.failure is None and self.reason is None:
            self.failure = EngineDied("The engine ended its answer in the middle.")
        return deltas

    def text(self) -> str:
        """Everything the engine generated so far, thinking and calls included."""
        return "".join(self._text)

    def counted(self) -> Usage | None:
        """The engine's own counts, if it sent them; also while it goes on, where it counts every
        token. Thinking that it did not count is 0 here: see `uncounted_thinking`."""
        usage, timings = self.usage, self.timings
        if usage is not None and usage.completion_tokens is not None:
            prompt = usage.prompt_tokens_details
            cached = prompt.cached_tokens if prompt else None
            if cached is None and timings is not None:
                cached = timings.cache_n
            return Usage(
                usage.prompt_tokens, cached or 0, usage.completion_tokens, self._reasoning() or 0
            )
        if timings is None or timings.cache_n is None or not timings.predicted_n:
            return None
        read = timings.cache_n + timings.prompt_n
        return Usage(read, timings.cache_n, timings.predicted_n, self._reasoning() or 0)

    def uncounted_thinking(self) -> str:
        """Thinking whose tokens the engine did not count, empty where it did or thought nothing."""
        return "".join(self._thinking) if self._reasoning() is None else ""

    def _reasoning(self) -> int | None:
        """Tokens of thinking as the engine counted them, None where it thought and did not."""
        usage = self.usage
        if usage is not None:
            output = usage.completion_tokens_details
            if told := usage.reasoning_tokens or (output.reasoning_tokens if output else None):
                return told
        return self._thought if self._thinking else 0

    def _read(self, event: bytes, deltas: list[Piece]) -> None:
        if event == b"[DONE]":
            self.closed = True
            return
        try:
            chunk = _decode(event)
        except (ValueError, RecursionError) as error:
            # Not chained: the decoder's message may quote what the model said.
            raise EngineDied(
                f"The engine sent an event that cannot be read: {_why(error)}."
            ) from None
        if chunk.error is not None or chunk.object == "error":
            raise self._error(chunk)
        if chunk.usage is not None:
            self.usage = chunk.usage
        timings = chunk.timings
        if timings is not None:
            self.timings = timings
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.logprobs is not None and choice.logprobs.content:
            self.logprobs_seen += len(choice.logprobs.content)
        for delta in read_chunk(chunk, self._top):
            self._started = True
            if isinstance(delta, CallDelta):
                self._text += (delta.name or "", delta.arguments)
            else:
                self._text.append(delta.text)
            if isinstance(delta, ThinkingDelta):
                named = choice.delta is not None and choice.delta.reasoning_content
                self.channel = "reasoning_content" if named else "reasoning"
                self._thinking.append(delta.text)
                if timings is not None:
                    self._thought = timings.predicted_n or None
            deltas.append(delta)
        if choice.finish_reason:
            self.reason = _REASONS.get(choice.finish_reason)
            if self.reason is None:
                # vLLM says `abort` when it gives a request up, and then ends as if all were well.
                raise EngineDied(f"The engine ended its answer with '{choice.finish_reason[:40]}'.")

    def _error(self, chunk: Chunk) -> OuzelError:
        """An error in the stream: as an HTTP error before the first delta, a death after it."""
        complaint = complaint_of(
            chunk.error
            if chunk.error is not None
            else {"message": chunk.message, "code": chunk.code, "type": chunk.type}
        )
        status = complaint.status if complaint.status and complaint.status >= 400 else 500
        error = error_of(complaint, status, secret=self._secret)
        if self._started and not isinstance(error, EngineDied):
            return EngineDied(f"The engine broke its answer off. {error.message}")
        return error


def _why(error: Exception) -> str:
    """What kind of mistake, and where, without the text in which it was found."""
    return "too deep" if isinstance(error, RecursionError) else str(error)[:120]
