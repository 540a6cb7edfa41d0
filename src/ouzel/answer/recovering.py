"""What becomes of runs that a process left unfinished.

Background runs are taken up from their last finished step; anything else is ended, as nobody reads
it any more. When that is, and how a run is done, this file does not know.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ouzel.answer.running import Answer
from ouzel.core.contracts import Engine, EngineInfo, Store
from ouzel.core.errors import EngineError, EngineUnavailable
from ouzel.core.events import (
    Event,
    Failure,
    ItemDone,
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
)
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.core.turns import Turn, Usage
from ouzel.loop import resuming
from ouzel.loop.budget import Clock
from ouzel.loop.output import Output
from ouzel.loop.resuming import SoFar
from ouzel.loop.run import Task

_log = logging.getLogger(__name__)
T = TypeVar("T")

STOPPED = Failure("server_error", "The server stopped while this response was being made.", 503)

_LOOK_EVERY = 0.2
"""Seconds between two looks at an engine that starts."""


def output_of(events: Sequence[Event], seal: Callable[[str], str] | None = None) -> Output:
    """What these events have brought about, with what seals the thinking that follows."""
    return resuming.restore(events, seal)


def so_far(answer: Answer, info: EngineInfo) -> SoFar | None:
    """How far an earlier process got with it; None if it never began.

    Raises:
        EngineError: it is given up: it did not get any further several times.
    """
    events = answer.events
    if not any(isinstance(event, RunStarted) for event in events):
        return None
    far = resuming.so_far(answer.run.request, events, answer.output, info)
    if far.tries >= resuming.MOST_TRIES:
        raise EngineError(
            f"The server stopped {far.tries} times while this response was being made, without "
            "getting any further; it is given up."
        )
    return far


def first(far: SoFar | None) -> Event:
    """What a run begins with in this process."""
    return RunStarted() if far is None else RunResumed()


async def until_ready(engine: Engine) -> None:
    """Wait for an engine that starts or restarts. Raises EngineUnavailable if it gave up."""
    while engine.state in ("starting", "restarting"):  # noqa: ASYNC110  # engines tell nobody
        await asyncio.sleep(_LOOK_EVERY)
    if engine.state != "ready":
        raise EngineUnavailable(f"The engine is {engine.state}.")


def nothing_left(request: Request, owner: str, far: SoFar) -> Task:
    """What is to be done of a run that was made, but for its end: to say so. It asks for nothing
    that might not be there any more: no engine, no history, no file."""
    return Task(request, Turn(()), owner, Clock(0.0, time.monotonic()), so_far=far)


async def before(until: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T | None:
    """What the work brings; None, and it is given up, if `until` is over before that."""
    working, over = asyncio.create_task(work), asyncio.create_task(until)
    try:
        await asyncio.wait((working, over), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, over):
            task.cancel()
        await asyncio.wait((working, over))


def too_long(within: float) -> EngineError:
    """Why a run was ended that took its whole time."""
    return EngineError(
        f"The response was not finished within {within:.0f} seconds (setting background_within)."
    )


async def end(store: Store, run: Run, events: Sequence[Event]) -> None:
    """End a run that nobody works on as failed; what was finished is kept. Raises StoreError."""
    try:
        output = output_of(events)
        closing, items = output.close("incomplete"), tuple(output.items)
    except Exception:
        _log.exception("what was open in run %s cannot be told", run.id)
        closing = []
        items = tuple(event.item for event in events if isinstance(event, ItemDone))
    now = time.time()
    failed = replace(run, status="failed", output=items, failure=STOPPED, finished_at=now)
    finished = RunFinished("failed", Usage(), now, STOPPED)
    first_ones = [] if events else [RunQueued() if run.status == "queued" else RunStarted()]
    await store.finish(failed, len(events), [*first_ones, *closing, finished])


async def told(run: Run, events: Sequence[Event]) -> AsyncGenerator[Sequence[Event], None]:
    """The events of a run that has ended; with an end, also if that could not be stored."""
    yield events
    if not events or not isinstance(events[-1], RunFinished):
        failure = run.failure or STOPPED
        yield [RunFinished("failed", Usage(), run.finished_at or run.created_at, failure)]
