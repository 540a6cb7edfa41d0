"""What a suite is: it gets a bench to work on and gives rows for the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from bench.arithmetic import Row
from bench.load import Outcome, Plan, run
from bench.machine import watching
from bench.processes import Served


@dataclass(frozen=True)
class Bench:
    """What a suite works with.

    Args:
        quick: measure less, to see whether all works; numbers are rougher.
        scratch: an empty folder for state.
        model: weights for the engine suite, as `ouzel serve --model` takes them; None for the
            default.
        engine_url, engine_key: a server to measure instead of weights, and its key.
        tell: says what is being done.
        log: says what is worth keeping on the screen, one line.
        step: how many cases are done, and of how many.
        keep: takes what became of one case; it is kept in the results.
        data: a file with cases instead of the suite's own.
        api: which API cases go through, where the suite leaves that open.
        at_once: cases under way at the same time; None leaves it to the suite.
        limit, first: how many cases, and the number of the first, from 0; None for all.
        kept: where a suite that can be resumed keeps its results; None for its own place.
    """

    quick: bool
    scratch: Path
    model: str | None
    engine_url: str | None
    engine_key: str | None
    tell: Callable[[str], None]
    log: Callable[[str], None]
    step: Callable[[int, int], None]
    keep: Callable[[dict[str, Any]], None]
    data: Path | None = None
    api: Literal["responses", "chat"] = "responses"
    at_once: int | None = None
    limit: int | None = None
    first: int = 0
    kept: Path | None = None


Suite = Callable[[Bench], list[Row]]


class Broken(RuntimeError):
    """Replies were wrong or missing, so the numbers would mean nothing."""


@dataclass(frozen=True)
class Loaded:
    """A load and what it cost.

    Args:
        outcome: what the generator saw.
        server_ms: processor milliseconds of the server for each request.
        generator_ms: those of the generator.
        neighbours: cores that processes of others kept busy meanwhile.
    """

    outcome: Outcome
    server_ms: float
    generator_ms: float
    neighbours: float


def load(served: Served, plan: Plan) -> Loaded:
    """Carry a plan out against one server and see what it cost."""
    before = served.cpu
    with watching(psutil.Process(served.pid)) as neighbours:
        outcome = run(plan)
    asked = max(outcome.asked, 1)
    server_ms = (served.cpu - before) / asked * 1000
    return Loaded(outcome, server_ms, outcome.cpu / asked * 1000, neighbours.cores)


def whole(loaded: Loaded, what: str) -> Loaded:
    """The load, if every reply was right. Raises Broken otherwise."""
    outcome = loaded.outcome
    if outcome.broken or not outcome.right:
        raise Broken(f"{what}: {outcome.broken} of {outcome.asked} broken: {outcome.faults}")
    return loaded
