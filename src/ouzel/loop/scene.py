"""What all parts of the loop share during one run: the engine, the output, counts and the clock.

It opens engine turns within what the request leaves to be generated, and keeps the books. What is
said in a turn, and why it was opened, it does not know.

How tokens are counted: a *step* is everything that is generated after one prompt: the thinking,
the choice of a tool, its arguments, the answer. The engine sees these as several turns, of which
each goes on from the one before, but for the client the prompt of a step counts once. When tools
have run, their results make a new prompt, and so another step.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from ouzel.core.contracts import Engine, EngineInfo
from ouzel.core.errors import EngineDied
from ouzel.core.events import Event
from ouzel.core.request import Request
from ouzel.core.turns import EngineDelta, Halt, TextDelta, Turn, TurnDone, Usage
from ouzel.loop.budget import Clock
from ouzel.loop.output import Output
from ouzel.loop.tally import Tally

NOTHING: Final = Usage()
"""No tokens."""


class OutOfTokens(Exception):
    """The request's own limit leaves nothing to generate; ends the run as incomplete."""


class Scene:
    """One run's surroundings.

    Args:
        engine: takes the turns.
        request: what was asked.
        output: collects what is said.
        tally: counts what happens.
        emit: takes every event as soon as it exists.
        clock: knows how much time there is.
        unread: about how many tokens of the prompt the engine has not read before.
        before: tokens that the run took in an earlier process.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        output: Output,
        tally: Tally,
        emit: Callable[[Event], None],
        clock: Clock,
        unread: int = 0,
        before: Usage = NOTHING,
    ) -> None:
        self.engine = engine
        self.request = request
        self.output = output
        self.clock = clock
        self.tally = tally
        self._emit = emit
        self._unread = unread
        self._before = before
        self._step: Usage | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""
        return self.engine.info

    @property
    def usage(self) -> Usage:
        """Tokens of the whole run so far."""
        return self._before if self._step is None else self._before + self._step

    def next_step(self, unread: int = 0) -> None:
        """What follows has a prompt of its own, with about so many new tokens."""
        self._before, self._step = self.usage, None
        self._unread = unread

    def left(self) -> float:
        """Seconds for generating, once the prompt is read; infinite without a limit."""
        return max(0.0, self.clock.left() - self._unread / self.engine.pace.prefill)

    def emit(self, events: list[Event]) -> None:
        """Send events on."""
        for event in events:
            self._emit(event)

    def room(self, wanted: int | None = None) -> int | None:
        """How many tokens may be generated: `wanted`, or what the request leaves if that is less.

        Raises:
            OutOfTokens: nothing is left.
        """
        most = self.request.max_output_tokens
        if most is None:
            return wanted
        left = most - self.usage.output_tokens
        if left <= 0:
            raise OutOfTokens
        return left if wanted is None else min(wanted, left)

    async def stream(
        self, turn: Turn, halt: Halt | None = None, *, thinking: bool = False
    ) -> AsyncGenerator[EngineDelta, None]:
        """An engine turn, with its tokens counted; `max_tokens` is kept within the request's.

        Args:
            thinking: all that is generated counts as thinking, whatever the engine says.
        """
        turn = replace(turn, max_tokens=self.room(turn.max_tokens))
        async with aclosing(self.engine.stream(turn, halt)) as deltas:
            async for delta in deltas:
                self._unread = 0
                if isinstance(delta, TurnDone):
                    self._count(delta.usage, thinking)
                    yield delta
                    return
                yield delta
        raise EngineDied("The engine ended its turn without saying so.")

    async def text(
        self, turn: Turn, halt: Halt | None = None, *, thinking: bool = False
    ) -> tuple[str, TurnDone]:
        """Everything that is said as text in a short turn, and how it ended."""
        said: list[str] = []
        async with aclosing(self.stream(turn, halt, thinking=thinking)) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta):
                    said.append(delta.text)
                elif isinstance(delta, TurnDone):
                    return "".join(said), delta
        raise EngineDied("The engine ended its turn without saying so.")

    def _count(self, usage: Usage, thinking: bool) -> None:
        thought = usage.output_tokens if thinking else usage.reasoning_tokens
        step = self._step or Usage(usage.input_tokens, usage.cached_tokens)
        self._step = replace(
            step,
            output_tokens=step.output_tokens + usage.output_tokens,
            reasoning_tokens=step.reasoning_tokens + thought,
        )
