"""The deterministic double: an engine that plays a script.

It is how everything above the engine is tested, and how examples run without weights. A script is
a list of replies; the first whose pattern is found in the last user message is played, step by
step: text, thinking, calls, pauses, an error, a death in mid-stream. The same request always gets
the same answer. It tokenizes by words, a token being a word with the space before it, and counts
them so; it knows no real tokenizer, template or weights.

A script in a file (TOML):

    model = "scripted"
    context_window = 4096

    [[reply]]
    match = "weather"              # a regular expression; left out, it matches everything
    steps = [
      { think = "They ask about the weather." },
      { pause = 0.2 },
      { say = "You said: {input}", delay = 0.01 },
    ]

    [[reply]]
    steps = [{ say = "word ", repeat = 50 }, { die = "killed" }]

Steps: `say`/`think` (with `repeat` and `delay` in seconds between tokens), `call` (with
`arguments`, a JSON string), `pause` (seconds), `error` (a message; with `status` 400, 500 or
503), `die` (a message), `stop` (`stop`, `length`, `filter`: ends the turn).
"""

from __future__ import annotations

import asyncio
import re
import time
import tomllib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ouzel.core.contracts import Capability, EngineInfo, EngineState
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
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnDone,
    Usage,
)

CAPABILITIES: frozenset[Capability] = frozenset({"logprobs", "seed", "stop", "penalties"})
_TOKEN = re.compile(r"\s*\S+\s*$|\s*\S+|\s+$")


class ScriptError(ValueError):
    """A script cannot be read; the message says which reply and step, and why."""


@dataclass(frozen=True, slots=True)
class Say:
    """Text for the answer; `{input}` stands for the last user message."""

    text: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Think:
    """Text for the thinking channel."""

    text: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call with these JSON arguments."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """An error that the engine reports: 400 the request's, 500 its own, 503 not available."""

    message: str
    status: int = 500


@dataclass(frozen=True, slots=True)
class Die:
    """The engine goes away in mid-stream."""

    message: str = "the scripted engine died"


@dataclass(frozen=True, slots=True)
class Stop:
    """The turn ends here for this reason."""

    reason: Literal["stop", "length", "filter"] = "stop"


Step = Say | Think | Call | Pause | Fail | Die | Stop


