"""Readers of one run's events: each has a place of its own, and what is stored shares writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from answer_kit import ask, room
from ouzel.answer import spacing
from ouzel.answer.log import Log
from ouzel.answer.spacing import Spacing
from ouzel.core.errors import ShuttingDown
from ouzel.core.events import Delta, Event, RunFinished, RunStarted
from ouzel.core.turns import Usage
from ouzel.engines.scripted import Pause, Reply, Say, Script, ScriptedEngine
from ouzel.store import SqlStore, open_store

LAST = RunFinished("completed", Usage(), 1.0)


def said(number: int) -> Delta:
    return Delta(0, "msg_1", 0, "text", f" word{number}")


async def all_of(log: Log) -> list[Event]:
    return [event async for batch in log.batches() for event in batch]


async def test_readers_that_come_whenever_get_everything_in_order() -> None:
    log = Log([RunStarted()])
    first = asyncio.create_task(all_of(log))
    await asyncio.sleep(0)
    expected: list[Event] = [RunStarted()]
    for number in range(10):
        log.add(said(number))
        expected.append(said(number))
        if number == 5:
            second = asyncio.create_task(all_of(log))
        await asyncio.sleep(0)
    log.release([said(10), LAST], last=True)
    expected += [said(10), LAST]
    third = asyncio.create_task(all_of(log))
    for reader in (first, second, third):
        assert await reader == expected
    assert log.events == expected


async def test_a_reader_that_is_slow_keeps_its_place_and_holds_up_nobody() -> None:
    log = Log()
    async with aclosing(log.batches()) as slow:
        log.add(said(0))
        assert await anext(slow) == [said(0)]
        for number in range(1, 500):
            log.add(said(number))
            await asyncio.sleep(0)
        log.release([LAST], last=True)
        assert len(await all_of(log)) == 501
        rest = [event async for batch in slow for event in batch]
    assert rest == [*(said(number) for number in range(1, 500)), LAST]


async def test_silence_has_signs_of_life_and_loses_nothing() -> None:
    log = Log()
    batches = log.batches(idle=0.001)
    for number in range(3):
        assert await anext(batches) == []
        log.add(said(number))
        seen: list[Event] = []
        while not seen:
            seen += await anext(batches)
        assert seen == [said(number)]
    await batches.aclose()
    log.add(said(3))


async def test_readers_are_told_that_another_process_goes_on() -> None:
    log = Log([RunStarted()])
    waiting = asyncio.create_task(all_of(log))
    await asyncio.sleep(0)
    log.leave_off()
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(ShuttingDown):
        await all_of(log)


class Counting:
    """A store that remembers how much each write held."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.writes: list[list[Event]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, run_id: str, position: int, events: Sequence[Event]) -> None:
        self.writes.append(list(events))
        await self._store.append(run_id, position, events)

    async def finish(self, run: Any, position: int, events: Sequence[Event]) -> None:
        self.writes.append(list(events))
        await self._store.finish(run, position, events)


FOR_EVER = 1e6
SLOWLY = Script((Reply((Pause(0.01), Say(" ".join(["word"] * 30), delay=0.001))),))


async def test_neither_the_first_events_nor_the_end_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were any of them to wait, this would not end: the time between two writes is for ever."""
    monkeypatch.setattr(spacing, "APART", FOR_EVER)
    store = Counting(open_store(tmp_path / "store.db"))
    answers = await room(ScriptedEngine(SLOWLY), store)  # type: ignore[arg-type]
    for background in (False, True):
        store.writes.clear()
        answer = await answers.open(ask(background=background), "ann")
        events = [event async for batch in answer.batches() for event in batch]
        await answer.close()
        first, rest = store.writes
        assert len(first) <= 2, "what there was when it began"
        assert first + rest == events == await store.events(answer.run.id, "ann")
        assert sum(isinstance(event, Delta) for event in rest) == 30
    await store.close()


@pytest.mark.parametrize("act", ["cancel", "forget", "leave_off", "shut_down"])
async def test_whatever_ends_a_run_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr(spacing, "APART", FOR_EVER)
    engine = ScriptedEngine(Script((Reply((Say("one two"), Pause(60))),)))
    store = Counting(open_store(tmp_path / "store.db"))
    answers = await room(engine, store)  # type: ignore[arg-type]
    answer = await answers.open(ask(background=act == "leave_off"), "ann")
    while not engine.active:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    if act == "shut_down":
        answers.shut_down()
    else:
        getattr(answer, act)()
    async with asyncio.timeout(30):
        await answer.parted()
        await answer.close()
    kept = [event for write in store.writes for event in write]
    if act != "forget":
        assert [event.text for event in kept if isinstance(event, Delta)] == ["one", " two"]
    assert isinstance(kept[-1], RunFinished) == (act in ("cancel", "shut_down"))
    await answers.close()
    await store.close()


async def test_the_next_one_waits_its_time_and_then_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    between = Spacing()
    await between.turn()
    monkeypatch.setattr(spacing, "APART", FOR_EVER)
    await between.turn()  # what was known when the last one came
    waiting = asyncio.create_task(between.turn())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    between.hurry()
    await waiting
    await between.turn()
