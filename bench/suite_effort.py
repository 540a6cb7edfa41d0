"""What does thinking bring? The same word problems at each effort: right ones, tokens, seconds."""

from __future__ import annotations

from bench.arithmetic import Row
from bench.load import ROOT
from bench.solving import rows, solve
from bench.suite import Bench

EFFORTS = ("none", "low", "medium", "high")
PROBLEMS = 60
AT_ONCE = 2
KEPT = ROOT / "bench" / "results" / "effort.jsonl"


def measure(bench: Bench) -> list[Row]:
    """Rows for each effort. Raises NoProblems, ServerFailed."""
    ways = {f"effort {effort}": {"reasoning": {"effort": effort}} for effort in EFFORTS}
    solved = solve(bench, ways, PROBLEMS, bench.kept or KEPT, AT_ONCE)
    return [row for way in ways for row in rows(way, [each for each in solved if each.way == way])]
