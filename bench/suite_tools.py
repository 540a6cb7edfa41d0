"""Do weak weights call tools? Single calls, none, and two steps, through the public API.

Each task is asked as a client would ask it: the tools with the request, results given back until
there is an answer. Whether arguments are valid is checked here, not by what the server says.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from openai import APIError

from bench.arithmetic import Aim, Row, median, quantile
from bench.asking import Asking, asking, chosen, each, serving, share, tallies, told
from bench.load import ROOT
from bench.suite import Bench
from bench.tool_tasks import KINDS, Kind, Task, Tool, load

DATA = ROOT / "bench" / "data" / "tools_test.toml"
ROUNDS = 5
"""Requests that a task may take at most, the one with the answer included."""

NO_RESULT = '{"error": "There is nothing for these arguments."}'
"""What a call gives back that the task does not foresee."""

# Right ones of each kind, as parts of all.
_LEAST: dict[Kind, float] = {"single": 18 / 20, "none": 17 / 20, "two_step": 12 / 20}
_NAMES: dict[Kind, str] = {
    "single": "one call wanted: right tool, valid arguments",
    "none": "no call wanted: answered without one",
    "two_step": "two steps: finished right",
}
# How calls look in a model's text; in an answer they have no place.
_SYNTAX = ("Action:", "<tool_call", "<function")


@dataclass(frozen=True)
class Called:
    """One call that was made; `fault` says why its arguments are not valid."""

    id: str
    name: str
    arguments: str
    fault: str | None = None


@dataclass
class Outcome:
    """What became of one task.

    Args:
        right: it was done as its kind wants it.
        values: the wanted calls were made with the wanted values.
        faults: what went wrong, most important first.
    """

    kind: Kind
    prompt: str
    right: bool = False
    values: bool = False
    seconds: float = 0.0
    rounds: int = 0
    calls: list[Called] = field(default_factory=list)
    answer: str = ""
    faults: list[str] = field(default_factory=list)

    @property
    def invalid(self) -> int:
        """Calls whose arguments are not valid."""
        return sum(call.fault is not None for call in self.calls)

    @property
    def line(self) -> str:
        """For the log."""
        made = ", ".join(f"{call.name}({call.arguments})" for call in self.calls) or "no call"
        said = f"; said {self.answer[:100]!r}" if self.answer else ""
        why = f": {'; '.join(self.faults)}" if self.faults else ""
        verdict = "ok   " if self.right else "WRONG"
        head = f"{verdict} {self.kind} {self.seconds:.1f} s {self.prompt[:60]!r}{why}"
        return f"{head} -- {made}{said}"


def measure(bench: Bench) -> list[Row]:
    """Rows for how many tasks were done right, and what they cost.

    Raises:
        OSError: there is no such file of tasks.
        ServerFailed: the server did not come up.
    """
    by_kind = load(bench.data or DATA)
    tasks = [task for kind in KINDS for task in chosen(bench, by_kind[kind])]
    with serving(bench) as served:
        bench.tell(f"{len(tasks)} tasks through {bench.api}")
        outcomes = asyncio.run(_all(bench, f"{served.url}/v1", tasks))
        counted = tallies(served)
    return [*_rows(outcomes), _counted(counted)]


async def _all(bench: Bench, url: str, tasks: Sequence[Task]) -> list[Outcome]:
    async with asking(url) as who:
        return await each(bench, tasks, lambda task: attempt(who, task, bench.api))


async def attempt(who: Asking, task: Task, api: str = "responses") -> Outcome:
    """Ask for one task and judge what came."""
    outcome = Outcome(task.kind, task.prompt)
    talk = _Responses(who, task) if api == "responses" else _Chat(who, task)
    began = time.perf_counter()
    try:
        await _converse(task, talk, outcome)
    except APIError as error:
        outcome.faults.append(told(error))
    outcome.seconds = time.perf_counter() - began
    _judge(task, outcome)
    return outcome


async def _converse(task: Task, talk: _Talk, outcome: Outcome) -> None:
    """Ask, give results back, ask again; a single call is not followed up."""
    for _ in range(ROUNDS):
        outcome.rounds += 1
        calls = await talk.ask()
        outcome.answer = talk.text
        if talk.ended not in ("completed", "stop", "tool_calls"):
            outcome.faults.append(f"it ended with {talk.ended}")
            return
        for call in calls:
            tool = task.tool(call.name)
            fault = tool.fault(call.arguments) if tool else "there is no such tool"
            outcome.calls.append(Called(call.id, call.name, call.arguments, fault))
        if not calls or task.kind == "single":
            return
        for call in calls:
            talk.give(call, _result(task, call))
    outcome.faults.append(f"no answer after {ROUNDS} rounds")


def _result(task: Task, call: Called) -> str:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return NO_RESULT
    if not isinstance(arguments, dict):
        return NO_RESULT
    steps = (step for step in task.steps if step.matches(call.name, arguments))
    return next((step.result for step in steps), NO_RESULT)


def _judge(task: Task, outcome: Outcome) -> None:
    faults = outcome.faults
    faults.extend(f"{call.name}: {call.fault}" for call in outcome.calls if call.fault)
    read = [(call.name, json.loads(call.arguments)) for call in outcome.calls if not call.fault]
    missing = [s.call for s in task.steps if not any(s.matches(*call) for call in read)]
    outcome.values = not missing
    if task.kind == "single":
        names = {call.name for call in outcome.calls}
        if names != {task.steps[0].call}:
            faults.append(f"called {', '.join(sorted(names)) or 'nothing'}")
        outcome.right = not faults
        if missing and outcome.right:
            faults.append("other values than wanted")
        return
    if task.kind == "none" and outcome.calls:
        faults.append("called a tool")
    if missing:
        faults.append(f"not done: {', '.join(missing)}")
    if not outcome.answer.strip():
        faults.append("no answer")
    if any(mark in outcome.answer for mark in _SYNTAX):
        faults.append("the answer holds the syntax of calls")
    if not task.answered(outcome.answer):
        faults.append(f"the answer lacks {task.answer}")
    outcome.right = not faults


def _rows(outcomes: Sequence[Outcome]) -> list[Row]:
    rows: list[Row] = []
    for kind in KINDS:
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        if not mine:
            continue
        seconds = [outcome.seconds for outcome in mine]
        values = sum(outcome.values for outcome in mine)
        note = f"of {len(mine)}"
        if kind == "single":
            note += f"; {values} with the wanted values"
        elif kind == "two_step":
            note += f"; {values} made both calls"
        right = sum(outcome.right for outcome in mine)
        rows += [
            Row(_NAMES[kind], right, "", Aim(">=", share(_LEAST[kind], len(mine))), note=note),
            Row(
                f"{kind}: seconds for a task, median",
                median(seconds),
                "s",
                note=f"90 % within {quantile(seconds, 0.9):.1f} s, all within {max(seconds):.1f}",
                samples=tuple(seconds),
            ),
        ]
    calls = sum(len(outcome.calls) for outcome in outcomes)
    invalid = sum(outcome.invalid for outcome in outcomes)
    return [*rows, Row("invalid argument objects", invalid, "", Aim("<=", 0), note=f"of {calls}")]


def _counted(counted: dict[str, int]) -> Row:
    others = Counter(counted)
    calls = others.pop("calls", 0)
    said = ", ".join(f"{name} {times}" for name, times in sorted(others.items()) if times)
    return Row("calls, as the server counts them", calls, "", note=said)


class _Talk(Protocol):
    """A conversation through one of the APIs.

    Attributes:
        text: what was said last, empty where only calls were made.
        ended: how the last request ended, in the API's words.
    """

    text: str
    ended: str

    async def ask(self) -> list[Called]: ...

    def give(self, call: Called, result: str) -> None: ...


class _Responses:
    def __init__(self, who: Asking, task: Task) -> None:
        self._who = who
        self._tools: Any = [{"type": "function", **_function(tool)} for tool in task.tools]
        self._said: list[Any] = [{"role": "user", "content": task.prompt}]
        self.text = ""
        self.ended = ""

    async def ask(self) -> list[Called]:
        made = await self._who.client.responses.create(
            model=self._who.model, input=self._said, tools=self._tools, temperature=0, store=False
        )
        self._said += made.output
        self.text, self.ended = made.output_text, made.status or ""
        return [
            Called(item.call_id, item.name, item.arguments)
            for item in made.output
            if item.type == "function_call"
        ]

    def give(self, call: Called, result: str) -> None:
        self._said.append({"type": "function_call_output", "call_id": call.id, "output": result})


class _Chat:
    def __init__(self, who: Asking, task: Task) -> None:
        self._who = who
        self._tools: Any = [
            {"type": "function", "function": _function(tool)} for tool in task.tools
        ]
        self._said: list[Any] = [{"role": "user", "content": task.prompt}]
        self.text = ""
        self.ended = ""

    async def ask(self) -> list[Called]:
        made = await self._who.client.chat.completions.create(
            model=self._who.model, messages=self._said, tools=self._tools, temperature=0
        )
        choice = made.choices[0]
        self._said.append(choice.message)
        self.text, self.ended = choice.message.content or "", choice.finish_reason
        return [
            Called(call.id, call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or ()
            if call.type == "function"
        ]

    def give(self, call: Called, result: str) -> None:
        self._said.append({"role": "tool", "tool_call_id": call.id, "content": result})


def _function(tool: Tool) -> dict[str, Any]:
    # Not strict: their optional arguments are really optional.
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }
