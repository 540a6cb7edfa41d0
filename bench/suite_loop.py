"""What the loop itself costs: its own time for each engine turn, and prompt tokens read again.

The time is taken with the scripted engine, which answers at once: the same requests through the
answering room and over HTTP, beside the very turns that they took, asked of the engine directly.
The prompt tokens are those that real weights had to read, as the engine counts them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.arithmetic import Aim, Row, median, quantile
from bench.asking import Asking, asking, serving
from bench.processes import ouzel
from bench.streamed import Caller
from bench.suite import Bench
from ouzel.answer import Answers
from ouzel.api.metrics import Metrics
from ouzel.core.items import CallOutput, FunctionCall, Item, Message, Text
from ouzel.core.request import FunctionTool, Request
from ouzel.core.turns import Turn
from ouzel.engines.scripted import ScriptedEngine, load_script
from ouzel.limits import AtOnce
from ouzel.store import open_store

MOST_MS = 2.0
"""Milliseconds that the loop may add to each engine turn."""

EDGE = 16
"""Tokens that are not told apart: those of the model's template around a message."""

# Two tokens of a choice, a dozen of arguments, twenty of an answer: as long as such turns are.
_SCRIPT = """
model = "bench"
tool_style = "guided"
thinks = "no"

[[reply]]
constrained = true
last = "Bergen"
opening = "Action:$"
steps = [{ say = " get_weather" }]

[[reply]]
constrained = true
opening = "get_weather"
steps = [{ say = "{ \\"city\\": \\"Bergen\\", \\"day\\": \\"today\\" }" }]

[[reply]]
constrained = true
steps = [{ say = " answer" }]

[[reply]]
steps = [{ say = "It is so, as far as anyone can tell, and was before. ", repeat = 2 }]
"""

_WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather or the forecast for a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "day": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
}
_SEARCH = {
    "name": "web_search",
    "description": "Search the web for recent news and facts that may have changed.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
        "additionalProperties": False,
    },
}
_REMINDER = {
    "name": "set_reminder",
    "description": "Set a reminder that rings at a given time.",
    "parameters": {
        "type": "object",
        "properties": {"text": {"type": "string"}, "time": {"type": "string"}},
        "required": ["text", "time"],
        "additionalProperties": False,
    },
}
_TOOLS: Any = [{"type": "function", "strict": False, **each} for each in (_WEATHER, _SEARCH)]
_OTHER_TOOLS: Any = [{"type": "function", "strict": False, **_REMINDER}]
_ARGUMENTS = '{"city": "Bergen"}'

# All different, none the start of another.
_QUESTIONS = (
    "What's the weather in Lisbon?",
    "How warm will it be in Ottawa tomorrow?",
    "Who won the election in Norway?",
    "Good morning!",
    "Is it raining in Galway right now?",
    "Write a line about autumn leaves.",
    "Any news about the Mars rover?",
    "Will it snow in Innsbruck on Sunday?",
    "Say thank you in Portuguese.",
)
_IN_TURN = 5


@dataclass(frozen=True)
class _Case:
    """A request that takes several turns.

    Args:
        items: the input, as the core has it.
        wire: the same as clients write it.
    """

    name: str
    items: tuple[Item, ...]
    wire: Any
    tools: bool = True


_ASKED = "What is the weather in Bergen?"
_CASES = (
    _Case("answer, no tools", (Message("m", "user", (Text("Why?"),)),), "Why?", tools=False),
    _Case("call of a tool", (Message("m", "user", (Text(_ASKED),)),), _ASKED),
    _Case("answer, tools offered", (Message("m", "user", (Text("Why?"),)),), "Why?"),
    _Case(
        "answer after a result",
        (
            Message("m", "user", (Text(_ASKED),)),
            FunctionCall("f", "c", "get_weather", _ARGUMENTS),
            CallOutput("o", "c", (Text("12 degrees, rain"),)),
        ),
        [
            {"role": "user", "content": _ASKED},
            {
                "type": "function_call",
                "call_id": "c",
                "name": "get_weather",
                "arguments": _ARGUMENTS,
            },
            {"type": "function_call_output", "call_id": "c", "output": "12 degrees, rain"},
        ],
    ),
)


def measure(bench: Bench) -> list[Row]:
    """Rows for the loop's time with each kind of request, and for prompt tokens read again.

    Raises:
        ServerFailed: a server did not come up.
        StreamBroken: a scripted request was not answered.
    """
    script = bench.scratch / "loop.toml"
    script.write_text(_SCRIPT)
    rows = asyncio.run(_own_time(bench, script))
    with serving(bench) as served:
        return rows + asyncio.run(_read_again(bench, f"{served.url}/v1"))


async def _own_time(bench: Bench, script: Path) -> list[Row]:
    rows: list[Row] = []
    with ouzel(bench.scratch / "scripted", "--script", str(script)) as served:
        over_http = Caller(f"{served.url}/v1")
        for case in _CASES:
            bench.tell(f"the loop's own time: {case.name}")
            rows += await _timed(bench, case, script, over_http)
    return rows


