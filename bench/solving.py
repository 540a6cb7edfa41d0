"""Word problems solved over the API, each in several ways; what became of each is kept at once.

A run takes an hour or two, so one that was interrupted goes on where it stopped. Which ways there
are, and what is to be learnt from them, the suites say.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from openai import APIError

from bench.arithmetic import Row, median
from bench.asking import Asking, asking, chosen, each, serving, told
from bench.gsm8k import NoProblems, Problem, last_number, load
from bench.machine import commit
from bench.suite import Bench

_ANSWERED = ("completed", "incomplete")
HEADER = "x-answer-within"
"""Set to 0: several problems under way at once slow each other down, and a deadline would then
decide instead."""

MOST_TOKENS = 3000
"""Tokens after which an answer is given up: some problems make weak models go on without end."""

ASK = "\nEnd your answer with the result as a number on a line of its own."


@dataclass(frozen=True)
class Solved:
    """What became of one problem, solved in one way.

    Args:
        way: in which it was solved.
        calls: of hosted tools.
        said: the number that was taken from the answer, None if there was none.
        tokens, thought: that were generated in all, and of them for thinking.
        ended: `completed`, or what else the request ended with.
        commit: that was measured.
    """

    model: str
    way: str
    id: str
    wanted: str
    said: str | None
    right: bool
    tokens: int
    thought: int
    calls: int
    seconds: float
    ended: str
    text: str
    commit: str

    @property
    def line(self) -> str:
        """For the log."""
        verdict = "right" if self.right else "wrong"
        counts = f"{self.tokens} tokens, {self.thought} of them thinking, {self.calls} calls"
        end = "" if self.ended == "completed" else f", ended with {self.ended}"
        return (
            f"{verdict} {self.way} {self.id}: {self.said}, wanted {self.wanted}; {counts}, "
            f"{self.seconds:.1f} s{end}"
        )


def solve(
    bench: Bench,
    ways: Mapping[str, Mapping[str, Any]],
    most: int,
    place: Path,
    at_once: int,
    flags: Sequence[str] = (),
) -> list[Solved]:
    """Solve the problems that the bench was told to, each in every way.

    Args:
        ways: parameters of the request, by the way's name.
        most: problems, where the bench was told no number.
        place: file in which each is kept.
        at_once: under way together, unless the bench was told another number.
        flags: of `ouzel serve`.

    Raises:
        NoProblems: there is no file of problems; says how to get one.
        ServerFailed: the server did not come up.
    """
    problems = chosen(bench, load(bench.data))
    if bench.limit is None:
        problems = problems[:most]
    if not problems:
        raise NoProblems("There are no problems that many lines into the file.")
    place.parent.mkdir(parents=True, exist_ok=True)
    with serving(bench, *flags) as served:
        solved = asyncio.run(_all(bench, f"{served.url}/v1", problems, ways, place, at_once))
    bench.log(f"Each problem is kept in {place}")
    return solved


def kept(place: Path, model: str) -> dict[tuple[str, str], Solved]:
    """What earlier runs wrote down, by way and problem.

    Left out: a last line that was cut short, and requests that failed, which are made again.
    """
    if not place.exists():
        return {}
    found: dict[tuple[str, str], Solved] = {}
    for line in place.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            each = Solved(**json.loads(line))
            if each.model == model and each.ended in _ANSWERED:
                found[each.way, each.id] = each
    return found


async def _all(
    bench: Bench,
    url: str,
    problems: Sequence[Problem],
    ways: Mapping[str, Mapping[str, Any]],
    place: Path,
    at_once: int,
) -> list[Solved]:
    async with asking(url) as who:
        done = kept(place, who.model)
        # Way by way within a problem, so that an interrupted run compares like with like.
        pairs = list(product(problems, ways))
        open_ = [(problem, way) for problem, way in pairs if (way, problem.id) not in done]
        bench.tell(f"{len(open_)} of {len(pairs)} to solve")
        if len(open_) < len(pairs):
            bench.log(f"{len(pairs) - len(open_)} are taken from {place}; delete it to start anew")

        async def work(pair: tuple[Problem, str]) -> Solved:
            problem, way = pair
            solved = await attempt(who, problem, way, ways[way])
            write(place, solved)
            return solved

        for solved in await each(bench, open_, work, at_once):
            done[solved.way, solved.id] = solved
        return [done[way, problem.id] for problem, way in pairs]


def write(place: Path, solved: Solved) -> None:
    """Append one line, on a line of its own even if the last run died within one."""
    with place.open("a+", encoding="utf-8") as file:
        size = file.tell()
        if size:
            with place.open("rb") as read:
                read.seek(-1, 2)
                if read.read(1) != b"\n":
                    file.truncate(_whole(place))
        file.write(json.dumps(asdict(solved), ensure_ascii=False) + "\n")


def _whole(place: Path) -> int:
    """Bytes up to the end of the last whole line."""
    return place.read_bytes().rfind(b"\n") + 1


async def attempt(who: Asking, problem: Problem, way: str, asked: Mapping[str, Any]) -> Solved:
    """Ask one problem in one way and see whether its number comes out."""
    tokens = thought = calls = 0
    text = ""
    began = time.perf_counter()
    try:
        made = await who.client.responses.create(
            model=who.model,
            input=problem.question + ASK,
            temperature=0,
            store=False,
            max_output_tokens=MOST_TOKENS,
            extra_headers={HEADER: "0"},
            **asked,
        )
        text, ended = made.output_text, made.status or ""
        calls = sum(item.type.endswith("_call") for item in made.output)
        if made.usage is not None:
            tokens = made.usage.output_tokens
            thought = made.usage.output_tokens_details.reasoning_tokens
    except APIError as error:
        ended = told(error)
    seconds = time.perf_counter() - began
    said = last_number(text)
    return Solved(
        who.model,
        way,
        problem.id,
        str(problem.answer),
        None if said is None else str(said),
        said == problem.answer,
        tokens,
        thought,
        calls,
        seconds,
        ended,
        text,
        commit(),
    )


def rows(name: str, solved: Sequence[Solved]) -> list[Row]:
    """How many were right, and what they took.

    Args:
        name: how the way is called in the table.
        solved: in this way.
    """
    right = sum(each.right for each in solved)
    broken = sum(each.ended != "completed" for each in solved)
    seconds = [each.seconds for each in solved]
    note = (
        f"of {len(solved)} ({100 * right / len(solved):.0f} %); each on average "
        f"{_mean([each.tokens for each in solved]):.0f} tokens, "
        f"{_mean([each.thought for each in solved]):.0f} of them thinking"
    )
    if calls := sum(each.calls for each in solved):
        note += f"; {calls} calls"
    if broken:
        note += f"; {broken} not completed"
    commits = sorted({each.commit for each in solved})
    if len(commits) > 1:
        note += f"; of commits {', '.join(commits)}"
    return [
        Row(f"{name}: right", right, "", note=note),
        Row(
            f"{name}: seconds each, mean",
            _mean(seconds),
            "s",
            note=f"median {median(seconds):.1f}, slowest {max(seconds):.1f}",
            samples=tuple(seconds),
        ),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
