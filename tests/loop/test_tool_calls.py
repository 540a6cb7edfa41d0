from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from loop_kit import FakeTime, ask, check_events, scene_for

from hosted_tool import ConvertLength
from ouzel.core.contracts import Invocation, Stage, ToolOutcome
from ouzel.core.errors import StoreError, ToolError
from ouzel.core.events import ItemDone, ItemStage
from ouzel.core.items import CustomCall, FunctionCall, HostedCall, Item
from ouzel.core.request import CustomTool, FunctionTool, Grammar, HostedTool
from ouzel.engines.scripted import Script
from ouzel.loop.budget import Clock
from ouzel.loop.tool_calls import LEAST_WITHIN, TOOL_WITHIN, Made, Wanted, make, want
from ouzel.loop.toolbox import Offer, Toolbox, open_toolbox

Body = Callable[[Invocation], AsyncGenerator[Stage | ToolOutcome, None]]
CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
WEATHER = FunctionTool("get_weather", "", CITY)
CONVERT = HostedTool("convert_length")


class Handmade:
    """A hosted tool whose calls do what the test says."""

    type = "handmade"
    id_prefix = "call"

    def __init__(self, body: Body) -> None:
        self._body = body
        self.running = 0

    def offer(self, asked: HostedTool) -> list[FunctionTool]:
        return [FunctionTool("handmade")]

    def begin(self, call: Invocation) -> Item:
        return HostedCall(call.id, self.type, call.name, call.arguments, status="in_progress")

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        self.running += 1
        try:
            async for step in self._body(call):
                yield step
        finally:
            self.running -= 1

    def wanted(self, arguments: str = "{}") -> Wanted:
        return Wanted(Offer(FunctionTool("handmade"), self, HostedTool("handmade")), arguments)


def converting(value: float, unit: str, to: str) -> Wanted:
    tool = ConvertLength()
    arguments = f'{{"value":{value},"unit":"{unit}","to":"{to}"}}'
    return Wanted(Offer(tool.offer(CONVERT)[0], tool, CONVERT), arguments)


async def test_a_call_of_the_clients_is_only_announced():
    scene, events = await scene_for(Script())
    made = await make(scene, [Wanted(Offer(WEATHER), '{"city":"Oslo"}')], "ann")
    (item,) = scene.output.items
    assert isinstance(item, FunctionCall)
    assert (item.name, item.arguments, item.status) == (
        "get_weather",
        '{"city":"Oslo"}',
        "completed",
    )
    assert made == [Made(item.call_id, "get_weather", '{"city":"Oslo"}')]
    check_events(events, scene.output.items)


async def test_a_custom_call_is_announced_as_such():
    scene, events = await scene_for(Script())
    made = await make(scene, [Wanted(Offer(CustomTool("sql")), "SELECT 1")], "ann")
    (item,) = scene.output.items
    assert isinstance(item, CustomCall)
    assert item.input == "SELECT 1"
    assert made[0].custom
    check_events(events, scene.output.items)


async def test_a_hosted_tool_runs_with_its_stages_and_its_output():
    scene, events = await scene_for(Script())
    (made,) = await make(scene, [converting(2, "km", "m")], "ann")
    (item,) = scene.output.items
    assert (made.output, item.output, item.status) == ("2000.0 m", "2000.0 m", "completed")
    assert [event.stage for event in events if isinstance(event, ItemStage)] == ["looking_up"]
    assert scene.tally.counts() == {"calls": 1, "hosted_calls": 1}
    check_events(events, scene.output.items)


async def test_a_tools_own_error_is_shown_to_the_model_and_fails_the_call_only():
    scene, events = await scene_for(Script())
    (made,) = await make(scene, [converting(2, "parsec", "m")], "ann")
    (item,) = scene.output.items
    assert "no unit 'parsec'" in made.output
    assert (item.status, item.error, item.output) == ("failed", made.output, None)
    assert scene.tally.counts()["failed_hosted_calls"] == 1
    check_events(events, scene.output.items)


async def test_an_outcome_that_failed_is_a_failed_call():
    async def body(call):
        yield ToolOutcome("nothing found", failed=True)

    scene, _ = await scene_for(Script())
    (made,) = await make(scene, [Handmade(body).wanted()], "ann")
    assert made.output == "nothing found"
    assert scene.output.items[0].status == "failed"


async def test_hosted_tools_run_side_by_side_and_end_in_their_order():
    both = asyncio.Barrier(3)
    ended = []

    async def body(call):
        await asyncio.wait_for(both.wait(), 10)  # each waits until all of them run
        await asyncio.sleep(0.03 if call.arguments == '{"n":0}' else 0)
        ended.append(call.arguments)
        yield ToolOutcome(call.arguments)

    scene, events = await scene_for(Script())
    wanted = [Handmade(body).wanted(f'{{"n":{n}}}') for n in range(3)]
    made = await make(scene, wanted, "ann")
    order = ['{"n":0}', '{"n":1}', '{"n":2}']
    assert [each.output for each in made] == order
    assert ended != order
    assert [event.item.output for event in events if isinstance(event, ItemDone)] == order
    check_events(events, scene.output.items)


async def test_hosted_tools_run_before_the_clients_calls_are_announced():
    scene, events = await scene_for(Script())
    wanted = [Wanted(Offer(WEATHER), '{"city":"Oslo"}'), converting(1, "m", "cm")]
    made = await make(scene, wanted, "ann")
    assert [item.kind for item in scene.output.items] == ["hosted_call", "function_call"]
    assert [each.output for each in made] == ["100.0 cm", None]
    check_events(events, scene.output.items)


class Unforeseen(Exception):
    """Nobody raises this on purpose."""


