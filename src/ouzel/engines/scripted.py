"""The deterministic double: an engine that plays a script.

It is how everything above the engine is tested, and how examples run without weights. A script is
a list of replies (`script` says what they are made of, and how a file holds them); the first that
fits the turn is played, step by step: text, thinking, calls, pauses, an error, a death in
mid-stream. The same requests in the same order always get the same answers. It tokenizes by
words, a token being a word with the space before it, and counts them so; it knows no real
tokenizer, template or weights, and heeds neither grammar nor schema.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Final, Literal

from ouzel.core.contracts import EngineInfo, EngineState
from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineDied,
    EngineError,
    EngineUnavailable,
    RequestError,
)
from ouzel.core.items import TokenLogprob
from ouzel.core.turns import (
    CallDelta,
    EngineDelta,
    Halt,
    Pace,
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnDone,
    Usage,
)
from ouzel.engines.pace import PaceMeter
from ouzel.engines.script import (
    CAPABILITIES,
    FAST,
    Call,
    Die,
    Fail,
    Pause,
    Reply,
    Say,
    Script,
    ScriptError,
    Step,
    Stop,
    Think,
    last_text,
    last_user_text,
    load_script,
)

__all__ = [
    "CAPABILITIES",
    "Call",
    "Die",
    "Fail",
    "Pause",
    "Reply",
    "Say",
    "Script",
    "ScriptError",
    "ScriptedEngine",
    "Step",
    "Stop",
    "Think",
    "load_script",
    "tokenize",
]

_ECHO: Final = Script()
_KEPT: Final = 256
"""Turns that are remembered: an engine double may serve for days."""

_TOKEN = re.compile(r"\s*\S+\s*$|\s*\S+|\s+$")


def tokenize(text: str) -> list[str]:
    """Split text into words, each with the white space before it; joined they are the text."""
    return _TOKEN.findall(text)


class ScriptedEngine:
    """Plays a script.

    Attributes:
        active: streams that are open, for tests that watch slots.
        cancelled: streams that were closed or cancelled before their end.
        turns: the turns that were asked for last, in order.
    """

    def __init__(self, script: Script = _ECHO) -> None:
        self._script = script
        self._played = [0] * len(script.replies)
        self._meter = PaceMeter(script.pace or FAST)
        self._created = time.time()
        self.state: EngineState = "starting"
        self.active = 0
        self.cancelled = 0
        self.turns: deque[Turn] = deque(maxlen=_KEPT)

    @property
    def info(self) -> EngineInfo:
        """See the contract."""
        return EngineInfo(
            model=self._script.model,
            context_window=self._script.context_window,
            capabilities=self._script.capabilities,
            created_at=self._created,
            detail=(("engine", "scripted"),),
            thinks=self._script.thinks,
            tool_style=self._script.tool_style,
            slots=self._script.slots,
        )

    @property
    def pace(self) -> Pace:
        """See the contract. What the script says; measured where it says so."""
        return self._script.pace or self._meter.pace

    async def start(self) -> None:
        """See the contract."""
        self.state = "ready"

    async def stop(self) -> None:
        """See the contract."""
        self.state = "stopped"

    async def count_tokens(self, turn: Turn) -> int:
        """See the contract: a token for each word, and one for each message."""
        said = [text for message in turn.messages for text in (message.thinking, message.text)]
        counted = sum(len(tokenize(text)) for text in said) + len(turn.messages)
        return counted + len(tokenize(turn.opening))

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        """See the contract."""
        if self.state != "ready":
            raise EngineUnavailable("The scripted engine is not running.")
        self.turns.append(turn)
        prompt = await self.count_tokens(turn)
        window = self._script.context_window
        if prompt > window:
            raise ContextLengthExceeded(prompt, window)
        room = min(turn.max_tokens or window, window - prompt)
        performance = _Performance(turn, prompt, room, halt or Halt())
        began = time.perf_counter()
        self.active += 1
        try:
            reply = self._find(turn)
            said = _said_already(reply, turn)
            for step in reply.steps:
                if isinstance(step, Think) and (said or turn.opening.rstrip().endswith("</think>")):
                    continue  # the thinking was closed before the turn began
                left: Step | None = step
                if said:  # goes on where the opening ends
                    said, left = _after(step, said, turn)
                async for delta in performance.play(left):
                    yield delta
                    if isinstance(delta, TurnDone):
                        return
            yield performance.done("calls" if performance.calls else "stop")
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise
        finally:
            self.active -= 1
            self._meter.decoded(performance.generated, time.perf_counter() - began)

    def _find(self, turn: Turn) -> Reply:
        for index, reply in enumerate(self._script.replies):
            left = reply.times is None or self._played[index] < reply.times
            if left and reply.fits(turn):
                self._played[index] += 1
                return reply
        raise EngineError(f"The script has no reply for this input (model {self._script.model}).")


class _Performance:
    """One turn being played: counts tokens, keeps to the limit, the halt and the stop sequences."""

    def __init__(self, turn: Turn, prompt_tokens: int, room: int, halt: Halt) -> None:
        self._turn = turn
        self._prompt_tokens = prompt_tokens
        self._room = room
        self._halt = halt
        self._spoken = 0
        self._thought = 0
        # A stop sequence may have begun in what was said: so much of it is looked at again.
        self._reach = max((len(stop) for stop in turn.sampling.stop), default=1) - 1
        self._tail = ""
        self.calls = 0

    @property
    def generated(self) -> int:
        """Tokens so far."""
        return self._spoken + self._thought

    def done(self, reason: Literal["stop", "length", "calls", "filter", "halted"]) -> TurnDone:
        return TurnDone(reason, Usage(self._prompt_tokens, 0, self.generated, self._thought))

    async def play(self, step: Step | None) -> AsyncGenerator[EngineDelta, None]:
        if self._halt.wished:
            yield self.done("halted")
            return
        match step:
            case Say(text, delay) | Think(text, delay):
                async for delta in self._utter(text, delay, isinstance(step, Think)):
                    yield delta
            case Call(name, arguments):
                self._spoken += 1 + len(tokenize(arguments))
                yield CallDelta(self.calls, id=f"call_{self.calls}", name=name)
                yield CallDelta(self.calls, arguments=arguments)
                self.calls += 1
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Fail(message, status):
                raise _failure(message, status)
            case Die(message):
                raise EngineDied(message)
            case Stop(reason):
                yield self.done(reason)

    async def _utter(
        self, text: str, delay: float, thinking: bool
    ) -> AsyncGenerator[EngineDelta, None]:
        for token in tokenize(_filled(text, self._turn)):
            if delay:
                await asyncio.sleep(delay)
            if self._halt.wished or self.generated >= self._room:
                yield self.done("halted" if self._halt.wished else "length")
                return
            for delta in self._speak(token, thinking):
                yield delta

    def _speak(self, token: str, thinking: bool) -> Iterator[EngineDelta]:
        if thinking:
            self._thought += 1
            yield ThinkingDelta(token)
            return
        self._spoken += 1
        seen, begun = self._tail + token, len(self._tail)
        found = [at for at in (seen.find(stop) for stop in self._turn.sampling.stop) if at >= 0]
        if found:
            # What was said before stays said; of this token only what precedes the stop sequence.
            rest = seen[begun : max(min(found), begun)]
            if rest:
                yield TextDelta(rest, self._logprobs(rest))
            yield self.done("stop")
            return
        self._tail = seen[-self._reach :] if self._reach else ""
        yield TextDelta(token, self._logprobs(token))

    def _logprobs(self, token: str) -> tuple[TokenLogprob, ...]:
        wanted = self._turn.sampling.top_logprobs
        if wanted is None:
            return ()
        others = [(token, -0.5)] + [(f"{token}~{rank}", -0.5 - rank) for rank in range(1, wanted)]
        top = tuple(TokenLogprob(text, value, tuple(text.encode())) for text, value in others)
        return (TokenLogprob(token, -0.5, tuple(token.encode()), top[:wanted]),)


def _filled(text: str, turn: Turn) -> str:
    """A script's text for this turn."""
    return text.replace("{last}", last_text(turn)).replace("{input}", last_user_text(turn))


def _said_already(reply: Reply, turn: Turn) -> int:
    """How many words of the reply the turn's opening ends with."""
    if not turn.opening:
        return 0
    words = [
        word
        for step in reply.steps
        if isinstance(step, Say)
        for word in tokenize(_filled(step.text, turn))
    ]
    found, text = 0, ""
    for count, word in enumerate(words, 1):
        text += word
        if len(text) > len(turn.opening):
            break
        if any(each.isalnum() for each in text) and turn.opening.endswith(text):
            found = count
    return found


def _after(step: Step, said: int, turn: Turn) -> tuple[int, Step | None]:
    """What is left of a step of which, with those that follow, so many words were said; and how
    many of those belong to later steps."""
    if not isinstance(step, Say):
        return said, None
    words = tokenize(_filled(step.text, turn))
    if said >= len(words):
        return said - len(words), None
    return 0, Say("".join(words[said:]), step.delay)


def _failure(message: str, status: int) -> Exception:
    if status == 400:
        return RequestError(message)
    if status == 503:
        return EngineUnavailable(message)
    return EngineError(message)
