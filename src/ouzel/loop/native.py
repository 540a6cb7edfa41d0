"""One step of a model that thinks and calls tools in its own way.

Its thinking comes in a channel of its own and is kept within a budget: when that is used up, or
its time is, the turn is ended, and the model is asked again with its notes before it, to answer
without thinking on. Calls come as deltas, or as prose from servers that parse none; they are held
until they are whole and checked.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from ouzel.core.request import CustomTool, Effort
from ouzel.core.turns import (
    CallDelta,
    Halt,
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnDone,
    TurnMessage,
)
from ouzel.loop import answer_words as words
from ouzel.loop.budget import ANSWER_SHARE, thinking_tokens
from ouzel.loop.scene import Scene
from ouzel.loop.speaking import Speech
from ouzel.loop.thinking import summarise
from ouzel.loop.tool_calls import Wanted, want
from ouzel.loop.toolbox import Toolbox

TRIES: Final = 3
"""Turns that one step may take until its calls are valid and its thinking is over."""

CHARACTERS: Final = 6
"""Characters a token has at most, on the average of a long text: engines may send several tokens
in one delta, so deltas alone would count too few."""


@dataclass(slots=True)
class Step:
    """What came of a step.

    Args:
        said: the text beside the calls, or the answer.
        wanted: valid calls; none if the model has answered.
        reason: how the last turn ended.
        cut: the answer was ended in the middle, because time was up.
    """

    said: str = ""
    wanted: list[Wanted] = field(default_factory=list)
    reason: str = "stop"
    cut: bool = False


class _Limit:
    """Whether thinking has gone on for long enough."""

    def __init__(self, scene: Scene, tokens: int) -> None:
        self._clock = scene.clock
        self._tokens = tokens
        self._deltas = 0
        self._characters = 0
        self._until = scene.clock.after(scene.clock.left() * (1 - ANSWER_SHARE))

    def reached(self, text: str) -> bool:
        self._deltas += 1
        self._characters += len(text)
        spent = max(self._deltas, self._characters // CHARACTERS)
        late = self._clock.limited and self._clock.now() > self._until
        return spent >= self._tokens or late


async def step(scene: Scene, turn: Turn, toolbox: Toolbox, *, hold: bool = False) -> Step:
    """Let the model think, speak and call.

    Args:
        turn: the conversation, with the tools.
        toolbox: what may be called now.
        hold: text is not said yet, only returned.
    """
    effort: Effort = scene.request.effort or "medium"
    budget = thinking_tokens(effort, True, scene.engine.pace, scene.clock.left())
    ask = replace(
        turn,
        tools=tuple(tool for tool in turn.tools if toolbox.find(tool.name)),
        tool_mode="required" if toolbox.required else "auto" if toolbox.open else "none",
        parallel=toolbox.parallel,
        effort=effort,
    )
    notes, trouble = "", ""
    result = Step()
    for attempt in range(TRIES):
        last = attempt == TRIES - 1
        listener = _Listener(scene, toolbox, _Limit(scene, budget), hold=hold, mute=bool(notes))
        done = await listener.listen(ask, endless=last and bool(notes))
        if listener.thought and not notes:
            await summarise(scene, turn, listener.thought)
        if done.reason == "halted" and listener.overrun:
            scene.tally.add("wound_up")
            notes = (notes + listener.thought)[-4 * CHARACTERS * max(budget, 64) :]
            ask = _without_thinking(turn, ask, notes)
            budget = max(16, budget // 8)
            continue
        result = Step(listener.said, [], done.reason, listener.cut)
        trouble = listener.take_calls(result.wanted)
        if not trouble or result.wanted or last:
            break
        ask = replace(ask, messages=(*ask.messages, TurnMessage("system", trouble)))
    return result


def _without_thinking(turn: Turn, ask: Turn, notes: str) -> Turn:
    messages = (*turn.messages, TurnMessage("system", words.notes(notes)))
    return replace(ask, messages=messages, effort="none")


class _Listener:
    """Hears one turn."""

    def __init__(
        self, scene: Scene, toolbox: Toolbox, limit: _Limit, *, hold: bool, mute: bool
    ) -> None:
        self._scene = scene
        self._toolbox = toolbox
        self._limit = limit
        self._mute = mute
        names = tuple(offer.name for offer in toolbox.callable)
        self._speech = Speech(scene, names, hold=hold)
        self._thoughts: list[str] = []
        self._calls: dict[int, tuple[list[str], list[str]]] = {}
        self.overrun = False
        self.out_of_time = False

    @property
    def thought(self) -> str:
        return "".join(self._thoughts)

    @property
    def said(self) -> str:
        return self._speech.text

    @property
    def cut(self) -> bool:
        return self._speech.cut or self.out_of_time

    async def listen(self, turn: Turn, *, endless: bool) -> TurnDone:
        """Hear the turn to its end. `endless`: thinking is not ended, there is no other try."""
        halt = Halt()
        done = TurnDone("stop")
        async with aclosing(self._scene.stream(turn, halt)) as deltas:
            async for delta in deltas:
                match delta:
                    case ThinkingDelta(text):
                        over = self._think(text, endless)
                    case TextDelta():
                        thinking, text = self._speech.split(delta)
                        over = bool(thinking) and self._think(thinking, endless)
                        over = bool(text) and self._speech.hear(text) or over
                    case CallDelta():
                        over = self._more_of_a_call(delta)
                    case TurnDone():
                        done, over = delta, False
                if over:
                    halt.wished = True
        if not self.overrun:
            thinking, _ = self._speech.end()
            if thinking:
                self._think(thinking, endless)
        return done

    def _think(self, text: str, endless: bool) -> bool:
        self._thoughts.append(text)
        if not self._mute:
            self._scene.emit(self._scene.output.think(text))
        if endless:
            self.out_of_time = self._scene.clock.left() <= 0
            return self.out_of_time
        self.overrun = self._limit.reached(text)
        return self.overrun

    def _more_of_a_call(self, delta: CallDelta) -> bool:
        name, arguments = self._calls.setdefault(delta.index, ([], []))
        name.append(delta.name or "")
        arguments.append(delta.arguments)
        return False

    def take_calls(self, into: list[Wanted]) -> str:
        """Put valid calls into the list; returns what is wrong with the others."""
        calls = [("".join(name), "".join(said)) for _, (name, said) in sorted(self._calls.items())]
        for spotted in self._speech.calls:
            self._scene.tally.add("repaired_calls")
            calls.append((spotted.name, spotted.arguments))
        trouble: list[str] = []
        for name, arguments in calls:
            found = want(self._scene, self._toolbox, name, self._plain(name, arguments))
            if isinstance(found, str):
                trouble.append(found)
            else:
                into.append(found)
        if not self._toolbox.parallel:
            del into[1:]
        return " ".join(trouble)

    def _plain(self, name: str, arguments: str) -> str:
        """The input of a custom tool, which was offered as a function with one argument."""
        offer = self._toolbox.find(name)
        if offer is None or not isinstance(offer.spec, CustomTool):
            return arguments.strip() or "{}"
        try:
            value = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return arguments
        inner = value.get("input") if isinstance(value, dict) else None
        return inner if isinstance(inner, str) else arguments
