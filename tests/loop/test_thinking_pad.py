"""The scratchpad of models that were not trained to think, its summary, and the deadline."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import HELLO, FakeTime, TickingEngine, ask, guided_script, play, scene_for

from ouzel.core.turns import Pace
from ouzel.engines.scripted import CAPABILITIES, Reply, Say, Script
from ouzel.loop import thinking
from ouzel.loop import thinking_words as words
from ouzel.loop.budget import SCRATCHPAD, Clock
from ouzel.loop.thinking import _Until

SUMS = "Ann has 3 apples and buys 4 more. How many has she?"
PAD = "^<think>"


def pad(*steps, opening: str = PAD) -> Reply:
    return Reply(steps, opening=opening)


async def test_it_thinks_before_it_answers_and_counts_it_exactly():
    played = await play(guided_script(pad(Say("3 and 4 make 7"))), ask(SUMS, effort="high"))
    assert played.kinds == ["reasoning", "message"]
    assert played.items[0].text.strip() == "3 and 4 make 7"
    assert played.text == "Plain answer."
    usage = played.outcome.usage
    assert usage.reasoning_tokens == 5
    assert usage.output_tokens == 5 + 2
    assert usage.input_tokens == await played.engine.count_tokens(played.turns[0])
    assert "3 and 4 make 7" in "".join(m.text for m in played.turns[-1].messages)


@pytest.mark.parametrize("effort", ["none", "minimal"])
async def test_little_effort_is_none(effort):
    played = await play(guided_script(pad(Say("hm"))), ask(SUMS, effort=effort))
    assert played.kinds == ["message"]
    assert len(played.turns) == 1


async def test_an_engine_that_cannot_go_on_from_an_opening_does_not_think_so():
    can = CAPABILITIES - {"opening"}
    played = await play(guided_script(pad(Say("hm")), capabilities=can), ask(SUMS, effort="high"))
    assert played.kinds == ["message"]


async def test_thinking_without_an_end_is_wound_up_at_its_budget():
    played = await play(guided_script(pad(Say("hm " * 5000))), ask(SUMS, effort="high"))
    assert played.outcome.usage.reasoning_tokens == SCRATCHPAD["high"]
    assert played.text == "Plain answer."
    assert played.tally == {"wound_up": 1}


@pytest.mark.parametrize("end", ["</think>", " </think>\n", "</think> and more </think>"])
async def test_the_end_of_the_thinking_is_not_shown(end):
    played = await play(guided_script(pad(Say(f"so it is 7{end}"))), ask(SUMS, effort="high"))
    assert played.items[0].text.strip() == "so it is 7"
    assert "</" not in played.text
    assert "wound_up" not in played.tally


async def test_a_small_limit_leaves_room_for_the_answer():
    played = await play(
        guided_script(pad(Say("hm " * 5000))), ask(SUMS, effort="high", max_output_tokens=150)
    )
    assert played.text == "Plain answer."
    assert played.outcome.usage.output_tokens <= 150


@pytest.mark.parametrize("seconds", [5, 15, 60])
async def test_thinking_ends_in_time_for_the_answer(seconds):
    now = FakeTime()
    script = guided_script(
        pad(Say("hm " * 5000)), Reply((Say("One. " * 3000),)), pace=Pace(1e5, 10)
    )
    engine = TickingEngine(script, now, seconds=0.1)
    began = now.at
    played = await play(engine, ask(SUMS, effort="high"), clock=Clock(seconds, began, now))
    assert now.at - began <= seconds
    assert played.outcome.status == "completed"
    assert played.text.rstrip().endswith("One.")
    assert played.text.strip()


async def test_an_engine_slower_than_it_said_still_ends_in_time():
    now = FakeTime()
    script = guided_script(
        pad(Say("hm " * 5000)), Reply((Say("One. " * 3000),)), pace=Pace(1e5, 1e4)
    )
    played = await play(
        TickingEngine(script, now, seconds=0.5),
        ask(SUMS, effort="high"),
        clock=Clock(30, now.at, now),
    )
    assert now.at - 1000 <= 30
    assert played.outcome.status == "completed"


async def test_where_time_is_short_the_model_is_told_how_many_words_it_has():
    now = FakeTime()
    script = guided_script(pace=Pace(1e5, 10))
    engine = TickingEngine(script, now, seconds=0.01)
    played = await play(engine, ask("hello", effort="none"), clock=Clock(10, now.at, now))
    assert "words" in played.turns[-1].messages[-1].text
    assert played.turns[-1].messages[-1].text.startswith("hello")


@pytest.mark.parametrize("summary", ["auto", "concise", "detailed"])
async def test_a_summary_is_written_from_the_thinking(summary):
    played = await play(
        guided_script(Reply((Say("Adding apples."),), last="Sum up"), pad(Say("3 and 4 make 7"))),
        ask(SUMS, effort="high", summary=summary),
    )
    assert played.kinds == ["reasoning", "message"]
    (text,) = played.items[0].summary
    assert "Adding apples." in text
    assert text.startswith("**") == (summary == "detailed")
    assert played.tally == {"summaries": 1}
    usage = played.outcome.usage
    assert usage.reasoning_tokens == 5 + 2
    assert usage.output_tokens == 5 + 2 + 2


async def test_a_summary_that_does_not_end_is_cut_where_it_is_whole():
    endless = Reply((Say("First this. " + "and that " * 500),), last="Sum up")
    played = await play(
        guided_script(endless, pad(Say("hm"))), ask(SUMS, effort="high", summary="concise")
    )
    (text,) = played.items[0].summary
    assert text == "First this."


async def test_a_summary_that_has_no_time_is_left_out():
    now = FakeTime()
    slow = Script((Reply((Say("Never."),)),), pace=Pace(1e5, 0.5))
    scene, _ = await scene_for(slow, ask(summary="auto"), Clock(10, now.at, now))
    scene.emit(scene.output.think("hm"))
    await thinking.summarise(scene, HELLO, "hm")
    scene.emit(scene.output.close())
    assert scene.output.items[0].summary == ()


@given(st.text(alphabet="a</think>", max_size=60), st.lists(st.integers(0, 80), max_size=6))
def test_what_comes_before_the_mark_is_kept_however_it_is_cut(text, places):
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    until = _Until(words.CLOSING)
    shown = "".join(until.feed(text[a:b]) for a, b in pairwise(at)) + until.end()
    assert shown == until.text == text.split(words.CLOSING)[0]
    assert until.over == (words.CLOSING in text)


@given(
    st.lists(
        st.sampled_from(
            ["word ", "end. ", "\n", "```\n", "~~~\n", "- item\n", "Dr. ", "3.14 ", "# head\n"]
        ),
        max_size=30,
    ).map("".join)
)
def test_what_is_whole_is_always_a_beginning(text):
    kept = words.whole(text)
    end = words.whole_until(text)
    assert 0 <= end <= len(text)
    assert kept.startswith(text[:end])
