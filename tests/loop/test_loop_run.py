from __future__ import annotations

import asyncio

import loop_kit
import pytest
from loop_kit import ask, script, task_for

from ouzel.core.errors import EngineDied, EngineError
from ouzel.core.events import Delta, Event, ItemStarted
from ouzel.core.items import Message, Reasoning
from ouzel.core.turns import TextDelta, Usage
from ouzel.engines.scripted import Call, Die, Fail, Pause, Say, ScriptedEngine, Step, Stop, Think
from ouzel.loop.output import Output
from ouzel.loop.run import Outcome, run
from ouzel.loop.tally import Tally


async def play(*steps: Step, **more) -> tuple[Outcome | None, list[Event], Output]:
    played = await loop_kit.play(script(*steps), ask(**more))
    return played.outcome, played.events, played.output


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


async def test_text_becomes_one_message():
    outcome, events, output = await play(Say("one two"))
    assert kinds(events) == [
        "item_started",
        "part_started",
        "delta",
        "delta",
        "part_done",
        "item_done",
    ]
    assert outcome == Outcome("completed", Usage(3, 0, 2, 0))
    assert [item.text for item in output.items] == ["one two"]
    assert {event.item_id for event in events if isinstance(event, Delta)} == {output.items[0].id}


async def test_thinking_comes_first_as_an_item_of_its_own():
    outcome, events, output = await play(Think("hm well"), Say("yes"))
    thought, message = output.items
    assert isinstance(thought, Reasoning)
    assert isinstance(message, Message)
    assert (thought.text, message.text) == ("hm well", "yes")
    assert outcome.usage.reasoning_tokens == 2
    assert [event.index for event in events if isinstance(event, ItemStarted)] == [0, 1]


@pytest.mark.parametrize(
    ("reason", "incomplete"), [("length", "max_output_tokens"), ("filter", "content_filter")]
)
async def test_an_answer_that_was_cut_is_incomplete_and_kept(reason, incomplete):
    outcome, _, output = await play(Say("so far"), Stop(reason))
    assert (outcome.status, outcome.incomplete) == ("incomplete", incomplete)
    assert output.items[0].status == "incomplete"
    assert output.items[0].text == "so far"


async def test_the_token_limit_cuts_the_answer():
    outcome, _, output = await play(Say("a b c d e"), max_output_tokens=3)
    assert outcome.incomplete == "max_output_tokens"
    assert output.items[0].text == "a b c"


async def test_an_empty_answer_is_still_one_message():
    outcome, events, output = await play(Stop("stop"))
    assert outcome.status == "completed"
    assert [item.text for item in output.items] == [""]
    assert kinds(events)[-1] == "item_done"


@pytest.mark.parametrize("thinks", ["no", "channel"])
async def test_a_death_in_mid_stream_keeps_what_was_said(thinks):
    played = await loop_kit.play(script(Say("half a sen"), Die("gone"), thinks=thinks), fails=True)
    assert isinstance(played.error, EngineDied)
    assert kinds(played.events)[-2:] == ["part_done", "item_done"]
    assert played.items[0].status == "incomplete"
    assert played.items[0].text == "half a sen"


@pytest.mark.parametrize("thinks", ["no", "channel"])
async def test_a_call_that_nobody_offered_is_an_error(thinks):
    played = await loop_kit.play(script(Call("weather"), thinks=thinks), fails=True)
    assert isinstance(played.error, EngineError)
    assert "none was offered" in played.error.message


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_errors_of_the_engine_are_passed_on(status):
    played = await loop_kit.play(script(Fail("no", status)), fails=True)
    assert "no" in str(played.error)
    assert played.items == []


class Silent(ScriptedEngine):
    """Ends its turns without a word about it."""

    async def stream(self, turn, halt=None):
        yield TextDelta("half")


@pytest.mark.parametrize("thinks", ["no", "channel"])
async def test_a_turn_without_an_end_is_an_error(thinks):
    played = await loop_kit.play(Silent(script(Say("x"), thinks=thinks)), fails=True)
    assert isinstance(played.error, EngineDied)
    assert played.text == "half"


@pytest.mark.parametrize("thinks", ["no", "channel"])
async def test_cancelling_frees_the_engine_and_closes_the_item(thinks):
    engine = ScriptedEngine(script(Say("a b"), Pause(60), Say("never"), thinks=thinks))
    await engine.start()
    events: list[Event] = []
    output = Output()
    job = task_for(engine, ask())
    task = asyncio.create_task(run(engine, job, output, Tally(), events.append))
    while not events:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.active == 0
    assert output.items[0].text == "a b"
    assert kinds(events)[-1] == "item_done"


def test_counts_are_kept_by_name():
    tally = Tally()
    tally.add("calls")
    tally.add("calls", 2)
    tally.add("hurried")
    assert tally.counts() == {"calls": 3, "hurried": 1}
