"""One small question to an engine's server, and what came of it: the hands of `upstream_probe`.

`ask` wants a whole answer, `hear` a streamed one that may be left early. Neither tries anything
twice, and neither knows what the question was good for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ouzel.core.errors import EngineDied, EngineError, RequestError
from ouzel.core.turns import CallDelta, TextDelta, ThinkingDelta, Usage
from ouzel.engines.pace import PaceMeter, Stopwatch
from ouzel.engines.upstream_client import Client, Reply
from ouzel.engines.upstream_failures import Overdue, read_error
from ouzel.engines.wire import Timings, TurnReader


@dataclass(slots=True)
class Heard:
    """What an engine said.

    Args:
        call: the name of the first call.
        times_itself: it sent times with its tokens.
        counts_as_it_goes: it sent counts before the end.
        channel: the name under which thinking came.
    """

    text: str = ""
    thinking: str = ""
    call: str = ""
    logprobs: bool = False
    times_itself: bool = False
    counts_as_it_goes: bool = False
    channel: Literal["reasoning_content", "reasoning"] | None = None


Until = Callable[[Heard], bool]
"""Says when enough was heard."""


async def ask(client: Client, body: dict[str, object], within: float) -> Heard | None:
    """A whole answer; None where the request is refused.

    Args:
        within: seconds for all of it.

    Raises:
        OuzelError: as the server's status says.
    """
    reply = await client.call("/v1/chat/completions", body, within=within)
    if reply.status == 200:
        return _answer(reply)
    error = read_error(reply.status, reply.body, secret=client.secret)
    if isinstance(error, RequestError):
        return None
    raise error


async def hear(
    client: Client,
    body: dict[str, object],
    within: float,
    meter: PaceMeter,
    until: Until | None = None,
    *,
    strict: bool = False,
) -> Heard | None:
    """A streamed answer; None where the request is refused, or the server fails over it.

    Args:
        within: seconds for all of it.
        meter: is told how fast it came.
        until: leave when it says so.
        strict: what a server refuses or fails over is raised.

    Raises:
        EngineError: the server cannot be asked now.
        RequestError: it refuses, and `strict`.
    """
    reader = TurnReader(None, client.secret)
    watch = Stopwatch()
    heard = Heard()
    try:
        async with asyncio.timeout(within):
            await _listen(client, body, reader, heard, watch, until)
    except TimeoutError:
        raise Overdue(f"The engine did not end a tiny answer within {within:g} s.") from None
    except (RequestError, EngineDied):
        if strict:
            raise
        return None
    tell_pace(meter, watch, reader.counted(), reader.timings)
    return heard


async def _listen(
    client: Client,
    body: dict[str, object],
    reader: TurnReader,
    heard: Heard,
    watch: Stopwatch,
    until: Until | None,
) -> None:
    exchange = await client.exchange(body)
    try:
        while not reader.closed and reader.failure is None:
            data = await exchange.read()
            for delta in reader.feed(data) if data else reader.end():
                watch.heard()
                match delta:
                    case TextDelta(text):
                        heard.text += text
                    case ThinkingDelta(text):
                        heard.thinking += text
                    case CallDelta(_, _, name):
                        heard.call = heard.call or name or ""
            exchange.moved()
            heard.channel = reader.channel
            if reader.reason is None:
                heard.counts_as_it_goes |= reader.usage is not None
                heard.times_itself |= reader.timings is not None
            if not data or (until is not None and until(heard)):
                break
    finally:
        exchange.close()
    if reader.failure is not None:
        raise reader.failure


def tell_pace(
    meter: PaceMeter, watch: Stopwatch, usage: Usage | None, timings: Timings | None
) -> None:
    """Pass on how fast a turn was: as the engine itself timed it, else as it was seen."""
    if timings is not None and timings.cache_n is not None:
        # The first token's time is the prompt's.
        meter.prefilled(timings.prompt_n, timings.prompt_ms / 1000)
        meter.decoded(timings.predicted_n - 1, timings.predicted_ms / 1000)
    elif usage is not None:
        watch.tell(meter, usage.input_tokens - usage.cached_tokens, usage.output_tokens)


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Logprobs(msgspec.Struct):
    content: list[Any] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def _answer(reply: Reply) -> Heard:
    try:
        choice = msgspec.json.decode(reply.body, type=_Completion).choices[0]
    except (ValueError, RecursionError, IndexError):
        raise EngineError(
            "The engine's answer is no chat completion: is engine_url right?"
        ) from None
    said = choice.message
    return Heard(
        said.content or "",
        said.reasoning_content or said.reasoning or "",
        logprobs=bool(choice.logprobs and choice.logprobs.content),
    )
