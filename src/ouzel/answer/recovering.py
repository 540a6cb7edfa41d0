"""What becomes of runs that a process left unfinished.

Background runs are taken up from their last finished step; anything else is ended, as nobody reads
it any more. When that is, and how a run is done, this file does not know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from ouzel.answer.running import Answer
from ouzel.core.contracts import Engine, EngineInfo, Store
from ouzel.core.errors import EngineError, EngineUnavailable
from ouzel.core.events import Event, Failure, RunFinished, RunQueued, RunResumed, RunStarted
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.loop import resuming
from ouzel.loop.output import Output
from ouzel.loop.resuming import SoFar

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


def too_long(within: float) -> EngineError:
    """Why a run was ended that took its whole time."""
    return EngineError(
        f"The response was not finished within {within:.0f} seconds (setting background_within)."
    )


async def end(store: Store, run: Run, events: Sequence[Event]) -> None:
    """End a run that nobody works on as failed; what was finished is kept. Raises StoreError."""
    output = output_of(events)
    closing = output.close("incomplete")
    now = time.time()
    failed = replace(
        run, status="failed", output=tuple(output.items), failure=STOPPED, finished_at=now
    )
    finished = RunFinished("failed", Usage(), now, STOPPED)
    first_ones = [] if events else [RunQueued() if run.status == "queued" else RunStarted()]
    await store.finish(failed, len(events), [*first_ones, *closing, finished])


async def told(run: Run, events: Sequence[Event]) -> AsyncGenerator[Sequence[Event], None]:
    """The events of a run that has ended; with an end, also if that could not be stored."""
    yield events
    if not events or not isinstance(events[-1], RunFinished):
        failure = run.failure or STOPPED
        yield [RunFinished("failed", Usage(), run.finished_at or run.created_at, failure)]
