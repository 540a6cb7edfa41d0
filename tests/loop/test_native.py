"""Models that think in their own way, over whole runs; `test_native_calls` has their calls."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from loop_kit import FakeTime, TickingEngine, ask, play, script

from ouzel.core.items import Reasoning
from ouzel.core.turns import Pace
from ouzel.engines.scripted import CAPABILITIES, Reply, Say, Script, ScriptedEngine, Think
from ouzel.loop.budget import NATIVE, Clock
from ouzel.loop.native import CLOSED

NOTES = "no more time to think"
LONG = Think("hm " * 10_000)


def thought(played) -> str:
    return "".join(item.text for item in played.items if isinstance(item, Reasoning))


# Thinking and its budget.


async def test_a_long_thinker_at_low_effort_answers_within_its_budget():
    replies = (Reply((Say("It is 42."),), last=NOTES), Reply((LONG, Say("too late"))))
    played = await play(Script(replies, context_window=50_000), ask("q?", effort="low"))
    assert played.kinds == ["reasoning", "message"]
    assert played.text == "It is 42."
    assert played.outcome.status == "completed"
    assert played.outcome.usage.reasoning_tokens <= NATIVE["low"] + 2
    assert played.tally == {"wound_up": 1}
    assert played.turns[-1].effort == "none"
    assert "hm hm" in played.turns[-1].messages[-1].text
    assert thought(played).split() == ["hm"] * played.outcome.usage.reasoning_tokens


@pytest.mark.parametrize("effort", ["none", "minimal", "low"])
async def test_a_thinker_that_never_stops_is_bounded(effort):
    able = CAPABILITIES - {"opening"}
    script = Script((Reply((LONG,)),), context_window=50_000, capabilities=able)
    played = await play(script, ask(effort=effort))
    usage = played.outcome.usage
    assert usage.output_tokens <= 3 * NATIVE["low"]
    # There is no answer, and that is told.
    assert played.outcome.status == "incomplete" or played.text


async def test_who_thinks_ten_thousand_tokens_whatever_it_is_told_answers_within_its_budget():
    replies = (Reply((Think("hm " * 10_000), Say("It is 42."))),)
    played = await play(Script(replies, context_window=50_000), ask("q?", effort="low"))
    assert (played.kinds, played.text) == (["reasoning", "message"], "It is 42.")
    assert played.outcome.status == "completed"
    assert played.outcome.usage.reasoning_tokens <= NATIVE["low"] * 1.25
    assert played.turns[-1].opening == CLOSED


async def test_a_thinker_that_thinks_on_after_its_notes_still_answers():
    """Templates differ in whether thinking can be turned off."""
    replies = (
        Reply((Think("just a little more "), Say("It is 42.")), last=NOTES),
        Reply((LONG,)),
    )
    played = await play(Script(replies, context_window=50_000), ask(effort="low"))
    assert played.text == "It is 42."
    assert "little more" not in played.text


@pytest.mark.parametrize(("effort", "tokens"), [("minimal", 128), ("low", 1024)])
async def test_effort_is_a_budget(effort, tokens):
    replies = (Reply((Say("So."),), last=NOTES), Reply((LONG,)))
    played = await play(Script(replies, context_window=50_000), ask(effort=effort))
    assert len(thought(played).split()) == tokens


async def test_thinking_in_large_deltas_counts_as_much():
    word = "x" * 600  # one token for the script, some hundred for a tokenizer
    replies = (Reply((Say("So."),), last=NOTES), Reply((Think(f"{word} " * 1000),)))
    played = await play(Script(replies, context_window=50_000), ask(effort="minimal"))
    assert len(thought(played)) <= (128 + 100) * 6


async def test_no_effort_shows_no_thinking_of_a_model_that_cannot_be_quiet():
    replies = (Reply((Say("So."),), last=NOTES), Reply((LONG,)))
    played = await play(Script(replies, context_window=50_000), ask(effort="none"))
    assert played.text == "So."
    assert played.outcome.usage.reasoning_tokens <= 2


async def test_thinking_ends_in_time_for_the_answer():
    now = FakeTime()
    replies = (Reply((Say("It is 42. And more."),), last=NOTES), Reply((LONG,)))
    engine = TickingEngine(
        Script(replies, context_window=50_000, pace=Pace(1000, 1000)), now, seconds=0.1
    )
    began = now.at
    played = await play(engine, ask(effort="high"), clock=Clock(60, began, now))
    assert now.at - began <= 60
    assert played.text.startswith("It is 42.")
    assert played.outcome.status == "completed"
    assert played.tally["wound_up"] == 1


async def test_thinking_tags_are_counted_and_wound_up_too():
    replies = (
        Reply((Say("It is 42."),), last=NOTES),
        Reply((Say("<think>" + "hm " * 10_000 + "</think>late"),)),
    )
    played = await play(Script(replies, context_window=50_000, thinks="tags"), ask(effort="low"))
    assert played.text == "It is 42."
    assert "<think>" not in thought(played)
    assert 1000 <= len(thought(played).split()) <= 1026


async def test_open_thinker_that_answers_at_once():
    """With its notes given back there is nothing left to think: no closing tag comes."""
    replies = (Reply((Say("It is 42."),), last=NOTES), Reply((Say("hm " * 10_000),)))
    played = await play(Script(replies, context_window=50_000, thinks="open"), ask(effort="low"))
    assert played.text == "It is 42."


async def test_an_open_thinker_answers_after_its_tag():
    played = await play(script(Say("why\n</think>\n\nbecause"), thinks="open"))
    assert (thought(played), played.text) == ("why\n", "because")


async def test_a_model_that_only_thinks_is_asked_for_its_answer():
    replies = (Reply((Say("It is 42."),), last=NOTES), Reply((Think("hm hm"),)))
    played = await play(Script(replies))
    assert played.text == "It is 42."


@pytest.mark.parametrize("summary", ["auto", "concise", "detailed"])
async def test_a_summary_belongs_to_the_thinking_before_the_answer(summary):
    replies = (
        Reply((Say("Working it out."),), last="Sum up"),
        Reply((Think("hm hm"), Say("It is 42."))),
    )
    played = await play(Script(replies), ask(effort="low", summary=summary))
    assert played.kinds == ["reasoning", "message"]
    reasoning = played.items[0]
    assert len(reasoning.summary) == 1
    assert "Working it out." in reasoning.summary[0]
    assert played.text == "It is 42."
    assert played.tally["summaries"] == 1


class OneSlot(ScriptedEngine):
    """Takes one turn at a time, as an engine with a single slot does."""

    async def stream(self, turn, halt=None):
        assert self.active == 0, "a second turn while the first is open"
        async with aclosing(super().stream(turn, halt)) as deltas:
            async for delta in deltas:
                yield delta


SUMMED = Script(
    (
        Reply((Say("Working it out."),), last="Sum up"),
        Reply((Think("hm hm"), Say("It is 42, all in all."))),
    )
)


async def test_a_summary_needs_no_second_slot():
    played = await play(OneSlot(SUMMED), ask(summary="auto"))
    assert played.kinds == ["reasoning", "message"]


async def test_a_summarys_prompt_is_not_the_steps():
    played = await play(SUMMED, ask(summary="auto"))
    usage = played.outcome.usage
    assert usage.input_tokens == await played.engine.count_tokens(played.turns[0])
    assert usage.output_tokens == 2 + 6 + 3
    assert usage.reasoning_tokens == 2 + 3


@pytest.mark.parametrize("most", range(3, 12))
async def test_with_a_summary_the_limit_of_the_request_holds_too(most):
    played = await play(SUMMED, ask(summary="auto", max_output_tokens=most))
    assert played.outcome.usage.output_tokens <= most


async def test_thinking_in_a_channel_is_never_the_answer():
    replies = (Reply((Think("secret thought"),), last=NOTES), Reply((LONG,)))
    played = await play(Script(replies, context_window=50_000), ask(effort="low"))
    assert "secret" not in played.text


async def test_no_summary_without_thinking_nor_unasked():
    played = await play(script(Say("Hi.")), ask(summary="auto"))
    assert played.kinds == ["message"]
    played = await play(script(Think("hm"), Say("Hi.")))
    assert played.items[0].summary == ()


async def test_the_limit_of_the_request_ends_thinking_as_incomplete():
    played = await play(Script((Reply((LONG,)),), context_window=50_000), ask(max_output_tokens=50))
    assert played.outcome.status == "incomplete"
    assert played.outcome.incomplete == "max_output_tokens"
    assert played.outcome.usage.output_tokens == 50


@pytest.mark.parametrize("summary", [None, "auto"])
async def test_thinking_between_two_texts_loses_and_doubles_nothing(summary):
    replies = (
        Reply((Say("Summed up."),), last="Sum up"),
        Reply((Say("One. "), Think("hm"), Say("Two. "), Think("hm"), Say("Three."))),
    )
    played = await play(Script(replies), ask(summary=summary))
    assert played.text == "One. Two. Three."
    assert thought(played) == "hmhm"
