"""Background runs: queued, done, cut off at every place where a process may die, and taken up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from answer_kit import ask, room
from hosted_tool import ConvertLength
from ouzel.answer import Answer, Answers
from ouzel.answer.background import BackgroundLimits
from ouzel.api.write_responses import ResponseStream
from ouzel.core.errors import Conflict, RequestError, ShuttingDown, TooManyRequests
from ouzel.core.events import Delta, Event, ItemDone, RunFinished, RunResumed
from ouzel.core.items import HostedCall, Message, new_id
from ouzel.core.request import HostedTool, Request
from ouzel.core.runs import Run
from ouzel.engines.scripted import (
    CAPABILITIES,
    Call,
    Pause,
    Reply,
    Say,
    Script,
    ScriptedEngine,
    Think,
)
from ouzel.store import SqlStore, open_store

ARGUMENTS = json.dumps({"value": 1, "unit": "m", "to": "cm"})
TOOLS = (
    Reply((Think("It wants a length. "), Call("convert_length", ARGUMENTS)), last="hello"),
    Reply((Think("Now I know. "), Say("One metre is a hundred centimetres, and no more."))),
)
PLAIN = "One metre is a hundred centimetres, and no more."


class Counting(ConvertLength):
    """Knows how often it was run."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, call):
        self.runs += 1
        return super().run(call)


def script(*replies: Reply, opening: bool = True) -> Script:
    can = CAPABILITIES if opening else CAPABILITIES - {"opening"}
    return Script(replies, capabilities=can)


def background(**more) -> Request:
    return ask("hello", background=True, **more)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(tmp_path / "ouzel.db")
    yield opened
    await opened.close()


@asynccontextmanager
async def rooms(store: SqlStore, played: Script, **more) -> AsyncIterator[Answers]:
    answers = await room(ScriptedEngine(played), store, **more)
    try:
        yield answers
    finally:
        await answers.close()


async def ended(answers: Answers, run_id: str, owner: str = "ann") -> Run:
    found = await answers.follow(run_id, owner)
    async for _ in found.batches:
        pass
    return await answers.load(run_id, owner)


def numbers(run: Run, events: Sequence[Event]) -> list[int]:
    """Sequence numbers of all that goes over the wire."""
    lines = ResponseStream(run).write(events).decode().splitlines()
    return [json.loads(line[6:])["sequence_number"] for line in lines if line.startswith("data: ")]


async def left_behind(store: SqlStore, run: Run, events: Sequence[Event]) -> Run:
    """A run in the store as a process leaves it that dies after these events."""
    begun = replace(
        run, id=new_id("resp"), status="queued", output=(), usage=None, finished_at=None, tally={}
    )
    await store.begin(begun)
    await store.append(begun.id, 0, events)
    return begun


async def whole_run(store: SqlStore, played: Script, request: Request, tool: Counting) -> Run:
    async with rooms(store, played, tools=[tool]) as answers:
        answer = await answers.open(request, "ann")
        assert answer.run.status == "queued"
        return await ended(answers, answer.run.id)


@pytest.mark.parametrize("opening", [True, False])
async def test_a_run_that_is_cut_off_anywhere_comes_to_the_same_end(
    store: SqlStore, opening: bool
) -> None:
    played = script(*TOOLS, opening=opening)
    request = background(tools=(HostedTool("convert_length"),))
    first = await whole_run(store, played, request, Counting())
    assert [item.kind for item in first.output] == [
        "reasoning",
        "hosted_call",
        "reasoning",
        "message",
    ]
    events = await store.events(first.id, "ann")
    for cut in range(len(events)):
        tool = Counting()
        run = await left_behind(store, first, events[:cut])
        async with rooms(store, played, tools=[tool]) as answers:
            assert await answers.recover() == (1, 0)
            after = await ended(answers, run.id)
        told = await store.events(run.id, "ann")
        assert told[:cut] == events[:cut], cut
        assert numbers(after, told) == list(range(len(numbers(after, told)))), cut
        assert after.status == "completed", cut
        said = [item for item in after.output if isinstance(item, Message)]
        assert said[-1].text == PLAIN, cut
        assert said[-1].status == "completed", cut
        # The beginning and the end of a message are stored in one stroke with what is next to
        # them: no process dies in between.
        between = cut > 0 and events[cut - 1].kind in ("item_started", "part_started", "part_done")
        if opening and not between:
            assert len(said) == 1, cut
        done = any(
            isinstance(event, ItemDone) and isinstance(event.item, HostedCall)
            for event in events[:cut]
        )
        assert tool.runs == (0 if done else 1), cut
        joined = "".join(
            event.text for event in told if isinstance(event, Delta) and event.channel == "text"
        )
        assert joined == "".join(item.text for item in said), cut


