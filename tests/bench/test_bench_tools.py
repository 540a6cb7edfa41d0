"""What counts as a task done right, and that the data for it is as its head says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.asking import Asking
from bench.load import ROOT
from bench.processes import ouzel
from bench.suite_tools import DATA, Outcome, attempt
from bench.tool_tasks import KINDS, Step, Task, Tool, load
from openai import AsyncOpenAI

FIND = Tool(
    "find_customer",
    "Find a customer.",
    {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
)
OPEN = Tool(
    "create_ticket",
    "Open a ticket.",
    {
        "type": "object",
        "properties": {"customer": {"type": "string"}, "priority": {"type": "integer"}},
        "required": ["customer"],
    },
)
TWO_STEPS = Task(
    "two_step",
    "Find Petra and open a ticket.",
    (FIND, OPEN),
    (
        Step("find_customer", {"query": "petra"}, '{"id": "C-7"}'),
        Step("create_ticket", {"customer": "c-7"}, '{"ticket": "T-1"}'),
    ),
    (["T-1", "ticket 1"],),
)
NONE = Task("none", "Hello!", (FIND, OPEN))
SINGLE = Task(
    "single", "Look up Petra.", (FIND, OPEN), (Step("find_customer", {"query": "Petra"}),)
)


@pytest.mark.parametrize("name", ["tools_dev.toml", "tools_test.toml"])
def test_the_tasks_are_whole(name: str) -> None:
    by_kind = load(ROOT / "bench" / "data" / name)
    assert [len(by_kind[kind]) for kind in KINDS] == [20, 20, 20]
    for kind, tasks in by_kind.items():
        for task in tasks:
            assert 3 <= len(task.tools) <= 6, task.prompt
            assert len(task.steps) == {"single": 1, "none": 0, "two_step": 2}[kind]
            for step in task.steps:
                tool = task.tool(step.call)
                assert tool is not None, task.prompt
                assert set(step.arguments) <= set(tool.parameters["properties"])


@pytest.mark.parametrize(
    ("wanted", "got", "held"),
    [
        ("oslo", "Oslo, Norway", True),
        ("oslo", "Bergen", False),
        (["a", "b"], "xbx", True),
        (["a", "b"], "x", False),
        (90, 90.0, True),
        (90, "90", False),
        (90, 91, False),
        (1, True, False),
        (True, True, True),
        ("ann@", ["bo@b.example", "ann@a.example"], True),
        ("7", 7, True),
    ],
)
def test_values(wanted: object, got: object, held: bool) -> None:
    assert Step("f", {"x": wanted}).matches("f", {"x": got}) is held


def test_another_tool_or_a_missing_argument_does_not_match() -> None:
    step = Step("f", {"x": "1"})
    assert not step.matches("g", {"x": "1"})
    assert not step.matches("f", {"y": "1"})


def test_answers_ignore_case_and_thousands_commas() -> None:
    task = Task("two_step", "", (), (), ("Total", ["12500", "twelve"]))
    assert task.answered("the total is 12,500 euros")
    assert task.answered("TOTAL: Twelve")
    assert not task.answered("the total is 1,2500")
    assert not task.answered("12500")


# The server plays calls and answers from a script: right, wrong and broken ones.

_SCRIPT = """
model = "bench"
tool_style = "native"
"""


def _reply(match: str, last: str, *steps: str) -> str:
    return f"[[reply]]\nmatch = '{match}'\nlast = '{last}'\nsteps = [{', '.join(steps)}]\n"


def _call(name: str, **arguments: object) -> str:
    return f"{{ call = '{name}', arguments = '{json.dumps(arguments)}' }}"


def _say(text: str) -> str:
    return f"{{ say = '{text}' }}"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("scripted")
    right = _call("find_customer", query="Petra")
    (home / "script.toml").write_text(
        _SCRIPT
        + _reply("right", "right", right)
        + _reply("right", "C-7", _call("create_ticket", customer="C-7", priority=1))
        + _reply("right", "T-1", _say("Ticket T-1 is open."))
        + _reply("guess", "guess", _call("create_ticket", customer="Petra"))
        + _reply("guess", "error", _say("I opened ticket 1."))
        + _reply("forever", "", right)
        + _reply("wrong", "", _call("create_ticket", customer="Petra"))
        + _reply("broken", "", "{ error = 'no' }")
        + _reply("syntax", "", _say("Action: find_customer"))
        + _reply("", "", _say("Hello to you."))
    )
    with ouzel(home / "home", "--script", str(home / "script.toml")) as served:
        yield f"{served.url}/v1"


async def _attempt(url: str, task: Task, prompt: str, api: str) -> Outcome:
    asked = Task(task.kind, prompt, task.tools, task.steps, task.answer)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        return await attempt(Asking(client, "bench"), asked, api)


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_what_is_done_right(scripted: str, api: str) -> None:
    done = await _attempt(scripted, TWO_STEPS, "right", api)
    assert done.faults == []
    assert (done.right, done.rounds, done.invalid, len(done.calls)) == (True, 3, 0, 2)
    single = await _attempt(scripted, SINGLE, "right", api)
    assert (single.right, single.values, single.rounds) == (True, True, 1)
    none = await _attempt(scripted, NONE, "hello", api)
    assert (none.right, none.answer) == (True, "Hello to you.")


@pytest.mark.parametrize(
    ("task", "prompt", "why"),
    [
        (TWO_STEPS, "guess", "not done: find_customer, create_ticket"),
        (TWO_STEPS, "forever", "no answer after 5 rounds"),
        (TWO_STEPS, "broken", "status 500"),
        (SINGLE, "wrong", "called create_ticket"),
        (SINGLE, "hello", "called nothing"),
        (NONE, "wrong", "called a tool"),
        (NONE, "syntax", "syntax of calls"),
    ],
)
@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_what_is_not(scripted: str, task: Task, prompt: str, why: str, api: str) -> None:
    done = await _attempt(scripted, task, prompt, api)
    assert not done.right
    assert why in "; ".join(done.faults)
    assert "WRONG" in done.line


def test_arguments_are_checked_here_too() -> None:
    assert OPEN.fault('{"customer": "C-7", "priority": 1}') is None
    assert "priority" in (OPEN.fault('{"customer": "C-7", "priority": "high"}') or "")
    assert "customer" in (OPEN.fault("{}") or "")
    assert OPEN.fault("C-7") is not None


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert DATA.exists()
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.toml")
