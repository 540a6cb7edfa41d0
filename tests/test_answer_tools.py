"""What tools, deadlines and effort mean to the answering room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from answer_kit import ask, read, room
from doubles import scripted
from hosted_tool import ConvertLength
from ouzel.answer.preparing import Asked
from ouzel.core.errors import (
    RequestError,
)
from ouzel.core.items import CallOutput, CustomCall, FunctionCall, HostedCall, Message, Text
from ouzel.core.request import FunctionTool, HostedTool, Request
from ouzel.core.turns import Pace
from ouzel.engines.scripted import (
    Call,
    Die,
    Reply,
    Say,
    Script,
    ScriptedEngine,
    Stop,
    Think,
)
from ouzel.store import SqlStore, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = open_store(tmp_path / "ouzel.db")
    yield opened
    await opened.close()


def called(call_id: str = "call_1") -> FunctionCall:
    return FunctionCall(f"fc_{call_id}", call_id, "get_weather", "{}")


def custom(call_id: str = "call_1") -> CustomCall:
    return CustomCall(f"ctc_{call_id}", call_id, "sql", "SELECT 1")


def output(call_id: str = "call_1") -> CallOutput:
    return CallOutput(f"out_{call_id}", call_id, (Text("sunny"),))


USER = Message("msg_1", "user", (Text("weather?"),))


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ((USER, output()), "call_1"),
        ((USER, output(), called()), "call_1"),
        ((USER, called()), "call_1"),
        ((USER, custom()), "call_1"),
        ((USER, called(), custom("call_2"), output()), "call_2"),
        ((USER, called(), output(), called("call_3"), USER), "call_3"),
    ],
)
@pytest.mark.parametrize(("protocol", "param"), [("chat", "messages"), ("responses", "input")])
async def test_calls_and_outputs_belong_together(store, items, named, protocol, param):
    engine = scripted()
    answers = await room(engine, store)
    with pytest.raises(RequestError) as caught:
        await answers.open(
            Request(protocol=protocol, model="o4-mini", input=items, store=True), "ann"
        )
    assert named in caught.value.message
    assert (caught.value.param, caught.value.status) == (param, 400)
    assert answers._limiter.running == 0
    assert not engine.turns


@pytest.mark.parametrize(
    "items",
    [
        (USER, called(), output()),
        (USER, called(), custom("call_2"), output("call_2"), output()),
        (USER, HostedCall("call_9", "own", "f", "{}", "done"), USER),
    ],
)
async def test_calls_with_their_outputs_are_taken(store, items):
    answers = await room(scripted(), store)
    request = Request(protocol="responses", model="o4-mini", input=items)
    run, _ = await read(answers, request)
    assert run.status == "completed"


async def test_a_call_of_an_earlier_run_wants_its_output(store):
    engine = ScriptedEngine(
        Script((Reply((Say("Sunny."),), last="sunny"), Reply((Call("get_weather", "{}"),))))
    )
    answers = await room(engine, store)
    tools = (FunctionTool("get_weather"),)
    first, _ = await read(answers, ask("weather?", tools=tools))
    (call,) = first.output
    with pytest.raises(RequestError, match=call.call_id):
        await answers.open(ask("and now?", previous_id=first.id), "ann")
    request = Request(
        "responses", "o4-mini", (output(call.call_id),), previous_id=first.id, tools=tools
    )
    second, _ = await read(answers, request)
    assert second.output[0].text == "Sunny."


@pytest.mark.parametrize(("given", "expected"), [(None, 45.0), (7.5, 7.5), (0.0, 0.0)])
async def test_the_deadline_is_the_requests_or_the_servers(store, given, expected):
    engine = scripted()
    answers = await room(engine, store, answer_within=45.0)
    run, _ = await read(answers, ask(answer_within=given))
    assert run.request.answer_within == expected
    before = time.monotonic()
    answer = await answers.open(ask(answer_within=given), "ann")
    await answer.close()
    task = await answers.preparing.task(Asked(run.request, "ann", before))
    assert task.clock.within == expected
    assert task.clock.limited == (expected > 0)


async def test_an_answer_ends_with_its_time(store):
    engine = ScriptedEngine(
        Script((Reply((Say("One is done. " * 200, delay=0.01),)),), pace=Pace(1e5, 300))
    )
    answers = await room(engine, store)
    began = time.monotonic()
    run, _ = await read(answers, ask(answer_within=1.0, effort="none"))
    assert time.monotonic() - began < 5
    assert run.status == "completed"
    assert run.output[0].text.rstrip().endswith("One is done.")
    assert run.tally == {"hurried": 1}


async def test_effort_is_medium_where_the_request_does_not_say(store):
    answers = await room(scripted(), store)
    run, _ = await read(answers, ask())
    assert run.request.effort == "medium"
    assert answers.engine.turns[-1].effort == "medium"
    run, _ = await read(answers, ask(effort="none"))
    assert run.request.effort == "none"


async def test_what_happened_is_counted_and_kept(store):
    convert = '{"value":2,"unit":"km","to":"m"}'
    engine = ScriptedEngine(
        Script(
            (
                Reply((Say("{last}"),), last=" m$"),
                Reply((Think("hm"), Call("convert_length", convert))),
            )
        )
    )
    answers = await room(engine, store, tools=(ConvertLength(),))
    assert answers.hosted == {"convert_length"}
    run, _ = await read(answers, ask("2 km in m?", tools=(HostedTool("convert_length"),)))
    assert run.tally == {"calls": 1, "hosted_calls": 1}
    kept = await store.load(run.id, "ann")
    assert kept.tally == run.tally
    assert kept.output == run.output
    assert answers._meter.runs[0][0].tally == run.tally


async def test_what_happened_before_a_failure_is_counted_too(store):
    engine = ScriptedEngine(
        Script(
            (
                Reply((Die("gone"),), last="not"),
                Reply((Call("get_weather", "nonsense"),)),
            )
        )
    )
    answers = await room(engine, store)
    run, _ = await read(answers, ask(tools=(FunctionTool("get_weather"),)))
    assert run.status == "failed"
    assert run.tally["invalid_calls"] >= 1
    assert (await store.load(run.id, "ann")).tally == run.tally


async def test_cancelling_ends_a_tool_that_runs(store):
    cancelled = []

    class Sleepy(ConvertLength):
        async def run(self, call):
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.append(call.id)
            yield

    engine = scripted(Call("convert_length", '{"value":2,"unit":"km","to":"m"}'))
    answers = await room(engine, store, tools=(Sleepy(),))
    answer = await answers.open(ask(tools=(HostedTool("convert_length"),)), "ann")
    batches = answer.batches()
    await anext(batches)
    while not any(item.kind == "hosted_call" for item in answer._output.items):
        await anext(batches)
    await answers.delete(answer.run.id, "ann")
    await answer.close()
    assert len(cancelled) == 1
    assert engine.active == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_tool_that_is_not_served_is_refused_before_anything_is_kept(store):
    answers = await room(scripted(), store)
    with pytest.raises(RequestError) as caught:
        await answers.open(ask(tools=(HostedTool("web_search"),)), "ann")
    assert caught.value.param == "tools[0].type"
    assert answers._limiter.running == 0


async def test_a_run_that_was_cut_keeps_its_usage(store):
    answers = await room(scripted(Say("so far"), Stop("length")), store)
    run, _ = await read(answers, ask())
    assert (run.status, run.incomplete) == ("incomplete", "max_output_tokens")
    assert run.usage.output_tokens == 2
