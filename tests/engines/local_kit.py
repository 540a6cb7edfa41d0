"""What tests of the embedded engine share: engines on small weights, a look at processes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil

from ouzel.core.request import Sampling
from ouzel.core.turns import TextDelta, Turn, TurnDone, TurnMessage
from ouzel.engines.local import LocalEngine, Overrides, Restarts, Timeouts

GREEDY = Sampling(temperature=0.0)
NO_END = Sampling(temperature=0.0, logit_bias={"2": -100.0, "0": -100.0})
"""SmolLM2's end-of-turn and end-of-text tokens never come, so that only a limit ends it."""

SOON = Restarts(first=0.05, longest=0.2, attempts=3)
PATIENT = Timeouts(first_token=120.0, idle=120.0)


def say(
    text: str, limit: int | None = None, sampling: Sampling = GREEDY, system: str = "Be kind."
) -> Turn:
    messages = (TurnMessage("system", system), TurnMessage("user", text))
    return Turn(messages, sampling, limit)


@contextlib.asynccontextmanager
async def running(
    weights: Path,
    home: Path,
    *,
    slots: int = 2,
    context: int = 1024,
    hung_after: float = 60.0,
    restarts: Restarts = SOON,
) -> AsyncIterator[LocalEngine]:
    """An engine that is up, on one thread."""
    engine = LocalEngine(
        weights,
        served_as="tiny",
        home=home,
        overrides=Overrides(context=context, slots=slots, threads=1),
        timeouts=PATIENT,
        hung_after=hung_after,
        restarts=restarts,
    )
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def answer(engine: LocalEngine, turn: Turn) -> tuple[str, TurnDone]:
    """All of an answer; exactly one TurnDone comes, at its end."""
    deltas = [delta async for delta in engine.stream(turn)]
    done = deltas.pop()
    assert isinstance(done, TurnDone)
    assert all(isinstance(delta, TextDelta) for delta in deltas)
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)), done


async def until(holds: Callable[[], bool], within: float = 60.0) -> None:
    """Wait for something that will come; a failure if it does not."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    """Neither running nor waiting to be reaped by us (a reaper's zombie is not our matter)."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.ppid() != psutil.Process().pid
    except psutil.NoSuchProcess:
        return True


def workers(parent: int | None = None) -> list[psutil.Process]:
    """Worker processes below a process, this one by default."""
    found = []
    for each in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ouzel.engines.worker" in each.cmdline() or each.status() == psutil.STATUS_ZOMBIE:
                found.append(each)
    return found
