"""What does running Python bring? The same word problems without tools and with the interpreter."""

from __future__ import annotations

from bench.arithmetic import Aim, Row
from bench.load import ROOT
from bench.solving import Solved, rows, solve
from bench.suite import Bench

PROBLEMS = 100
AT_ONCE = 2
KEPT = ROOT / "bench" / "results" / "python.jsonl"
AIM = 15
"""Points by which the interpreter should raise the share of right answers."""

PLAIN, WITH = "plain", "code_interpreter"


def measure(bench: Bench) -> list[Row]:
    """Rows for both ways, and what the interpreter adds. Raises NoProblems, ServerFailed."""
    tool = {"type": "code_interpreter", "container": {"type": "auto"}}
    ways = {PLAIN: {}, WITH: {"tools": [tool]}}
    flags = ("--code-interpreter", "on")
    solved = solve(bench, ways, PROBLEMS, bench.kept or KEPT, AT_ONCE, flags)
    plain = [each for each in solved if each.way == PLAIN]
    led = [each for each in solved if each.way == WITH]
    gained = 100 * (_right(led) - _right(plain))
    note = f"{_both(plain, led)} right both ways"
    row = Row("points gained with Python", gained, "", aim=Aim(">=", AIM), note=note)
    return [*rows(PLAIN, plain), *rows(WITH, led), row]


def _right(solved: list[Solved]) -> float:
    return sum(each.right for each in solved) / len(solved)


def _both(one: list[Solved], other: list[Solved]) -> int:
    return len({each.id for each in one if each.right} & {each.id for each in other if each.right})
