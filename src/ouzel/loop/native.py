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

from ouzel.core.errors import EngineError
from ouzel.core.items import TokenLogprob
from ouzel.core.request import CustomTool, Effort
from ouzel.core.turns import (
    CallDelta,
    Halt,
    RefusalDelta,
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

LEAST_THINKING: Final = 64
"""Tokens of thinking that a model is given after it was told not to think."""

LAST_THINKING: Final = 1024
"""Tokens of thinking after which the last try is given up."""

CLOSED: Final = "<think>\n\n</think>\n\n"
"""What an assistant's message begins with that is not to be thought about: as the templates of
models that can be told not to think write it."""

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
        logprobs: those of a text that was not said yet.
        refused: the model declined.
    """

    said: str = ""
    wanted: list[Wanted] = field(default_factory=list)
    reason: str = "stop"
    cut: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    refused: bool = False


class _Limit:
    """Whether thinking has gone on for long enough."""

    def __init__(self, scene: Scene, tokens: int, *, last: bool) -> None:
        self._clock = scene.clock
        self._tokens = tokens
        self._deltas = 0
        self._characters = 0
        share = 1.0 if last else 1 - ANSWER_SHARE
        self._until = scene.clock.after(scene.clock.left() * share)

    def reached(self, text: str) -> bool:
        """Whether it has, with this piece of it."""
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

    Raises:
        EngineError: a call was required and the model made no valid one.
    """
    effort: Effort = scene.request.effort or "medium"
    pace, room = scene.engine.pace, scene.room()
    budget = thinking_tokens(effort, True, pace, scene.left(), room)
    asking = _Asking(turn, toolbox, effort)
    said = ""
    for attempt in range(TRIES):
        last = attempt == TRIES - 1
        if last and asking.trouble and not toolbox.required:
            asking.without_tools()
        limit = _Limit(scene, max(budget, LAST_THINKING) if last else budget, last=last)
        # Who thinks on though told not to finds the thinking closed the last time.
        closed = last and bool(asking.notes) and "opening" in scene.info.capabilities
        # What was said in a try that is given up is not said again.
        listener = _Listener(
            scene,
            turn,
            asking.toolbox,
            limit,
            hold=hold or bool(said),
            mute=bool(asking.notes),
            closed=closed,
        )
        done = await listener.listen(asking.turn(closed=closed))
        if not last and (listener.overrun or listener.only_thought(done)):
            scene.tally.add("wound_up")
            asking.wind_up(listener.thought, budget)
            budget = max(LEAST_THINKING, budget // 8)
            continue
        if done.reason == "length" or listener.out_of_time:  # a call that is cut is none
            if not hold:
                listener.say_held()
            return Step(listener.said or said, [], "length", False, listener.logprobs)
        wanted = await listener.take_calls(asking)
        said = said or listener.said
        if not wanted and toolbox.required and not asking.trouble:
            asking.trouble = words.CALL_NOW
        if wanted or not asking.trouble or last:
            break
    if toolbox.required and not wanted:
        raise EngineError("The model made no valid call of a tool, although one was required.")
    if listener.said not in ("", said) and not (
        hold or wanted
    ):  # it was held, as something was said before
        scene.emit(scene.output.say(listener.said, listener.logprobs))
        said += listener.said
    cut = listener.cut or listener.overrun
    return Step(said, wanted, done.reason, cut, listener.logprobs, listener.refused)


class _Asking:
    """What the model is asked, from one try to the next."""

    def __init__(self, turn: Turn, toolbox: Toolbox, effort: Effort) -> None:
        self._turn = turn
        self._effort: Effort = effort
        self.toolbox = toolbox
        self.notes = ""
        self.trouble = ""

    def turn(self, *, closed: bool = False) -> Turn:
        """The turn of the next try. `closed`: the thinking is over before it begins."""
        messages = self._turn.messages
        if self.trouble:
            messages = (*messages, TurnMessage("system", self.trouble))
        if self.notes:
            messages = (*messages, TurnMessage("system", words.notes(self.notes)))
        box = self.toolbox
        return replace(
            self._turn,
            opening=CLOSED if closed else "",
            messages=messages,
            tools=tuple(tool for tool in self._turn.tools if box.find(tool.name)),
            tool_mode="required" if box.required else "auto" if box.open else "none",
            parallel=box.parallel,
            effort="none" if self.notes else self._effort,
        )

    def wind_up(self, thought: str, budget: int) -> None:
        """From now on answer from what was thought: its end, where it is long."""
        self.notes = (self.notes + thought)[-CHARACTERS * max(budget, LEAST_THINKING) :]

    def without_tools(self) -> None:
        """From now on only answer."""
        self.toolbox = self.toolbox.shut()
        self.trouble = words.NO_TOOLS


class _Listener:
    """Hears one turn.

    Attributes:
        overrun: it was ended because the thinking went on for too long.
    """

    def __init__(
        self,
        scene: Scene,
        turn: Turn,
        toolbox: Toolbox,
        limit: _Limit,
        *,
        hold: bool,
        mute: bool,
        closed: bool,
    ) -> None:
        self._scene = scene
        self._turn = turn
        self._toolbox = toolbox
        self._limit = limit
        self._mute = mute
        names = tuple(offer.name for offer in toolbox.callable)
        self._speech = Speech(scene, names, hold=hold, thinks="no" if closed else None)
        self._thoughts: list[str] = []
        self._sums_up = not mute and scene.request.summary is not None
        self._holds = hold
        self._calls: dict[tuple[int, int], tuple[list[str], list[str]]] = {}
        self._ids: dict[int, list[str]] = {}
        self.overrun = False
        self.out_of_time = False

    @property
    def thought(self) -> str:
        """Everything that was thought."""
        return "".join(self._thoughts)

    @property
    def said(self) -> str:
        """Everything that was said."""
        return self._speech.text

    @property
    def refused(self) -> bool:
        """Whether the model declined."""
        return self._speech.refused

    @property
    def cut(self) -> bool:
        """Whether what was said ends in the middle."""
        return self._speech.cut

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Those of the text, where it was held."""
        return tuple(self._speech.logprobs)

    def only_thought(self, done: TurnDone) -> bool:
        """Whether the turn ended by itself after the thinking, with nothing said or called."""
        nothing = not (self.said.strip() or self._calls or self._speech.calls or self.refused)
        return done.reason == "stop" and nothing and bool(self.thought)

    async def listen(self, turn: Turn) -> TurnDone:
        """Hear the turn to its end."""
        halt, done = Halt(), TurnDone("stop")
        async with aclosing(self._scene.stream(turn, halt)) as deltas:
            async for delta in deltas:
                match delta:
                    case ThinkingDelta(text):
                        over = self._think(text)
                    case TextDelta():
                        thinking, text = self._speech.split(delta)
                        over = bool(thinking) and self._think(thinking)
                        if text:
                            over = self._speech.hear(text) or over
                    case RefusalDelta(text):
                        self._speech.refuse(text)
                        over = False
                    case CallDelta():
                        over = self._more_of_a_call(delta)
                    case TurnDone():
                        done, over = delta, False
                if over:
                    halt.wished = True
        if not self.overrun:
            self._conclude()
        if self._sums_up and self._thoughts:
            await summarise(self._scene, self._turn, self.thought)
            if not self._holds:
                self.say_held()
        return done

    def say_held(self) -> None:
        """Say what was held until now."""
        self._speech.release()

    def _conclude(self) -> None:
        thinking = self._speech.end()
        if thinking:
            self._think(thinking)
        silent = not self._speech.text and not self._calls
        if self._mute and silent and self._thoughts and self._scene.info.thinks == "open":
            # Told not to think, it did not: a template that closes the thinking in the prompt
            # lets the answer look like it.
            self._speech.give_back(self.thought)

    def _think(self, text: str) -> bool:
        self._thoughts.append(text)
        # The summary belongs to the thinking and is made when the turn is over: it takes the
        # engine's time. What is said meanwhile has to wait for it.
        self._speech.hold = self._speech.hold or self._sums_up
        if not self._mute:
            self._scene.emit(self._scene.output.think(text))
        self.overrun = self._limit.reached(text)
        return self.overrun

    def _more_of_a_call(self, delta: CallDelta) -> bool:
        if not self._toolbox.offers:
            raise EngineError("The engine called a tool although none was offered.")
        ids = self._ids.setdefault(delta.index, [])
        if delta.id and delta.name and delta.id not in ids:
            # Some servers number all their calls 0: one with a new id is another.
            ids.append(delta.id)
        name, arguments = self._calls.setdefault((delta.index, len(ids)), ([], []))
        name.append(delta.name or "")
        arguments.append(delta.arguments)
        self.out_of_time = self._scene.clock.left() <= 0
        return self.out_of_time

    async def take_calls(self, asking: _Asking) -> list[Wanted]:
        """The valid calls; what is wrong with others goes to `asking`."""
        calls = [("".join(name), "".join(said)) for _, (name, said) in sorted(self._calls.items())]
        calls += [(spotted.name, spotted.arguments) for spotted in self._speech.calls]
        wanted: list[Wanted] = []
        trouble: list[str] = []
        for name, arguments in calls:
            found = await want(self._scene, self._toolbox, name, self._plain(name, arguments))
            if isinstance(found, str):
                trouble.append(found)
            else:
                wanted.append(found)
        if self._speech.calls and wanted:
            self._scene.tally.add("repaired_calls")
        asking.trouble = " ".join(trouble)
        return wanted if self._toolbox.parallel else wanted[:1]

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
