"""Plays whole runs of the loop over the scripted engine, and checks what comes out of any run."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from ouzel.core.contracts import Asker, Prepared, Tool
from ouzel.core.events import (
    Delta,
    Event,
    ItemDone,
    ItemStage,
    ItemStarted,
    PartDone,
    PartStarted,
)
from ouzel.core.items import Item, Message, Text
from ouzel.core.request import HostedTool, Request
from ouzel.core.turns import EngineDelta, Halt, Turn, TurnMessage
from ouzel.engines.scripted import Reply, Say, Script, ScriptedEngine, Step
from ouzel.loop import context, guided
from ouzel.loop.budget import Clock
from ouzel.loop.output import Output
from ouzel.loop.run import Outcome, Task, run
from ouzel.loop.scene import Scene
from ouzel.loop.tally import Tally
from ouzel.loop.toolbox import open_toolbox

HELLO = Turn((TurnMessage("user", "hello there"),))


def ask(text: str = "hello there", **more) -> Request:
    """A request of the Responses API with one message."""
    return Request("responses", "m", (Message("msg_1", "user", (Text(text),)),), **more)


def script(*steps: Step, **more) -> Script:
    """A script that plays these steps every time."""
    return Script((Reply(steps),), **more)


def guided_script(*replies: Reply, **more) -> Script:
    """A script for a model that is led, does not think by itself, and has a large window."""
    values = {"tool_style": "guided", "thinks": "no", "context_window": 50_000} | more
    return Script((*replies, Reply((Say("Plain answer."),))), **values)


def chooses(name: str, times: int | None = None, last: str = "") -> Reply:
    """The decision for a tool, or for `answer`."""
    return Reply((Say(f" {name}"),), opening="^Action:$", times=times, last=last)


class FakeTime:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class TickingEngine(ScriptedEngine):
    """Plays a script; each delta takes so many seconds of a fake time."""

    def __init__(self, played: Script, clock: FakeTime, seconds: float) -> None:
        super().__init__(played)
        self._clock = clock
        self._seconds = seconds

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        async with aclosing(super().stream(turn, halt)) as deltas:
            async for delta in deltas:
                self._clock.at += self._seconds
                yield delta


@dataclass
class Played:
    """A run that was played."""

    engine: ScriptedEngine
    output: Output
    events: list[Event]
    counts: Tally = field(default_factory=Tally)
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def items(self) -> list[Item]:
        return self.output.items

    @property
    def kinds(self) -> list[str]:
        return [item.kind for item in self.items]

    @property
    def text(self) -> str:
        """All that was said to the client."""
        return "".join(item.text for item in self.items if isinstance(item, Message))

    @property
    def turns(self) -> list[Turn]:
        return list(self.engine.turns)

    @property
    def tally(self) -> dict[str, int]:
        return self.counts.counts()


def task_for(
    engine: ScriptedEngine,
    request: Request,
    *,
    tools: Iterable[Tool] = (),
    history: Iterable[Item] = (),
    clock: Clock | None = None,
    prepared: Mapping[int, Prepared] = {},
) -> Task:
    """What `Answers.prepare` makes of a request."""
    toolbox = open_toolbox(request, {tool.type: tool for tool in tools}, prepared)
    style = engine.info.tool_style if guided.able(engine.info) else "native"
    history, thinks = tuple(history), engine.info.thinks
    decision = None
    if style == "guided" and toolbox.only_code:
        decision = context.assemble(request, history, toolbox, style, thinks=thinks, decision=True)
    return Task(
        request,
        context.assemble(request, history, toolbox, style, thinks=thinks),
        "ann",
        clock or Clock(0, time.monotonic()),
        toolbox,
        style,
        context.round_of((*history, *request.input)),
        decision,
    )


async def play(
    played: Script | ScriptedEngine,
    request: Request | None = None,
    *,
    tools: Iterable[Tool] = (),
    history: Iterable[Item] = (),
    clock: Clock | None = None,
    fails: bool | None = False,
) -> Played:
    """Run the loop to its end; whatever happens, its events have to be well formed.

    Args:
        fails: it is to end with an error, which is then in the result; None lets it do either.
    """
    engine = played if isinstance(played, ScriptedEngine) else ScriptedEngine(played)
    await engine.start()
    request, tools = request or ask(), tuple(tools)
    prepared = {
        place: await tool.prepare(spec, Asker("ann", request.input))
        for place, spec in enumerate(request.tools)
        for tool in tools
        if isinstance(spec, HostedTool) and tool.type == spec.type
    }
    task = task_for(engine, request, tools=tools, history=history, clock=clock, prepared=prepared)
    result = Played(engine, Output(), [])
    try:
        result.outcome = await run(engine, task, result.output, result.counts, result.events.append)
    except Exception as error:
        if fails is False:
            raise
        result.error = error
    assert fails in (None, result.error is not None)
    check_events(result.events, result.items)
    assert engine.active == 0
    return result


async def scene_for(
    played: Script | ScriptedEngine, request: Request | None = None, clock: Clock | None = None
) -> tuple[Scene, list[Event]]:
    """A scene over a started engine, and the list into which its events go."""
    engine = played if isinstance(played, ScriptedEngine) else ScriptedEngine(played)
    await engine.start()
    events: list[Event] = []
    clock = clock or Clock(0, time.monotonic())
    return Scene(engine, request or ask(), Output(), Tally(), events.append, clock), events


@dataclass
class _Open:
    index: int
    of_model: bool
    parts: dict[str, list[str]] = field(default_factory=dict)
    part: tuple[int, str] | None = None
    texts: list[str] = field(default_factory=list)


def check_events(events: list[Event], items: list[Item]) -> None:
    """The order that `core.events` promises, and that events and items say the same."""
    opened: dict[str, _Open] = {}
    done: dict[int, Item] = {}
    begun = 0
    for event in events:
        if isinstance(event, ItemStarted):
            assert event.index == begun
            assert event.item.id not in opened
            of_model = event.item.kind in ("message", "reasoning", "function_call", "custom_call")
            if of_model:
                assert not any(each.of_model for each in opened.values()), "model items overlap"
            opened[event.item.id] = _Open(event.index, of_model)
            begun += 1
        elif isinstance(event, ItemDone):
            state = opened.pop(event.item.id)
            assert state.part is None, "an item ended with an open part"
            assert state.index == event.index
            _check_parts(event.item, state.parts)
            done[event.index] = event.item
        elif isinstance(event, PartStarted):
            state = opened[event.item_id]
            assert state.part is None, "two parts are open"
            assert state.index == event.index
            group = "summary" if event.channel == "summary" else "content"
            mine = [c for c in state.parts if (c == "summary") == (group == "summary")]
            assert event.part == sum(len(state.parts[c]) for c in mine) or (
                event.channel == "reasoning" and event.part == 0
            )
            state.part, state.texts = (event.part, event.channel), []
        elif isinstance(event, Delta):
            state = opened[event.item_id]
            assert state.part == (event.part, event.channel)
            assert state.index == event.index
            state.texts.append(event.text)
        elif isinstance(event, PartDone):
            state = opened[event.item_id]
            assert state.part == (event.part, event.channel)
            assert "".join(state.texts) == event.text
            state.parts.setdefault(event.channel, []).append(event.text)
            state.part = None
        elif isinstance(event, ItemStage):
            assert opened[event.item_id].index == event.index
    assert not opened, f"left open: {list(opened)}"
    assert [done[index] for index in range(begun)] == items
    assert len({item.id for item in items}) == len(items)


def _check_parts(item: Item, parts: dict[str, list[str]]) -> None:
    if item.kind == "message":
        assert sorted(part.text for part in item.parts) == sorted(
            [*parts.get("text", ()), *parts.get("refusal", ())]
        )
    elif item.kind == "reasoning":
        assert item.text == "".join(parts.get("reasoning", ()))
        assert list(item.summary) == parts.get("summary", [])
    elif item.kind == "function_call":
        assert parts == {"arguments": [item.arguments]}
    elif item.kind == "custom_call":
        assert parts == {"input": [item.input]}
    elif item.kind == "hosted_call":
        assert parts == {"arguments": [item.arguments]}