@pytest.mark.parametrize("error", [Unforeseen("secret"), StoreError("the disk is full")])
async def test_any_other_error_fails_the_run_and_ends_the_other_tools(error):
    async def fails(call):
        await asyncio.sleep(0)
        raise error
        yield

    async def waits(call):
        yield Stage("waiting")
        await asyncio.sleep(60)

    scene, events = await scene_for(Script())
    waiting = Handmade(waits)
    before = asyncio.all_tasks()
    with pytest.raises(type(error)):
        await make(scene, [waiting.wanted(), Handmade(fails).wanted()], "ann")
    assert waiting.running == 0
    assert asyncio.all_tasks() == before
    scene.emit(scene.output.close("incomplete"))
    assert [item.status for item in scene.output.items] == ["failed", "failed"]
    check_events(events, scene.output.items)


async def test_a_tool_that_takes_too_long_is_ended():
    cancelled = []

    async def body(call):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(call.id)
            raise
        yield ToolOutcome("never")

    scene, _ = await scene_for(Script())
    tool = Handmade(body)
    from ouzel.loop import tool_calls

    call = Invocation("call_1", HostedTool("handmade"), "handmade", "{}", "ann", 0.05)
    scene.output.begin(tool.begin(call), "{}")
    outcome = await tool_calls._run(scene, tool.wanted().offer, call)
    assert outcome.failed
    assert "No result within" in outcome.text
    assert cancelled == ["call_1"]
    assert tool.running == 0


async def test_a_time_out_of_the_tools_own_is_not_ours():
    """A forgotten one is a mistake like any other; it did not wait for our limit."""

    async def body(call):
        raise TimeoutError("the socket")
        yield

    scene, _ = await scene_for(Script())
    with pytest.raises(TimeoutError):
        await make(scene, [Handmade(body).wanted()], "ann")


async def test_a_tool_without_an_outcome_has_failed():
    async def body(call):
        yield Stage("busy")

    scene, _ = await scene_for(Script())
    (made,) = await make(scene, [Handmade(body).wanted()], "ann")
    assert "without an outcome" in made.output
    assert scene.output.items[0].status == "failed"


async def test_a_cancelled_run_leaves_no_task_and_no_open_item():
    async def body(call):
        yield Stage("busy")
        await asyncio.sleep(60)

    scene, events = await scene_for(Script())
    tool = Handmade(body)
    task = asyncio.create_task(make(scene, [tool.wanted(), tool.wanted()], "ann"))
    while tool.running < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tool.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    scene.emit(scene.output.close("incomplete"))
    check_events(events, scene.output.items)


@pytest.mark.parametrize(
    ("within", "passed", "expected"),
    [(0, 0, TOOL_WITHIN), (60, 0, 28.5), (60, 59, LEAST_WITHIN), (10_000, 0, TOOL_WITHIN)],
)
async def test_a_tool_gets_half_of_the_time_that_is_left(within, passed, expected):
    told = []

    async def body(call):
        told.append((call.within, call.owner, call.name))
        yield ToolOutcome("ok")

    now = FakeTime()
    clock = Clock(within, now.at - passed, now)
    scene, _ = await scene_for(Script(), ask(), clock)
    await make(scene, [Handmade(body).wanted()], "ann")
    assert told == [(pytest.approx(expected), "ann", "handmade")]


def box(*tools: FunctionTool | CustomTool) -> Toolbox:
    return open_toolbox(ask(tools=tools), {})


async def test_a_valid_call_is_wanted_as_it_is():
    scene, _ = await scene_for(Script())
    found = await want(scene, box(WEATHER), "get_weather", '{"city": "Oslo"}')
    assert isinstance(found, Wanted)
    assert found.arguments == '{"city": "Oslo"}'
    assert scene.tally.counts() == {}


async def test_a_tool_that_is_not_there_is_told_with_those_that_are():
    scene, _ = await scene_for(Script())
    trouble = await want(scene, box(WEATHER), "x" * 1000, "{}")
    assert isinstance(trouble, str)
    assert "get_weather" in trouble
    assert len(trouble) < 200


@pytest.mark.parametrize("arguments", ['{"town": 3}', "nonsense", "", "[1]", '{"city":'])
async def test_arguments_that_cannot_be_mended_are_told(arguments):
    scene, _ = await scene_for(Script())
    found = await want(scene, box(WEATHER), "get_weather", arguments)
    assert isinstance(found, str), found
    assert scene.tally.counts() == {"invalid_calls": 1}


@pytest.mark.parametrize(
    "arguments", ["{'city': 'Oslo'}", '```json\n{"city": "Oslo"}\n```', '{"city": "Oslo",}']
)
async def test_arguments_that_can_be_mended_are(arguments):
    scene, _ = await scene_for(Script())
    toolbox = box(WEATHER)
    found = await want(scene, toolbox, "get_weather", arguments)
    assert isinstance(found, Wanted)
    assert toolbox.callable[0].check(found.arguments) is None
    assert scene.tally.counts() == {"repaired_calls": 1}


async def test_text_for_a_custom_tool_keeps_to_its_grammar():
    scene, _ = await scene_for(Script())
    toolbox = box(CustomTool("number", grammar=Grammar("regex", "[0-9]+")))
    assert isinstance(await want(scene, toolbox, "number", "42"), Wanted)
    assert isinstance(await want(scene, toolbox, "number", "forty-two"), str)


async def test_a_tool_error_is_an_outcome_also_after_a_stage():
    async def body(call):
        yield Stage("busy")
        raise ToolError("no luck")

    scene, _ = await scene_for(Script())
    (made,) = await make(scene, [Handmade(body).wanted()], "ann")
    assert made.output == "no luck"
