"""What must be right in a run that is taken up again, beside its text: limits, calls, thinking."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from answer_kit import ask, room
from hosted_tool import ConvertLength
from ouzel.api.write_responses import ResponseStream
from ouzel.core.contracts import Tool
from ouzel.core.events import (
    Delta,
    Event,
    ItemDone,
    ItemStarted,
    PartDone,
    PartStarted,
    RunFinished,
    RunQueued,
    RunResumed,
    RunStarted,
)
from ouzel.core.items import CodeCall, FunctionCall, HostedCall, Message, Reasoning, Text, new_id
from ouzel.core.request import FunctionTool, HostedTool, Request, ToolChoice
from ouzel.core.runs import Run
from ouzel.core.turns import Usage
from ouzel.engines.scripted import CAPABILITIES, Call, Reply, Say, Script, ScriptedEngine
from ouzel.loop.output import INTERRUPTED
from ouzel.loop.resuming import MOST_TRIES
from ouzel.store import SqlStore, open_store

sys.path.append(str(Path(__file__).parents[1] / "loop"))
from code_kit import CODE, RunsCode

WORDS = "one two three four five six seven eight nine ten"
BEGUN: tuple[Event, ...] = (RunQueued(), RunStarted())


def background(**more) -> Request:
    return ask("hello", background=True, **more)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(tmp_path / "ouzel.db")
    yield opened
    await opened.close()


def open_message(text: str, index: int = 0) -> list[Event]:
    """An answer under way, a word a delta."""
    message = Message(f"msg_open{index}", "assistant", (), "in_progress")
    words = [f"{' ' if at else ''}{word}" for at, word in enumerate(text.split())]
    return [
        ItemStarted(index, message),
        PartStarted(index, message.id, 0, "text"),
        *(Delta(index, message.id, 0, "text", word) for word in words),
    ]


def whole_message(text: str, status: str = "completed") -> list[Event]:
    done = Message("msg_open0", "assistant", (Text(text),), status)  # type: ignore[arg-type]
    return [
        *open_message(text),
        PartDone(0, done.id, 0, "text", text),
        ItemDone(0, done),
    ]


async def taken_up(
    store: SqlStore,
    played: Script | ScriptedEngine,
    request: Request,
    events: Sequence[Event],
    tools: Sequence[Tool] = (),
) -> tuple[Run, list[Event], ScriptedEngine]:
    """A run that a process left after these events, as the next one ends it; its log has to be
    fit for the wire."""
    run = Run(new_id("resp"), "ann", "scripted", 0.0, request, status="queued")
    await store.begin(run)
    await store.append(run.id, 0, events)
    engine = played if isinstance(played, ScriptedEngine) else ScriptedEngine(played)
    answers = await room(engine, store, tools=tools)
    try:
        await answers.recover()
        found = await answers.follow(run.id, "ann")
        async for _ in found.batches:
            pass
    finally:
        await answers.close()
    told = await store.events(run.id, "ann")
    assert told[: len(events)] == list(events)
    after = await store.load(run.id, "ann")
    ResponseStream(after).write(told)
    started = [event.index for event in told if isinstance(event, ItemStarted)]
    assert started == sorted(set(started)), "each has a place of its own"
    done = {event.index: event.item for event in told if isinstance(event, ItemDone)}
    assert tuple(done[index] for index in sorted(done)) == after.output
    return after, told, engine


async def test_what_was_said_counts_against_the_limit(store: SqlStore) -> None:
    said = "one two three four"
    run, _, _ = await taken_up(
        store,
        Script((Reply((Say(WORDS),)),)),
        background(max_output_tokens=6),
        [*BEGUN, *open_message(said)],
    )
    assert run.status == "incomplete"
    assert run.output[-1].text == "one two three four five six"
    run, _, _ = await taken_up(
        store,
        Script((Reply((Say(WORDS),)),)),
        background(max_output_tokens=4),
        [*BEGUN, *open_message(said)],
    )
    assert run.status == "incomplete"
    assert run.output[-1].text == said


async def test_a_call_that_is_required_is_made(store: SqlStore) -> None:
    tool = FunctionTool("look", "Looks.", '{"type":"object","properties":{}}')
    played = Script((Reply((Say("Let me look."), Call("look"))),))
    request = background(tools=(tool,), tool_choice=ToolChoice("required"))
    run, _, _ = await taken_up(store, played, request, [*BEGUN, *open_message("Let me")])
    assert run.status == "completed"
    assert isinstance(run.output[-1], FunctionCall)


async def test_thinking_that_begins_open_does_not_swallow_the_rest_of_an_answer(
    store: SqlStore,
) -> None:
    played = Script((Reply((Say(WORDS),)),), thinks="open")
    run, _, _ = await taken_up(
        store, played, background(), [*BEGUN, *open_message("one two three")]
    )
    assert [item.kind for item in run.output] == ["message"]
    assert run.output[0].text == WORDS


async def test_code_that_was_never_whole_is_no_call(store: SqlStore) -> None:
    half = CodeCall("ci_1", "cntr_1", "print(", status="in_progress")
    events: list[Event] = [
        *BEGUN,
        ItemStarted(0, replace(half, code="")),
        PartStarted(0, "ci_1", 0, "code"),
        Delta(0, "ci_1", 0, "code", "print("),
        RunResumed(),
        PartDone(0, "ci_1", 0, "code", "print("),
        ItemDone(0, replace(half, status="incomplete")),
    ]
    tool = RunsCode()
    played = Script(
        (
            Reply((Call("python", '{"input": "print(42)"}'),), last="hello"),
            Reply((Say("It is 42."),)),
        ),
    )
    request = background(tools=(CODE,), max_tool_calls=1)
    run, _, _ = await taken_up(store, played, request, events, [tool])
    assert tool.ran == ["print(42)"]
    assert run.output[-1].text == "It is 42."


async def test_an_answer_after_code_goes_on_in_its_own_message(store: SqlStore) -> None:
    ran = CodeCall("ci_1", "cntr_1", "print(42)", (), "42", "completed")
    played = Script((Reply((Say("It is surely 42."),)),), tool_style="guided", thinks="no")
    events = [*BEGUN, ItemStarted(0, replace(ran, status="in_progress")), ItemDone(0, ran)]
    open_text = open_message("It is", 1)
    for said in ([], open_text):
        run, _, engine = await taken_up(
            store, played, background(tools=(CODE,)), [*events, *said], [RunsCode()]
        )
        assert run.output[-1].text == "It is surely 42."
        for turn in engine.turns:
            # Servers refuse two of the assistant's messages at the end, and go on with one.
            last = turn.messages[-1]
            assert last.role != "assistant", turn


async def test_what_has_ended_needs_nothing_any_more(store: SqlStore) -> None:
    # The engine would not be there, the history is gone, and the tool is not served any more.
    request = background(previous_id="resp_gone", tools=(HostedTool("gone"),))
    engine = ScriptedEngine(Script(()))
    run, told, _ = await taken_up(store, engine, request, [*BEGUN, *whole_message("All of it.")])
    assert run.status == "completed"
    assert run.output[0].text == "All of it."
    assert isinstance(told[-1], RunFinished)
    assert not engine.turns


async def test_an_answer_is_never_stored_whole_without_its_end(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its tokens, and that its limit cut it short, would be forgotten."""
    stored: list[str] = []
    finish = store.finish

    async def listen(run: Run, position: int, events: Sequence[Event]) -> None:
        stored.extend(event.kind for event in events)
        await finish(run, position, events)

    monkeypatch.setattr(store, "finish", listen)
    answers = await room(ScriptedEngine(Script((Reply((Say("one two", 0.03),)),))), store)
    answer = await answers.open(background(), "ann")
    await answer.whole()
    await answers.close()
    assert stored[-3:] == ["part_done", "item_done", "run_finished"]


