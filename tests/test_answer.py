from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from answer_kit import ask, read, room
from doubles import scripted
from ouzel.answer.preparing import Asked
from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    NotFound,
    RequestError,
    ShuttingDown,
    StoreError,
    TooManyRequests,
)
from ouzel.core.events import Delta, Event, RunFinished
from ouzel.core.request import Sampling
from ouzel.engines.scripted import (
    Die,
    Fail,
    Pause,
    Say,
    ScriptedEngine,
)
from ouzel.store import SqlStore, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(tmp_path / "ouzel.db")
    yield opened
    await opened.close()


async def test_a_run_is_answered_kept_and_counted(store):
    answers = await room(scripted(), store)
    run, events = await read(answers, ask())
    assert run.status == "completed"
    assert run.output[0].text == "You said: hello"
    assert events[0].kind == "run_started"
    assert isinstance(events[-1], RunFinished)
    assert await store.load(run.id, "ann") == run
    assert await store.events(run.id, "ann") == events
    assert answers._meter.runs[0][0] == run


async def test_nothing_is_released_before_it_is_stored(store):
    answers = await room(scripted(Say("a b"), Pause(0.01), Say(" c d"), Pause(0.01)), store)
    answer = await answers.open(ask(), "ann")
    seen: list[Event] = []
    async for batch in answer.batches():
        seen.extend(batch)
        assert (await store.events(answer.run.id, "ann"))[: len(seen)] == seen
    await answer.close()
    assert [event.text for event in seen if isinstance(event, Delta)] == ["a", " b", " c", " d"]


async def test_an_unstored_run_leaves_nothing(store):
    answers = await room(scripted(), store)
    run, _ = await read(answers, ask(store=False))
    assert run.status == "completed"
    with pytest.raises(NotFound):
        await store.load(run.id, "ann")


async def test_a_run_continues_an_earlier_one(store):
    engine = scripted()
    answers = await room(engine, store)
    first, _ = await read(answers, ask("one"))
    task = await answers.preparing.task(Asked(ask("two", previous_id=first.id), "ann", 0.0))
    shown = [message.text for message in task.turn.messages]
    assert shown == ["one", "You said: one", "two"]


@pytest.mark.parametrize("owner", ["bob", "ann"])
async def test_continuing_someone_elses_run_is_like_one_that_never_was(store, owner):
    answers = await room(scripted(), store)
    run, _ = await read(answers, ask())
    previous = run.id if owner == "bob" else "resp_none"
    with pytest.raises(RequestError) as caught:
        await answers.open(ask(previous_id=previous), owner)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


async def test_an_unknown_model_is_not_found(store):
    answers = await room(scripted(), store)
    with pytest.raises(NotFound, match=r"gpt-9.*scripted, o4-mini") as caught:
        await answers.open(ask(model="gpt-9"), "ann")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


async def test_what_the_engine_cannot_do_is_refused(store):
    answers = await room(scripted(), store)
    with pytest.raises(RequestError) as caught:
        await answers.open(ask(sampling=Sampling(logit_bias={"5": 1.0})), "ann")
    assert (caught.value.param, caught.value.code) == ("logit_bias", "unsupported_parameter")


async def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_kept(store):
    answers = await room(scripted(window=50), store)
    with pytest.raises(ContextLengthExceeded) as caught:
        await answers.open(ask("word " * 60), "ann")
    assert caught.value.param == "input"
    assert answers._limiter.running == 0


async def test_a_death_in_mid_stream_ends_with_failed_and_keeps_what_was_said(store):
    answers = await room(scripted(Say("half a sen"), Die("the process is gone")), store)
    run, events = await read(answers, ask())
    assert run.status == "failed"
    assert run.failure.message == "the process is gone"
    assert run.output[0].text == "half a sen"
    assert run.usage is None
    assert isinstance(events[-1], RunFinished)
    assert await store.load(run.id, "ann") == run


async def test_an_unexpected_error_is_not_shown(store, caplog):
    class Broken(ScriptedEngine):
        def stream(self, turn, halt=None):
            raise ZeroDivisionError("secret detail")

    answers = await room(Broken(), store)
    run, _ = await read(answers, ask())
    assert run.status == "failed"
    assert "secret" not in run.failure.message
    assert "secret detail" in caplog.text
    assert run.id in caplog.text


async def test_an_engine_that_is_not_ready_takes_nothing(store):
    answers = await room(scripted(), store)
    answers.engine.state = "restarting"
    with pytest.raises(EngineUnavailable, match="restarting"):
        await answers.open(ask(), "ann")
    assert answers._limiter.running == 0