@dataclass(frozen=True, slots=True)
class Reply:
    """What is played when `match` is found in the last user message."""

    steps: tuple[Step, ...]
    match: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script: what the engine claims to be, and what it replies."""

    replies: tuple[Reply, ...] = (Reply((Say("You said: {input}"),)),)
    model: str = "scripted"
    context_window: int = 8192


def tokenize(text: str) -> list[str]:
    """Split text into words, each with the white space before it; joined they are the text."""
    return _TOKEN.findall(text)


class ScriptedEngine:
    """Plays a script. `active` and `cancelled` count streams, for tests that watch slots."""

    def __init__(self, script: Script = Script()) -> None:
        self._script = script
        self._replies = [(re.compile(reply.match), reply) for reply in script.replies]
        self._created = time.time()
        self.state: EngineState = "starting"
        self.active = 0
        self.cancelled = 0

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            model=self._script.model,
            context_window=self._script.context_window,
            capabilities=CAPABILITIES,
            created_at=self._created,
            detail=(("engine", "scripted"),),
        )

    async def start(self) -> None:
        self.state = "ready"

    async def stop(self) -> None:
        self.state = "stopped"

    async def count_tokens(self, turn: Turn) -> int:
        return sum(len(tokenize(message.text)) + 1 for message in turn.messages)

    async def stream(self, turn: Turn) -> AsyncGenerator[EngineDelta, None]:
        if self.state != "ready":
            raise EngineUnavailable("The scripted engine is not running.")
        prompt = await self.count_tokens(turn)
        window = self._script.context_window
        if prompt > window:
            raise ContextLengthExceeded(prompt, window)
        room = min(turn.max_tokens or window, window - prompt)
        performance = _Performance(turn, prompt, room)
        self.active += 1
        try:
            for step in self._find(turn).steps:
                async for delta in performance.play(step):
                    yield delta
                    if isinstance(delta, TurnDone):
                        return
            yield performance.done("calls" if performance.calls else "stop")
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise
        finally:
            self.active -= 1

    def _find(self, turn: Turn) -> Reply:
        said = _last_user_text(turn)
        for pattern, reply in self._replies:
            if pattern.search(said):
                return reply
        raise EngineError(f"The script has no reply for this input (model {self._script.model}).")


class _Performance:
    """One turn being played: counts tokens, keeps to the limit and to the stop sequences."""

    def __init__(self, turn: Turn, prompt_tokens: int, room: int) -> None:
        self._turn = turn
        self._prompt_tokens = prompt_tokens
        self._room = room
        self._spoken = 0
        self._thought = 0
        self._said = ""
        self.calls = 0

    def done(self, reason: Literal["stop", "length", "calls", "filter"]) -> TurnDone:
        total = self._spoken + self._thought
        return TurnDone(reason, Usage(self._prompt_tokens, 0, total, self._thought))

    async def play(self, step: Step) -> AsyncGenerator[EngineDelta, None]:
        match step:
            case Say(text, delay) | Think(text, delay):
                thinking = isinstance(step, Think)
                for token in tokenize(text.replace("{input}", _last_user_text(self._turn))):
                    if delay:
                        await asyncio.sleep(delay)
                    if self._spoken + self._thought >= self._room:
                        yield self.done("length")
                        return
                    for delta in self._speak(token, thinking):
                        yield delta
            case Call(name, arguments):
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

    def _speak(self, token: str, thinking: bool) -> Iterator[EngineDelta]:
        if thinking:
            self._thought += 1
            yield ThinkingDelta(token)
            return
        self._spoken += 1
        whole = self._said + token
        found = [at for at in (whole.find(stop) for stop in self._turn.sampling.stop) if at >= 0]
        if found:
            # What was said before stays said; of this token only what precedes the stop sequence.
            rest = whole[len(self._said) : max(min(found), len(self._said))]
            if rest:
                yield TextDelta(rest, self._logprobs(rest))
            yield self.done("stop")
            return
        self._said = whole
        yield TextDelta(token, self._logprobs(token))

    def _logprobs(self, token: str) -> tuple[TokenLogprob, ...]:
        wanted = self._turn.sampling.top_logprobs
        if wanted is None:
            return ()
        others = [(token, -0.5)] + [(f"{token}~{rank}", -0.5 - rank) for rank in range(1, wanted)]
        top = tuple(TokenLogprob(text, value, tuple(text.encode())) for text, value in others)
        return (TokenLogprob(token, -0.5, tuple(token.encode()), top[:wanted]),)


def _failure(message: str, status: int) -> Exception:
    if status == 400:
        return RequestError(message)
    if status == 503:
        return EngineUnavailable(message)
    return EngineError(message)


def _last_user_text(turn: Turn) -> str:
    return next((m.text for m in reversed(turn.messages) if m.role == "user"), "")


def load_script(path: Path) -> Script:
    """Read a script from a TOML file.

    Raises:
        ScriptError: the file cannot be read, or a reply or step in it is not understood.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScriptError(f"The script {path} cannot be read: {error}") from error
    _only(data, {"model", "context_window", "reply"}, "the script")
    replies = data.get("reply", [])
    if not isinstance(replies, list) or not replies:
        raise ScriptError("The script needs at least one [[reply]].")
    try:
        return Script(
            replies=tuple(_reply(reply, number) for number, reply in enumerate(replies, 1)),
            model=str(data.get("model", "scripted")),
            context_window=int(data.get("context_window", 8192)),
        )
    except (TypeError, ValueError, re.error) as error:
        raise ScriptError(f"The script {path} is not right: {error}") from error


def _reply(data: Mapping[str, Any], number: int) -> Reply:
    where = f"reply {number}"
    _only(data, {"match", "steps"}, where)
    pattern = str(data.get("match", ""))
    re.compile(pattern)
    steps: list[Step] = []
    for place, step in enumerate(data.get("steps", []), 1):
        steps.extend(_steps(step, f"{where}, step {place}"))
    return Reply(tuple(steps), pattern)


def _steps(data: Mapping[str, Any], where: str) -> Iterable[Step]:
    values = dict(data)
    kinds = ("say", "think", "call", "pause", "error", "die", "stop")
    kind = next((kind for kind in kinds if kind in values), None)
    match kind:
        case "say" | "think":
            _only(values, {kind, "repeat", "delay"}, where)
            text = str(values[kind]) * int(values.get("repeat", 1))
            return [(Say if kind == "say" else Think)(text, float(values.get("delay", 0)))]
        case "call":
            _only(values, {"call", "arguments"}, where)
            return [Call(str(values["call"]), str(values.get("arguments", "{}")))]
        case "pause":
            _only(values, {"pause"}, where)
            return [Pause(float(values["pause"]))]
        case "error":
            _only(values, {"error", "status"}, where)
            return [Fail(str(values["error"]), int(values.get("status", 500)))]
        case "die":
            _only(values, {"die"}, where)
            return [Die(str(values["die"]))]
        case "stop":
            _only(values, {"stop"}, where)
            if values["stop"] not in ("stop", "length", "filter"):
                raise ScriptError(f"{where}: stop is one of stop, length, filter.")
            return [Stop(values["stop"])]
    raise ScriptError(f"{where}: a step is one of {', '.join(kinds)}; got {sorted(values)}.")


def _only(data: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ScriptError(f"{where}: unknown key '{unknown[0]}', known are {sorted(known)}.")