async def test_compacting_closes_what_was_open_first(store: SqlStore) -> None:
    call = HostedCall("call_1", "convert_length", "convert_length", "{}", "long " * 40)
    events = [
        *BEGUN,
        ItemStarted(0, replace(call, output=None, status="in_progress")),
        PartStarted(0, "call_1", 0, "arguments"),
        Delta(0, "call_1", 0, "arguments", "{}"),
        PartDone(0, "call_1", 0, "arguments", "{}"),
        ItemDone(0, call),
        *open_message("one two", 1),
    ]
    played = Script((Reply((Say(WORDS),)),), context_window=200)
    request = background(tools=(HostedTool("convert_length"),), truncation="auto")
    older = (
        Message("msg_a", "user", (Text("Tell me more. " * 15),)),
        Message("msg_b", "assistant", (Text("This is more. " * 30),)),
    )
    request = replace(request, input=(*older, *request.input))
    run, _, _ = await taken_up(store, played, request, events, [ConvertLength()])
    assert run.status == "completed"
    kinds = [item.kind for item in run.output]
    assert kinds == ["hosted_call", "message", "compaction", "message"]
    assert run.output[-1].text == WORDS


@pytest.mark.parametrize("opening", [True, False])
async def test_what_only_begins_again_and_again_is_given_up(store: SqlStore, opening: bool) -> None:
    """Each process died a few words into the thinking, or the answer, of the same step."""
    events: list[Event] = [*BEGUN]
    for index in range(MOST_TRIES + 1):
        if index:
            events.append(RunResumed())
        if opening:
            thought = Reasoning(f"rs_{index}", status="in_progress")
            events += [
                ItemStarted(index, thought),
                PartStarted(index, thought.id, 0, "reasoning"),
                Delta(index, thought.id, 0, "reasoning", "Hm."),
            ]
            closed: Message | Reasoning = replace(thought, text="Hm.", status="incomplete")
            channel = "reasoning"
        else:
            events += open_message("one", index)
            closed = Message(f"msg_open{index}", "assistant", (Text("one"),), "incomplete")
            channel = "text"
        if index < MOST_TRIES:
            nothing = "Hm." if opening else "one"
            done = PartDone(index, closed.id, 0, channel, nothing)  # type: ignore[arg-type]
            # It is closed by the process that takes it up.
            events += [done, ItemDone(index, closed)]
    can = CAPABILITIES if opening else CAPABILITIES - {"opening"}
    played = Script((Reply((Say(WORDS),)),), capabilities=can)
    run, _, _ = await taken_up(store, played, background(), events)
    assert run.status == "failed"
    assert run.failure is not None
    assert "given up" in run.failure.message


async def test_an_interrupted_call_is_not_counted(store: SqlStore) -> None:
    call = HostedCall("call_1", "convert_length", "convert_length", "{}", status="failed")
    events = [
        *BEGUN,
        ItemStarted(0, replace(call, status="in_progress")),
        PartStarted(0, "call_1", 0, "arguments"),
        Delta(0, "call_1", 0, "arguments", "{}"),
        PartDone(0, "call_1", 0, "arguments", "{}"),
        RunResumed(),
        ItemDone(0, replace(call, error=INTERRUPTED)),
    ]
    arguments = '{"value":1,"unit":"m","to":"cm"}'
    played = Script(
        (Reply((Call("convert_length", arguments),), last="hello"), Reply((Say("{last}"),)))
    )
    request = background(tools=(HostedTool("convert_length"),), max_tool_calls=1)
    run, _, _ = await taken_up(store, played, request, events, [ConvertLength()])
    assert run.output[-1].text == "100.0 cm"
    assert run.usage is not None
    assert run.usage != Usage()