async def test_what_was_counted_stays_counted(store: SqlStore) -> None:
    request = background(tools=(HostedTool("convert_length"),))
    first = await whole_run(store, script(*TOOLS), request, Counting())
    events = await store.events(first.id, "ann")
    cut = next(at for at, event in enumerate(events) if event.kind == "step_done") + 1
    run = await left_behind(store, first, events[:cut])
    async with rooms(store, script(*TOOLS), tools=[Counting()]) as answers:
        await answers.recover()
        after = await ended(answers, run.id)
    assert first.usage is not None
    assert after.usage == first.usage


async def test_a_run_that_kills_every_process_is_given_up(store: SqlStore) -> None:
    first = await whole_run(store, script(*TOOLS[1:]), background(), Counting())
    events = await store.events(first.id, "ann")
    begun = [*events[:2], *[RunResumed()] * 5]
    run = await left_behind(store, first, begun)
    async with rooms(store, script(*TOOLS[1:])) as answers:
        await answers.recover()
        after = await ended(answers, run.id)
    assert after.status == "failed"
    assert after.failure is not None
    assert "given up" in after.failure.message


async def test_a_foreground_run_is_ended_with_what_was_finished(store: SqlStore) -> None:
    async with rooms(store, script(*TOOLS), tools=[Counting()]) as answers:
        answer = await answers.open(ask("hello", tools=(HostedTool("convert_length"),)), "ann")
        first = await answer.whole()
        await answer.close()
    events = await store.events(first.id, "ann")
    for cut in range(len(events)):
        run = await left_behind(store, first, events[:cut])
        async with rooms(store, script(*TOOLS)) as answers:
            assert await answers.recover() == (0, 1)
            after = await answers.load(run.id, "ann")
        told = await store.events(run.id, "ann")
        assert told[:cut] == events[:cut]
        assert isinstance(told[-1], RunFinished)
        assert after.status == "failed"
        assert after.failure is not None
        assert "stopped" in after.failure.message
        assert numbers(after, told) == list(range(len(numbers(after, told))))


async def test_owners_take_turns(store: SqlStore) -> None:
    slow = script(Reply((Say("x"), Pause(0.01))))
    limits = BackgroundLimits(at_once=1)
    async with rooms(store, slow, background=limits) as answers:
        mine = [await answers.open(background(), "ann") for _ in range(4)]
        his = [await answers.open(background(), "bob") for _ in range(2)]
        order: list[str] = []

        async def watch(answer: Answer) -> None:
            await answer.whole()
            order.append(answer.run.owner)

        await asyncio.gather(*(watch(each) for each in (*mine, *his)))
    assert order == ["ann", "ann", "bob", "ann", "bob", "ann"] or order[:4].count("bob") == 2


async def test_the_queue_has_an_end(store: SqlStore) -> None:
    forever = script(Reply((Say("x"), Pause(1000))))
    async with rooms(store, forever, background=BackgroundLimits(1, 2)) as answers:
        for _ in range(3):
            await answers.open(background(), "ann")
        with pytest.raises(TooManyRequests, match="background_waiting"):
            await answers.open(background(), "ann")


