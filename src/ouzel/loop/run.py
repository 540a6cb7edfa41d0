"""One engine turn after another, until there is an answer.

For now an answer takes a single turn: tools bring more. Every delta becomes events through
`output`, handed to `emit` at once. It does not know who listens, nor what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from ouzel.core.contracts import Engine
from ouzel.core.errors import EngineDied, EngineError
from ouzel.core.events import Event, IncompleteReason
from ouzel.core.turns import CallDelta, TextDelta, ThinkingDelta, Turn, TurnDone, Usage
from ouzel.loop.output import Output

_INCOMPLETE: dict[str, IncompleteReason] = {
    "length": "max_output_tokens",
    "filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended when nothing failed."""

    status: Literal["completed", "incomplete"]
    usage: Usage
    incomplete: IncompleteReason | None = None


async def run(engine: Engine, turn: Turn, output: Output, emit: Callable[[Event], None]) -> Outcome:
    """Let the engine answer `turn`; every event goes to `emit` as soon as it exists.

    However it ends, what was open in `output` is closed, so that text already said is kept.
    Cancelling the task that runs this frees the engine's slot.

    Raises:
        EngineError, RequestError: as the engine raised them.
    """
    try:
        done = await _turn(engine, turn, output, emit)
    except BaseException:
        _emit_all(output.close("incomplete"), emit)
        raise
    reason = _INCOMPLETE.get(done.reason)
    if reason is None and not output.open and not output.items:
        # An empty answer is still an answer: clients expect one message.
        _emit_all(output.say(""), emit)
    _emit_all(output.close("incomplete" if reason else "completed"), emit)
    return Outcome("incomplete" if reason else "completed", done.usage, reason)


async def _turn(
    engine: Engine, turn: Turn, output: Output, emit: Callable[[Event], None]
) -> TurnDone:
    async with aclosing(engine.stream(turn)) as deltas:
        async for delta in deltas:
            match delta:
                case TextDelta(text, logprobs):
                    events = output.say(text, logprobs)
                case ThinkingDelta(text):
                    events = output.think(text)
                case CallDelta():
                    raise EngineError("The engine called a tool although none was offered.")
                case TurnDone():
                    return delta
            for event in events:
                emit(event)
    raise EngineDied("The engine ended its turn without saying so.")


def _emit_all(events: list[Event], emit: Callable[[Event], None]) -> None:
    for event in events:
        emit(event)
