"""Runs and events for the store's tests."""

from __future__ import annotations

import dataclasses
import time

from ouzel.core.events import (
    Delta,
    Event,
    Failure,
    ItemDone,
    ItemStarted,
    RunFinished,
    RunStarted,
)
from ouzel.core.items import Item, Message, Text, new_id
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.store import SqlStore

OWNER = "alice"


def said(role: str, text: str) -> Message:
    """A message with one part of text."""
    return Message(new_id("msg"), role, (Text(text),))


def new_run(
    question: str = "How many legs does an ouzel have?",
    *,
    owner: str = OWNER,
    previous_id: str | None = None,
    run_id: str | None = None,
    created_at: float = 1_750_000_000.25,
) -> Run:
    """A run that has just begun."""
    request = Request(
        "responses",
        "o4-mini",
        (said("user", question),),
        previous_id=previous_id,
        store=True,
        metadata={"topic": "birds"},
    )
    return Run(run_id or new_id("resp"), owner, "scripted", created_at, request)


def finished(run: Run, *output: Item) -> Run:
    """The run, completed."""
    return dataclasses.replace(
        run,
        status="completed",
        output=output or (said("assistant", "Two."),),
        usage=Usage(20, 0, 3),
        finished_at=run.created_at + 1,
    )


def opening(item: Item) -> list[Event]:
    """The first events of a run."""
    return [RunStarted(), ItemStarted(0, item)]


def deltas(count: int, first: int = 0) -> list[Event]:
    """Numbered pieces of text."""
    return [Delta(0, "msg_1", 0, "text", f"word{first + n} ") for n in range(count)]


def ending(item: Item) -> list[Event]:
    """The last events of a completed run."""
    return [ItemDone(0, item), RunFinished("completed", Usage(20, 0, 3), 1_750_000_001.25)]


async def end_all(store: SqlStore, failure: Failure) -> int:
    """End every run that is queued or in progress as failed, as start-up does; how many."""
    count = 0
    async for run, events in store.interrupted():
        done = tuple(event.item for event in events if isinstance(event, ItemDone))
        now = time.time()
        failed = dataclasses.replace(
            run, status="failed", failure=failure, output=done, finished_at=now
        )
        await store.finish(failed, len(events), [RunFinished("failed", Usage(), now, failure)])
        count += 1
    return count
