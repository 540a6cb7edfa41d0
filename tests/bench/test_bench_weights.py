"""A few cases of each table on the default weights, so that no change breaks them unseen.

Cases are those that do not lie at an edge: the tables themselves say how many of all are right.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from bench.asking import READY_WITHIN, Asking, asking
from bench.processes import ouzel

from bench import suite_deadline, suite_structured, suite_tools, tool_tasks

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]

TASKS = tool_tasks.load(suite_tools.DATA.with_name("tools_dev.toml"))
STRUCTURED = {case.name: case for case in suite_structured.load(suite_structured.DATA)}
QUESTIONS = suite_deadline.load(suite_deadline.DATA, 15)


@pytest.fixture(scope="module")
def url(default_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The default weights, served."""
    home = tmp_path_factory.mktemp("cases") / "home"
    with ouzel(home, ready_within=READY_WITHIN) as served:
        yield f"{served.url}/v1"


@pytest.fixture
async def who(url: str) -> AsyncIterator[Asking]:
    async with asking(url) as who:
        yield who


@pytest.mark.parametrize(
    ("kind", "number", "api"),
    [
        ("single", 0, "responses"),
        ("single", 1, "chat"),
        ("single", 2, "responses"),
        ("none", 0, "chat"),
        ("none", 1, "responses"),
        ("none", 2, "chat"),
        ("two_step", 0, "responses"),
        ("two_step", 3, "chat"),
    ],
)
async def test_tools(who: Asking, kind: tool_tasks.Kind, number: int, api: str) -> None:
    outcome = await suite_tools.attempt(who, TASKS[kind][number], api)
    assert outcome.right, outcome.line
    assert outcome.invalid == 0


@pytest.mark.parametrize("name", ["union-shape", "tree", "pattern-plate", "tuple", "object-game"])
async def test_structured_answers(who: Asking, name: str) -> None:
    outcome = await suite_structured.attempt(who, STRUCTURED[name])
    assert outcome.valid, outcome.line


@pytest.mark.parametrize("number", [2, 12])
async def test_a_whole_answer_within_15_seconds(who: Asking, number: int) -> None:
    outcome = await suite_deadline.attempt(who, QUESTIONS[number])
    assert outcome.whole, outcome.line
    assert outcome.in_time, outcome.line
