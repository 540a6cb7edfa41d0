"""Cancelling, deleting, stopping and reading, in the orders that are easy to get wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from answer_kit import ask, room
from ouzel.answer import NOW, Answer, Answers
from ouzel.answer.background import BackgroundLimits
from ouzel.api.write_responses import ResponseStream
from ouzel.core.contracts import EngineState
from ouzel.core.errors import (
    Conflict,
    NotFound,
    ShuttingDown,
    StoreError,
    StoreFull,
    TooManyRequests,
)
from ouzel.core.events import (
    Delta,
    Event,
    ItemDone,
    ItemStarted,
    RunFinished,
    RunResumed,
    RunStarted,
)
from ouzel.core.items import CodeCall, HostedCall, Message, new_id
from ouzel.core.request import Request
from ouzel.core.runs import Run
from ouzel.core.turns import Turn
from ouzel.engines.scripted import Pause, Reply, Say, Script, ScriptedEngine
from ouzel.store import SqlStore, open_store

FOREVER = Script((Reply((Say("a b"), Pause(1000), Say(" c"))),))
QUICK = Script((Reply((Say("a b c"),)),))
ONE = BackgroundLimits(at_once=1)


def background(**more) -> Request:
    return ask("hello", background=True, **more)


class Waits(ScriptedEngine):
    """Counts a prompt's tokens only when it is let to; every prompt has to be counted."""

    def __init__(self, script: Script) -> None:
        super().__init__(replace(script, context_window=100))
        self.let = asyncio.Event()
        self.asked = asyncio.Event()

    async def count_tokens(self, turn: Turn) -> int:
        self.asked.set()
        await self.let.wait()
        return await super().count_tokens(turn)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(tmp_path / "ouzel.db")
    yield opened
    await opened.close()


@asynccontextmanager
async def rooms(store: SqlStore, played: Script | ScriptedEngine, **more) -> AsyncIterator[Answers]:
    engine = played if isinstance(played, ScriptedEngine) else ScriptedEngine(played)
    answers = await room(engine, store, **more)
    try:
        yield answers
    finally:
        await answers.close()


async def said(answer: Answer, text: str = " b") -> None:
    """Return when the answer has said this."""
    async with aclosing(answer.batches()) as batches:
        async for batch in batches:
            if any(isinstance(event, Delta) and event.text == text for event in batch):
                return


async def ended(answers: Answers, run_id: str) -> Run:
    found = await answers.follow(run_id, "ann")
    async for _ in found.batches:
        pass
    return await answers.load(run_id, "ann")


async def at_rest(answers: Answers) -> None:
    """Return when nothing is under way or held any more."""
    async with asyncio.timeout(10):
        while answers.background.running or answers._finding.live or answers._holds._held:
            await asyncio.sleep(0)


async def left_behind(store: SqlStore, request: Request, events: Sequence[Event]) -> Run:
    """A run in the store as a process leaves it that dies after these events."""
    run = Run(new_id("resp"), "ann", "scripted", 0.0, request, status="queued")
    await store.begin(run)
    await store.append(run.id, 0, events)
    return run


async def half_a_message(store: SqlStore, request: Request) -> list[Event]:
    """The events of a run that was stopped in the middle of its answer."""
    async with rooms(store, FOREVER) as answers:
        answer = await answers.open(request, "ann")
        await said(answer)
        events = list(answer.events)
        await answers.delete(answer.run.id, "ann")
    return events


async def test_while_the_server_stops_a_background_run_is_not_called_failed(
    store: SqlStore,
) -> None:
    async with rooms(store, FOREVER, background=ONE) as answers:
        running = await answers.open(background(), "ann")
        waiting = await answers.open(background(), "ann")
        await said(running)
        answers.shut_down()
        await running.parted()
        await answers.close()
        for answer in (running, waiting):
            run = await answers.load(answer.run.id, "ann")
            assert run.status in ("queued", "in_progress")
            with pytest.raises(ShuttingDown):
                await answers.follow(answer.run.id, "ann")
            # To say that it is cancelled would be a lie: the next process goes on with it.
            with pytest.raises(ShuttingDown):
                await answers.cancel(answer.run.id, "ann")
    async with rooms(store, QUICK) as answers:
        assert await answers.recover() == (2, 0)
        assert (await ended(answers, running.run.id)).status == "completed"