async def _timed(bench: Bench, case: _Case, script: Path, over_http: Caller) -> list[Row]:
    engine = ScriptedEngine(load_script(script))
    body: dict[str, Any] = {
        "model": "bench",
        "input": case.wire,
        "reasoning": {"effort": "none"},
        "store": False,
    }
    if case.tools:
        body["tools"] = _TOOLS
    async with _answering(engine, bench.scratch / f"{len(case.name)}.db") as answers:
        request = _request(case)

        async def inside() -> None:
            answer = await answers.open(request, "bench")
            try:
                run = await answer.whole()
            finally:
                await answer.close()
            if run.status != "completed":
                raise RuntimeError(f"{case.name}: the run is {run.status}: {run.failure}")

        engine.turns.clear()
        await inside()
        turns = list(engine.turns)

        async def direct() -> None:
            for turn in turns:
                await _play(engine, turn)

        async def http() -> None:
            await over_http.whole("/responses", body)

        times = 40 if bench.quick else 400
        bare, mine, whole = await _in_turn((direct, inside, http), times)
    return [
        _row(f"{case.name}: loop's own time for each engine turn", mine, bare, len(turns)),
        _row(f"{case.name}: the same over HTTP, all that Ouzel does", whole, bare, len(turns)),
    ]


def _row(name: str, mine: Sequence[float], bare: Sequence[float], turns: int) -> Row:
    added = [(ours - theirs) / turns for ours, theirs in zip(mine, bare, strict=True)]
    return Row(
        name,
        median(added),
        "ms",
        Aim("<=", MOST_MS),
        baseline=median(bare) / turns,
        note=f"{turns} turns; request {median(mine):.2f} ms, its turns asked directly "
        f"{median(bare):.2f} (medians); 99th percentile added {quantile(added, 0.99):.2f}",
        samples=tuple(added),
    )


async def _in_turn(works: Sequence[Callable[[], Awaitable[None]]], times: int) -> list[list[float]]:
    """Milliseconds of each, done in turn, after a tenth of the rounds to warm up."""
    warm_up = times // 10
    taken: list[list[float]] = [[] for _ in works]
    for number in range(warm_up + times):
        for work, kept in zip(works, taken, strict=True):
            began = time.perf_counter()
            await work()
            if number >= warm_up:
                kept.append((time.perf_counter() - began) * 1000)
    return taken


async def _play(engine: ScriptedEngine, turn: Turn) -> None:
    async for _ in engine.stream(turn):
        pass


def _request(case: _Case) -> Request:
    tools = (FunctionTool(**_core(each)) for each in (_WEATHER, _SEARCH))
    return Request(
        protocol="responses",
        model="bench",
        input=case.items,
        tools=tuple(tools) if case.tools else (),
        effort="none",
    )


def _core(tool: dict[str, Any]) -> dict[str, Any]:
    return {**tool, "parameters": json.dumps(tool["parameters"], separators=(",", ":"))}


@asynccontextmanager
async def _answering(engine: ScriptedEngine, database: Path) -> AsyncIterator[Answers]:
    """The answering room in this process, assembled as the server does."""
    await engine.start()
    store = open_store(database)
    try:
        yield Answers(engine, store, AtOnce(8), Metrics(engine))
    finally:
        await store.close()
        await engine.stop()


@dataclass(frozen=True)
class _Read:
    """Prompt tokens of one request: all, those from the cache, and the question's own."""

    prompt: int
    cached: int
    own: int

    @property
    def read(self) -> int:
        """Tokens that the engine had to read."""
        return self.prompt - self.cached


async def _read_again(bench: Bench, url: str) -> list[Row]:
    async with asking(url) as who:
        bench.tell("prompt tokens that are read again")
        first, *questions = _QUESTIONS
        begun = await _read(who, first, _TOOLS)
        then = [await _read(who, question, _TOOLS) for question in questions[: _IN_TURN - 1]]
        together = await asyncio.gather(
            *(_read(who, question, _TOOLS) for question in questions[_IN_TURN - 1 :])
        )
        other = await _read(who, first, _OTHER_TOOLS)
    # What a request with another tool and question has in common with those before it.
    fixed = other.cached
    beside = [each.read - each.own for each in then]
    return [
        Row(
            "first request after the start: prompt tokens read",
            begun.read,
            "",
            note=f"of {begun.prompt}; two tools and the question are new",
        ),
        _cost("first request: of the fixed prefix read", [begun], fixed, aim=False),
        _cost(f"{len(then)} more, one after the other: of the fixed prefix read", then, fixed),
        Row(
            "the same: prompt tokens read beside the question, most",
            max(beside),
            "",
            Aim("<=", EDGE),
            note=f"same tools; the model's template has some after the question, up to {EDGE}",
            samples=tuple(map(float, beside)),
        ),
        _cost(f"{len(together)} more at once: of the fixed prefix read", together, fixed),
        Row(
            "one more, another tool: prompt tokens read",
            other.read,
            "",
            note=f"of {other.prompt}; the tool and the question are new",
        ),
    ]


def _cost(what: str, reads: Sequence[_Read], fixed: int, *, aim: bool = True) -> Row:
    missing = [max(0, fixed - each.cached) for each in reads]
    shown = ", ".join(f"{each.read} of {each.prompt}" for each in reads)
    return Row(
        f"{what}, most",
        max(missing),
        "",
        Aim("<=", EDGE) if aim else None,
        note=f"of about {fixed}; up to {EDGE} are where it joins the tools; in all {shown}",
        samples=tuple(map(float, missing)),
    )


async def _read(who: Asking, question: str, tools: Any) -> _Read:
    made = await who.client.responses.create(
        model=who.model,
        input=question,
        tools=tools,
        reasoning={"effort": "none"},
        max_output_tokens=64,
        temperature=0,
        store=False,
    )
    if made.usage is None:
        raise RuntimeError(f"{question}: no usage; it ended as {made.status}")
    # Two requests that differ in nothing but the question: what is more is its own.
    asked = await who.client.responses.input_tokens.count(model=who.model, input=question)
    least = await who.client.responses.input_tokens.count(model=who.model, input="a")
    own = asked.input_tokens - least.input_tokens + 1
    return _Read(made.usage.input_tokens, made.usage.input_tokens_details.cached_tokens, own)
