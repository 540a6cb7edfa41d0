"""What does thinking bring? The same word problems at each effort: right ones, tokens, seconds.

A run takes an hour or two, so what became of each problem is written down at once, and a run that
was interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from openai import APIError

from bench.arithmetic import Row, median
from bench.asking import Asking, asking, chosen, each, serving, told
from bench.gsm8k import NoProblems, Problem, last_number, load
from bench.load import ROOT
from bench.machine import commit
from bench.suite import Bench

EFFORTS = ("none", "low", "medium", "high")
PROBLEMS = 60
AT_ONCE = 2
KEPT = ROOT / "bench" / "results" / "effort.jsonl"
_ANSWERED = ("completed", "incomplete")
HEADER = "x-answer-within"
"""Set to 0: several problems under way at once slow each other down, and a deadline would then
decide instead of the effort."""

ASK = "\nEnd your answer with the result as a number on a line of its own."


@dataclass(frozen=True)
class Solved:
    """What became of one problem at one effort.

    Args:
        said: the number that was taken from the answer, None if there was none.
        tokens, thought: that were generated in all, and of them for thinking.
        ended: `completed`, or what else the request ended with.
        commit: that was measured.
    """

    model: str
    effort: str
    id: str
    wanted: str
    said: str | None
    right: bool
    tokens: int
    thought: int
    seconds: float
    ended: str
    text: str
    commit: str

    @property
    def line(self) -> str:
        """For the log."""
        verdict = "right" if self.right else "wrong"
        counts = f"{self.tokens} tokens, {self.thought} of them thinking"
        end = "" if self.ended == "completed" else f", ended with {self.ended}"
        return (
            f"{verdict} {self.effort} {self.id}: {self.said}, wanted {self.wanted}; {counts}, "
            f"{self.seconds:.1f} s{end}"
        )


def measure(bench: Bench) -> list[Row]:
    """Rows for each effort.

    Raises:
        NoProblems: there is no file of problems; says how to get one.
        ServerFailed: the server did not come up.
    """
    problems = chosen(bench, load(bench.data))
    if bench.limit is None:
        problems = problems[:PROBLEMS]
    if not problems:
        raise NoProblems("There are no problems that many lines into the file.")
    place = bench.kept or KEPT
    place.parent.mkdir(parents=True, exist_ok=True)
    with serving(bench) as served:
        solved = asyncio.run(_all(bench, f"{served.url}/v1", problems, place))
    bench.log(f"Each problem is kept in {place}")
    return [row for effort in EFFORTS for row in _rows(effort, solved)]


def kept(place: Path, model: str) -> dict[tuple[str, str], Solved]:
    """What earlier runs wrote down, by effort and problem.

    Left out: a last line that was cut short, and requests that failed, which are made again.
    """
    if not place.exists():
        return {}
    found: dict[tuple[str, str], Solved] = {}
    for line in place.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            each = Solved(**json.loads(line))
            if each.model == model and each.ended in _ANSWERED:
                found[each.effort, each.id] = each
    return found


async def _all(bench: Bench, url: str, problems: Sequence[Problem], place: Path) -> list[Solved]:
    async with asking(url) as who:
        done = kept(place, who.model)
        # Effort by effort within a problem, so that an interrupted run compares like with like.
        pairs = [(problem, effort) for problem, effort in product(problems, EFFORTS)]
        open_ = [(problem, effort) for problem, effort in pairs if (effort, problem.id) not in done]
        bench.tell(f"{len(open_)} of {len(pairs)} to solve")
        if len(open_) < len(pairs):
            bench.log(f"{len(pairs) - len(open_)} are taken from {place}; delete it to start anew")

        async def work(pair: tuple[Problem, str]) -> Solved:
            solved = await attempt(who, *pair)
            write(place, solved)
            return solved

        for solved in await each(bench, open_, work, AT_ONCE):
            done[solved.effort, solved.id] = solved
        return [done[effort, problem.id] for problem, effort in pairs]


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


async def attempt(who: Asking, problem: Problem, effort: str) -> Solved:
    """Ask one problem and see whether its number comes out."""
    tokens = thought = 0
    text = ""
    began = time.perf_counter()
    try:
        made = await who.client.responses.create(
            model=who.model,
            input=problem.question + ASK,
            reasoning={"effort": effort},
            temperature=0,
            store=False,
            extra_headers={HEADER: "0"},
        )
        text, ended = made.output_text, made.status or ""
        if made.usage is not None:
            tokens = made.usage.output_tokens
            thought = made.usage.output_tokens_details.reasoning_tokens
    except APIError as error:
        ended = told(error)
    seconds = time.perf_counter() - began
    said = last_number(text)
    return Solved(
        who.model,
        effort,
        problem.id,
        str(problem.answer),
        None if said is None else str(said),
        said == problem.answer,
        tokens,
        thought,
        seconds,
        ended,
        text,
        commit(),
    )


def _rows(effort: str, solved: Sequence[Solved]) -> list[Row]:
    mine = [each for each in solved if each.effort == effort]
    right = sum(each.right for each in mine)
    broken = sum(each.ended != "completed" for each in mine)
    seconds = [each.seconds for each in mine]
    note = (
        f"of {len(mine)} ({100 * right / len(mine):.0f} %); each on average "
        f"{_mean([each.tokens for each in mine]):.0f} tokens, "
        f"{_mean([each.thought for each in mine]):.0f} of them thinking"
    )
    if broken:
        note += f"; {broken} not completed"
    commits = sorted({each.commit for each in mine})
    if len(commits) > 1:
        note += f"; of commits {', '.join(commits)}"
    return [
        Row(f"effort {effort}: right", right, "", note=note),
        Row(
            f"effort {effort}: seconds each, mean",
            _mean(seconds),
            "s",
            note=f"median {median(seconds):.1f}, slowest {max(seconds):.1f}",
            samples=tuple(seconds),
        ),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