async def test_one_that_is_being_cancelled_when_the_server_stops_is_cancelled(
    store: SqlStore,
) -> None:
    async with rooms(store, FOREVER) as answers:
        answer = await answers.open(background(), "ann")
        await said(answer)
        answer.cancel()
        answers.shut_down()
        run = await answer.settled(5.0)
        assert run.status == "cancelled"
    assert (await store.load(answer.run.id, "ann")).status == "cancelled"


async def test_one_that_is_asked_for_while_the_server_stops_is_not_made_later(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rooms(store, FOREVER) as answers:
        begin = store.begin

        async def begin_and_stop(run: Run) -> None:
            await begin(run)
            answers.shut_down()

        monkeypatch.setattr(store, "begin", begin_and_stop)
        with pytest.raises(ShuttingDown):
            await answers.open(background(), "ann")
    assert [each async for each in store.interrupted()] == []


@pytest.mark.parametrize("delete", [False, True])
async def test_cancelled_or_deleted_while_it_is_prepared(store: SqlStore, delete: bool) -> None:
    engine = Waits(FOREVER)
    engine.let.set()
    conversation = await store.conversations.create("ann", {}, ())
    async with rooms(store, engine, background=ONE, conversations=store.conversations) as answers:
        blocker = await answers.open(background(), "ann")
        await said(blocker)
        answer = await answers.open(background(conversation_id=conversation.id), "ann")
        engine.let.clear()
        engine.asked.clear()
        await answers.cancel(blocker.run.id, "ann")
        await engine.asked.wait()  # it is its turn now
        if delete:
            await answers.delete(answer.run.id, "ann")
            with pytest.raises(NotFound):
                await store.load(answer.run.id, "ann")
        else:
            assert (await answers.cancel(answer.run.id, "ann")).status == "cancelled"
            assert (await store.load(answer.run.id, "ann")).status == "cancelled"
        await at_rest(answers)


async def test_what_was_open_before_a_restart_is_closed_when_it_is_cancelled_in_the_queue(
    store: SqlStore,
) -> None:
    events = await half_a_message(store, background())
    for stop in ("cancel", "give up"):
        tries = [RunResumed()] * (5 if stop == "give up" else 0)
        first = await left_behind(store, background(), [])
        run = await left_behind(store, background(), [*events, *tries])
        async with rooms(store, FOREVER, background=ONE) as answers:
            assert await answers.recover() == (2, 0)
            if stop == "cancel":
                after = await answers.cancel(run.id, "ann")
            else:
                await answers.cancel(first.id, "ann")
                after = await ended(answers, run.id)
            told = await store.events(run.id, "ann")
            await answers.cancel(first.id, "ann")
        assert after.status == ("cancelled" if stop == "cancel" else "failed")
        assert isinstance(told[-1], RunFinished)
        done = [event.item for event in told if isinstance(event, ItemDone)]
        assert [item.text for item in done if isinstance(item, Message)] == ["a b"]
        assert done[0].status == "incomplete"
        assert after.output == tuple(done)
        ResponseStream(after).write(told)


async def test_the_queue_holds_no_more_than_it_may_however_many_come_at_once(
    store: SqlStore,
) -> None:
    async with rooms(store, FOREVER, background=BackgroundLimits(1, 2)) as answers:
        found = await asyncio.gather(
            *(answers.open(background(), "ann") for _ in range(9)), return_exceptions=True
        )
        refused = [each for each in found if isinstance(each, TooManyRequests)]
        assert len(refused) == 6
        assert answers.background.waiting == 2


async def test_two_runs_of_one_conversation_do_not_stop_a_start(store: SqlStore) -> None:
    # The end of the first could not be stored before its process died.
    conversation = await store.conversations.create("ann", {}, ())
    request = background(conversation_id=conversation.id)
    first = await left_behind(store, request, [])
    second = await left_behind(store, request, [])
    async with rooms(store, QUICK, conversations=store.conversations) as answers:
        assert await answers.recover() == (2, 0)
        for run in (first, second):
            assert (await ended(answers, run.id)).status == "completed"
        await at_rest(answers)


@pytest.mark.parametrize("in_background", [False, True])
async def test_who_reads_the_end_may_go_on_in_the_conversation_at_once(
    store: SqlStore, in_background: bool
) -> None:
    conversation = await store.conversations.create("ann", {}, ())
    request = ask(conversation_id=conversation.id, background=in_background)
    async with rooms(store, QUICK, conversations=store.conversations) as answers:
        answer = await answers.open(request, "ann")
        async for batch in answer.batches():
            if isinstance(batch[-1], RunFinished):
                second = await answers.open(request, "ann")
                with pytest.raises(Conflict):
                    await answers.open(request, "ann")
                await answer.close()
                await second.whole()
                await second.close()
        await at_rest(answers)


async def test_a_run_that_cannot_be_read_does_not_stop_a_start(store: SqlStore) -> None:
    for request in (background(), ask("hello")):
        strange = await left_behind(store, request, [ItemDone(3, CodeCall("ci_1", "cntr_1"))])
        async with rooms(store, QUICK) as answers:
            assert await answers.recover() == (0, 1)
            after = await ended(answers, strange.id)
        assert after.status == "failed"
        assert [item.id for item in after.output] == ["ci_1"]


async def test_nobody_else_can_make_an_end_forgotten(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rooms(store, QUICK) as answers:
        with monkeypatch.context() as patch:
            patch.setattr(store, "finish", _full)
            answer = await answers.open(ask("hello"), "ann")
            run = await answer.whole()
            await answer.close()
        assert run.status == "failed"
        with pytest.raises(NotFound):
            await answers.delete(run.id, "bob")
        assert await answers.load(run.id, "ann") == run
        assert await answers.keep_ends() == 1
        assert await store.load(run.id, "ann") == run


async def test_ends_are_kept_at_the_latest_when_the_server_stops(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rooms(store, QUICK) as answers:
        with monkeypatch.context() as patch:
            patch.setattr(store, "finish", _full)
            answer = await answers.open(background(), "ann")
            run = await answer.whole()
            await answer.parted()
    assert (await store.load(run.id, "ann")).status == "failed"


async def test_an_end_of_what_is_gone_is_not_tried_for_ever(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rooms(store, QUICK) as answers:
        with monkeypatch.context() as patch:
            patch.setattr(store, "finish", _full)
            answer = await answers.open(ask("hello"), "ann")
            await answer.whole()
            await answer.close()
        await store.delete(answer.run.id, "ann")
        assert await answers.keep_ends() == 0
        tried: list[str] = []

        async def tries(run: Run, *_: object) -> None:
            tried.append(run.id)
            raise StoreError("no")

        monkeypatch.setattr(store, "finish", tries)
        await answers.keep_ends()
        assert not tried


async def _full(*_: object) -> None:
    raise StoreFull("full")


async def test_a_stop_does_not_wait_for_an_engine_that_starts(store: SqlStore) -> None:
    engine = ScriptedEngine(QUICK)
    answers = await room(engine, store)
    engine.state = "restarting"
    answer = await answers.open(background(), "ann")
    async with asyncio.timeout(5):
        await answers.close()
    assert not answer.ended
    assert answers.background.running == 0
    engine.state = "ready"
    async with rooms(store, QUICK) as answers:
        assert await answers.recover() == (1, 0)
        assert (await ended(answers, answer.run.id)).status == "completed"


async def test_one_that_is_cancelled_while_the_engine_starts_gives_up_its_place(
    store: SqlStore,
) -> None:
    engine = ScriptedEngine(QUICK)
    async with rooms(store, engine, background=ONE) as answers:
        restarting: EngineState = "restarting"
        engine.state = restarting
        answer = await answers.open(background(), "ann")
        await asyncio.sleep(0)
        assert (await answers.cancel(answer.run.id, "ann")).status == "cancelled"
        async with asyncio.timeout(5):
            while answers.background.running:
                await asyncio.sleep(0)


async def test_a_stop_ends_a_compaction_that_a_client_asked_for(store: SqlStore) -> None:
    engine = Waits(QUICK)
    async with rooms(store, engine) as answers:
        request = replace(background(), background=False, store=False, compact_at=NOW)
        working = asyncio.create_task(answers.compact(request, "ann"))
        await engine.asked.wait()
        answers.shut_down()
        with pytest.raises(ShuttingDown):
            await working
        assert answers._limiter.running == 0  # type: ignore[attr-defined]


async def test_every_run_is_told_to_the_meter_once(store: SqlStore) -> None:
    async with rooms(store, FOREVER, background=ONE) as answers:
        running = await answers.open(background(), "ann")
        waiting = [await answers.open(background(), "ann") for _ in range(3)]
        await said(running)
        everybody = [running, *waiting]
        await asyncio.gather(
            *(answers.cancel(each.run.id, "ann") for each in everybody for _ in range(3)),
            answers.delete(waiting[0].run.id, "ann"),
        )
        async with asyncio.timeout(10):
            while answers._finding.live:
                await asyncio.sleep(0)
        told = [run.id for run, _ in answers._meter.runs]  # type: ignore[attr-defined]
        assert sorted(told) == sorted(each.run.id for each in everybody)
        assert answers.background.waiting == 0


async def test_readers_may_leave_and_come_at_any_time(store: SqlStore) -> None:
    async with rooms(store, FOREVER) as answers:
        answer = await answers.open(background(), "ann")
        for _ in range(20):
            found = await answers.follow(answer.run.id, "ann")
            async with aclosing(found.batches) as batches:
                async for _batch in batches:
                    break
        unread = (await answers.follow(answer.run.id, "ann")).batches
        await unread.aclose()
        await said(answer)
        assert not answer._log._waiting
        many = [asyncio.create_task(_last(answers, answer.run.id)) for _ in range(50)]
        await asyncio.sleep(0)
        await answers.cancel(answer.run.id, "ann")
        ends = await asyncio.gather(*many)
        assert all(isinstance(end, RunFinished) and end == ends[0] for end in ends)


async def _last(answers: Answers, run_id: str) -> Event:
    found = await answers.follow(run_id, "ann")
    return [event async for batch in found.batches for event in batch][-1]


async def test_readers_of_a_run_that_cannot_be_stored_are_told(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rooms(store, FOREVER) as answers:
        answer = await answers.open(background(), "ann")
        await said(answer)
        monkeypatch.setattr(store, "append", _full)
        monkeypatch.setattr(store, "finish", _full)
        reader = asyncio.create_task(_last(answers, answer.run.id))
        await asyncio.sleep(0)
        answer.cancel()
        end = await reader
        assert isinstance(end, RunFinished)
        assert end.failure is not None
        assert end.failure.code == "insufficient_storage"
        assert await _last(answers, answer.run.id) == end
        monkeypatch.undo()
        assert await answers.keep_ends() == 1
    assert (await store.events(answer.run.id, "ann"))[-1] == end


async def test_what_goes_on_shows_each_item_once(store: SqlStore) -> None:
    call = HostedCall("call_1", "tool", "tool", "{}", status="in_progress")
    blocker = await left_behind(store, background(), [])
    run = await left_behind(store, background(), [RunStarted(), ItemStarted(0, call)])
    async with rooms(store, FOREVER, background=ONE) as answers:
        await answers.recover()
        assert (await answers.load(run.id, "ann")).output == ()
        await answers.cancel(blocker.id, "ann")
        follow = await answers.follow(run.id, "ann")
        async for batch in follow.batches:
            if any(isinstance(event, Delta) for event in batch):
                break
        ids = [item.id for item in (await answers.load(run.id, "ann")).output]
        assert ids == ["call_1"]