async def test_cancelling_ends_the_stream_and_frees_the_engine(store):
    engine = scripted(Say("a"), Pause(60))
    answers = await room(engine, store)
    answer = await answers.open(ask(), "ann")
    batches = answer.batches()
    await anext(batches)
    assert engine.active == 1
    run_id = answer.run.id

    async def rest() -> Sequence[Event]:
        return [event async for batch in batches for event in batch]

    cancelled, events = await asyncio.gather(answers.cancel(run_id, "ann"), rest())
    await answer.close()
    assert cancelled.status == "cancelled"
    assert events[-1].status == "cancelled"
    assert engine.active == 0
    assert (await store.load(run_id, "ann")).status == "cancelled"
    assert await answers.cancel(run_id, "ann") == cancelled


async def test_only_its_owner_may_cancel_or_delete(store):
    answers = await room(scripted(Pause(60)), store)
    answer = await answers.open(ask(), "ann")
    for act in (answers.cancel, answers.delete):
        with pytest.raises(NotFound):
            await act(answer.run.id, "bob")
    assert not answer._task.done()
    await answer.close()


async def test_cancelled_before_it_began_it_still_ends_properly(store):
    answers = await room(scripted(), store)
    answer = await answers.open(ask(), "ann")
    answer.cancel()
    run = await answer.whole()
    await answer.close()
    assert run.status == "cancelled"


async def test_a_reader_that_goes_away_leaves_a_finished_record(store):
    engine = scripted(Say("a b c"), Pause(60))
    answers = await room(engine, store)
    answer = await answers.open(ask(), "ann")
    async for _ in answer.batches():
        break
    await answer.close()
    await answer.close()
    kept = await store.load(answer.run.id, "ann")
    assert kept.status == "cancelled"
    assert engine.active == 0
    assert answers._limiter.running == 0
    assert answers._finding.live == {}


async def test_deleting_a_running_one_stops_it_and_leaves_nothing(store):
    engine = scripted(Say("a"), Pause(60))
    answers = await room(engine, store)
    answer = await answers.open(ask(), "ann")
    await anext(answer.batches())
    await answers.delete(answer.run.id, "ann")
    await answer.close()
    assert engine.active == 0
    with pytest.raises(NotFound):
        await store.load(answer.run.id, "ann")


async def test_shutting_down_ends_running_ones_as_failed_and_takes_no_more(store):
    answers = await room(scripted(Say("a"), Pause(60)), store)
    answer = await answers.open(ask(), "ann")
    answers.shut_down()
    run = await answer.whole()
    await answer.close()
    assert run.status == "failed"
    assert run.failure.status == 503
    with pytest.raises(ShuttingDown):
        await answers.open(ask(), "ann")


async def test_one_more_than_the_limit_is_refused(store):
    answers = await room(scripted(Pause(60)), store, most=2)
    held = [await answers.open(ask(), "ann") for _ in range(2)]
    with pytest.raises(TooManyRequests):
        await answers.open(ask(), "ann")
    await held[0].close()
    again = await answers.open(ask(), "ann")
    for answer in (held[1], again):
        await answer.close()
    assert answers._limiter.running == 0


async def test_a_silent_engine_gives_empty_batches_as_signs_of_life(store):
    answers = await room(scripted(Pause(0.2), Say("done")), store)
    answer = await answers.open(ask(), "ann")
    batches = [list(batch) async for batch in answer.batches(idle=0.02)]
    await answer.close()
    assert [] in batches
    assert isinstance(batches[-1][-1], RunFinished)


class FailingStore:
    """The real store, until the disk is full."""

    def __init__(self, store: SqlStore, method: str) -> None:
        self._store = store
        self._method = method

    def __getattr__(self, name: str):
        if name != self._method:
            return getattr(self._store, name)

        async def full(*args: object) -> None:
            raise StoreError("the disk is full")

        return full


@pytest.mark.parametrize("method", ["append", "finish"])
async def test_what_cannot_be_stored_ends_as_failed(store, method):
    engine = scripted(Say("a b"), Pause(0.02), Say(" c"), Pause(0.02))
    answers = await room(engine, FailingStore(store, method))
    run, events = await read(answers, ask())
    assert run.status == "failed"
    assert [event.status for event in events if isinstance(event, RunFinished)] == ["failed"]
    assert "stored" in run.failure.message


async def test_a_run_that_cannot_begin_to_be_kept_is_not_begun(store):
    engine = scripted()
    answers = await room(engine, FailingStore(store, "begin"))
    with pytest.raises(StoreError):
        await answers.open(ask(), "ann")
    assert engine.active == 0
    assert answers._limiter.running == 0


async def test_the_engine_refusing_the_prompt_is_told_with_its_code(store):
    answers = await room(scripted(Fail("that is too much", 400)), store)
    run, _ = await read(answers, ask())
    assert (run.failure.status, run.failure.message) == (400, "that is too much")


async def test_eight_at_once_each_get_their_own(store):
    answers = await room(scripted(Say("{input}", delay=0.001)), store)
    runs = await asyncio.gather(*(read(answers, ask(f"number {n}")) for n in range(8)))
    assert [run.output[0].text for run, _ in runs] == [f"number {n}" for n in range(8)]
