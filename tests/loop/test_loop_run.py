from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import scripted
from ouzel.core.errors import EngineDied, EngineError
from ouzel.core.events import Delta, Event, ItemDone, ItemStarted, PartDone, PartStarted
from ouzel.core.items import Message, Reasoning, TokenLogprob
from ouzel.core.turns import Turn, TurnMessage, Usage
from ouzel.engines.scripted import Call, Die, Pause, Say, Step, Stop, Think
from ouzel.loop.output import Output
from ouzel.loop.run import Outcome, run

TURN = Turn((TurnMessage("user", "hello there"),))


async def play(*steps: Step, turn: Turn = TURN) -> tuple[Outcome, list[Event], Output]:
    engine = scripted(*steps)
    await engine.start()
    events: list[Event] = []
    output = Output()
    outcome = await run(engine, turn, output, events.append)
    return outcome, events, output


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
    turn = Turn(TURN.messages, max_tokens=3)
    outcome, _, output = await play(Say("a b c d e"), turn=turn)
    assert outcome.incomplete == "max_output_tokens"
    assert output.items[0].text == "a b c"


async def test_an_empty_answer_is_still_one_message():
    outcome, events, output = await play(Stop("stop"))
    assert outcome.status == "completed"
    assert [item.text for item in output.items] == [""]
    assert kinds(events)[-1] == "item_done"


async def test_a_death_in_mid_stream_keeps_what_was_said():
    engine = scripted(Say("half a sen"), Die("gone"))
    await engine.start()
    events: list[Event] = []
    output = Output()
    with pytest.raises(EngineDied, match="gone"):
        await run(engine, TURN, output, events.append)
    assert kinds(events)[-2:] == ["part_done", "item_done"]
    assert output.items[0].status == "incomplete"
    assert output.items[0].text == "half a sen"


async def test_a_call_that_nobody_offered_is_an_error():
    with pytest.raises(EngineError, match="none was offered"):
        await play(Call("weather"))


async def test_cancelling_frees_the_engine_and_closes_the_item():
    engine = scripted(Say("a b"), Pause(60), Say("never"))
    await engine.start()
    events: list[Event] = []
    output = Output()
    task = asyncio.create_task(run(engine, TURN, output, events.append))
    while not events:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.active == 0
    assert output.items[0].text == "a b"
    assert kinds(events)[-1] == "item_done"


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=5)), max_size=20))
def test_any_order_of_deltas_gives_well_formed_events(pieces: list[tuple[bool, str]]):
    output = Output()
    events: list[Event] = []
    for thinking, text in pieces:
        events += output.think(text) if thinking else output.say(text)
    events += output.close()
    started = [event for event in events if isinstance(event, ItemStarted)]
    done = [event for event in events if isinstance(event, ItemDone)]
    assert [e.index for e in started] == [e.index for e in done] == list(range(len(started)))
    assert [event.item for event in done] == output.items
    for index, item in enumerate(output.items):
        of_item = [e for e in events if not isinstance(e, ItemStarted | ItemDone)]
        mine = [e for e in of_item if e.index == index]
        assert isinstance(mine[0], PartStarted)
        assert isinstance(mine[-1], PartDone)
        assert "".join(e.text for e in mine[1:-1]) == mine[-1].text == item.text


def test_logprobs_of_all_deltas_are_in_the_finished_text():
    output = Output()
    first, second = TokenLogprob("a", -1.0), TokenLogprob("b", -2.0)
    output.say("a", (first,))
    output.say("b", (second,))
    output.close()
    message = output.items[0]
    assert isinstance(message, Message)
    assert message.parts[0].logprobs == (first, second)
