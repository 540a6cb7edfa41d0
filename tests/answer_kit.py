"""The answering room over the scripted engine and a real store."""

from __future__ import annotations

from ouzel.answer import Answers
from ouzel.core.events import Event
from ouzel.core.items import Message, Text
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.engines.scripted import ScriptedEngine
from ouzel.limits import AtOnce
from ouzel.store import SqlStore


class Ledger:
    """A meter that remembers what it was told."""

    def __init__(self) -> None:
        self.runs: list[tuple[Run, float | None]] = []

    def run_finished(self, run: Run, seconds: float, first_token: float | None) -> None:
        assert seconds >= 0
        self.runs.append((run, first_token))


async def room(engine: ScriptedEngine, store: SqlStore, most: int = 10, **more) -> Answers:
    """An answering room; `more` is passed on to it."""
    await engine.start()
    return Answers(engine, store, AtOnce(most), Ledger(), ("o4-mini",), **more)


def ask(text: str = "hello", **more) -> Request:
    values = {"protocol": "responses", "model": "o4-mini", "store": True} | more
    return Request(input=(Message("msg_1", "user", (Text(text),)),), **values)


async def read(answers: Answers, request: Request, owner: str = "ann") -> tuple[Run, list[Event]]:
    answer = await answers.open(request, owner)
    events: list[Event] = []
    try:
        async for batch in answer.batches():
            events.extend(batch)
    finally:
        await answer.close()
    return answer.run, events