async def test_cancelling_is_the_same_however_often(store: SqlStore) -> None:
    forever = ScriptedEngine(script(Reply((Say("x"), Pause(1000)))))
    answers = await room(forever, store, background=BackgroundLimits(at_once=1))
    running = await answers.open(background(), "ann")
    waiting = await answers.open(background(), "ann")
    async for batch in running.batches():
        if any(isinstance(event, Delta) for event in batch):
            break
    assert forever.active == 1
    for answer in (waiting, running):
        run = await answers.cancel(answer.run.id, "ann")
        assert run.status == "cancelled"
        assert await answers.cancel(answer.run.id, "ann") == run
        assert await store.load(answer.run.id, "ann") == run
    assert forever.active == 0
    await answers.close()


async def test_one_that_waits_can_be_deleted(store: SqlStore) -> None:
    forever = script(Reply((Say("x"), Pause(1000))))
    async with rooms(store, forever, background=BackgroundLimits(at_once=1)) as answers:
        await answers.open(background(), "ann")
        waiting = await answers.open(background(), "ann")
        await answers.delete(waiting.run.id, "ann")
        with pytest.raises(RequestError, match="not found"):
            await answers.load(waiting.run.id, "ann")


async def test_a_run_has_only_so_much_time(store: SqlStore) -> None:
    forever = script(Reply((Say("x"), Pause(1000))))
    async with rooms(store, forever, background=BackgroundLimits(within=0.05)) as answers:
        answer = await answers.open(background(), "ann")
        run = await ended(answers, answer.run.id)
    assert run.status == "failed"
    assert run.failure is not None
    assert "background_within" in run.failure.message


async def test_a_stop_leaves_background_runs_for_the_next_process(store: SqlStore) -> None:
    slow = script(Reply((Say("a b"), Pause(1000), Say(" c"))))
    async with rooms(store, slow, background=BackgroundLimits(at_once=1)) as answers:
        running = await answers.open(background(), "ann")
        waiting = await answers.open(background(), "ann")
        seen: list[Event] = []

        async def look_on() -> None:
            async for batch in running.batches():
                seen.extend(batch)
                if any(isinstance(event, Delta) for event in batch):
                    answers.shut_down()

        with pytest.raises(ShuttingDown):
            await look_on()
    quick = script(Reply((Say("a b c"),)))
    async with rooms(store, quick) as answers:
        assert await answers.recover() == (2, 0)
        for answer in (running, waiting):
            run = await ended(answers, answer.run.id)
            assert run.status == "completed"
            assert run.output[-1].text == "a b c"
    assert (await store.events(running.run.id, "ann"))[: len(seen)] == seen


async def test_a_conversation_is_answered_by_one_at_a_time(store: SqlStore) -> None:
    conversation = await store.conversations.create("ann", {}, ())
    forever = script(Reply((Say("x"), Pause(1000))))
    async with rooms(store, forever, conversations=store.conversations) as answers:
        first = await answers.open(background(conversation_id=conversation.id), "ann")
        for more in ({"background": True}, {"store": False}, {}):
            with pytest.raises(Conflict) as locked:
                await answers.open(ask(conversation_id=conversation.id, **more), "ann")
            assert locked.value.code == "conversation_locked"
        await answers.cancel(first.run.id, "ann")
        await first.parted()
        await asyncio.sleep(0)
        assert await store.conversations.history(conversation.id, "ann") == ()
    async with rooms(store, script(Reply((Say("y"),))), conversations=store.conversations) as again:
        for more in ({}, {"store": False}):
            request = replace(ask(conversation_id=conversation.id, **more))
            answer = await again.open(
                replace(request, input=(replace(request.input[0], id=new_id("msg")),)), "ann"
            )
            await answer.whole()
            await answer.close()
    kept = await store.conversations.history(conversation.id, "ann")
    assert [item.text for item in kept if isinstance(item, Message)] == ["hello", "y"] * 2
