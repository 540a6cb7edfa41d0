"""What is kept of a conversation and what is not, and the turn in which notes are taken."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from loop_kit import FakeTime

from ouzel.core.errors import EngineError
from ouzel.core.events import ItemDone, ItemStarted, StepDone
from ouzel.core.items import (
    CallOutput,
    CodeCall,
    Compaction,
    CustomCall,
    File,
    FunctionCall,
    HostedCall,
    Message,
    Reasoning,
    Text,
)
from ouzel.core.request import Request
from ouzel.core.turns import Pace
from ouzel.engines.scripted import Fail, Pause, Reply, Say, Script, ScriptedEngine
from ouzel.loop import compacted, context
from ouzel.loop.budget import Clock
from ouzel.loop.compacted import Left, Line
from ouzel.loop.compacting import Compacting, compact
from ouzel.loop.compacting_choice import fitted, lines_of, must, parted, size_of
from ouzel.loop.output import Output
from ouzel.loop.run import Task
from ouzel.loop.scene import Scene
from ouzel.loop.tally import Tally


def user(text: str) -> Message:
    return Message(f"msg_{text}", "user", (Text(text),))


def model(text: str) -> Message:
    return Message(f"msg_{text}", "assistant", (Text(text),))


def told(text: str) -> Message:
    return Message(f"msg_{text}", "developer", (Text(text),))


def call(name: str, number: int) -> FunctionCall:
    return FunctionCall(f"fc_{number}", f"call_{number}", name, '{"q": 1}')


def output(text: str, number: int) -> CallOutput:
    return CallOutput(f"fco_{number}", f"call_{number}", (Text(text),))


ROUNDS = tuple(
    item for n in range(8) for item in (user(f"My number is {n}."), model(f"Noted {n}. " * 20))
)


# What is kept whole.


def test_the_newest_rounds_are_kept_whole_and_older_ones_are_not():
    items = (*ROUNDS, user("And now?"))
    older, kept = parted(items, 3 * size_of(ROUNDS[-2:]))
    assert (*older, *kept) == items
    assert kept == [*ROUNDS[-2:], items[-1]]
    assert kept[0].role == "user"


def test_the_last_message_is_kept_even_without_any_room():
    older, kept = parted((*ROUNDS, user("And now?")), 0)
    assert [item.text for item in kept] == ["And now?"]
    assert older == list(ROUNDS)


def test_a_call_stays_with_its_output():
    calls = (call("find", 1), call("look", 2), output("two", 2), output("one", 1))
    for room in range(0, 2000, 50):
        older, kept = parted((*ROUNDS, user("Find it."), *calls), room)
        for part in (older, kept):
            asked = {item.call_id for item in part if isinstance(item, FunctionCall)}
            given = {item.call_id for item in part if isinstance(item, CallOutput)}
            assert asked == given
        # The round under way goes on from what its last calls brought.
        assert kept[-5:] == [user("Find it."), *calls]


def test_a_round_that_is_too_long_keeps_its_question_and_its_newest_calls():
    pairs = [item for n in range(10) for item in (call("find", n), output(f"result {n} " * 20, n))]
    older, kept = parted((*ROUNDS, user("Find it."), *pairs), 500)
    assert kept[0] == user("Find it.")
    assert kept[1:] == pairs[-len(kept[1:]) :]
    assert 2 <= len(kept[1:]) < len(pairs)
    assert older[: len(ROUNDS)] == list(ROUNDS)


def test_thinking_stays_with_what_came_of_it():
    thought = Reasoning("rs_1", "I should look it up.")
    items = (*ROUNDS, user("Find it."), thought, call("find", 1), output("one", 1))
    assert parted(items, 0)[1] == list(items[-4:])


def test_what_developers_say_right_before_a_message_stays_with_it():
    items = (*ROUNDS, told("Be brief."), user("And now?"))
    assert parted(items, 0)[1] == list(items[-2:])


def test_what_must_stay_is_what_was_told_the_question_and_the_last_calls():
    items = (
        told("Rule one."),
        *ROUNDS,
        told("Rule two."),
        user("Find it."),
        call("find", 1),
        output("one", 1),
        call("find", 2),
        output("two", 2),
    )
    shown = must(items)
    assert [item.text for item in shown if isinstance(item, Message)] == [
        "Rule one.",
        "Rule two.",
        "Find it.",
    ]
    assert [item for item in shown if isinstance(item, CallOutput)] == [output("two", 2)]


def test_nothing_at_all_can_be_parted_and_shown():
    assert parted((), 100) == ([], [])
    assert must(()) == ()


# What is kept in words.


def test_words_of_the_user_and_results_of_tools_become_lines():
    items = (
        *ROUNDS[:2],
        call("find", 1),
        output("  one\n two ", 1),
        HostedCall("mcp_1", "ours", "search", "{}", output="three"),
        CodeCall("ci_1", "cntr_1", "print(4)", result="4"),
    )
    assert lines_of(items) == [
        Line("My number is 0."),
        Line('find({"q": 1}): one two', "tool"),
        Line("search({}): three", "tool"),
        Line("code: 4", "tool"),
    ]


def test_with_little_room_notes_go_first_and_sentences_with_something_in_them_stay():
    left = Left(
        lines=(
            Line("I am Ada Obi from Lagos. Can you help me? That would be nice."),
            Line("find(x): the id is Z-9", "tool"),
            Line("How do I boil an egg?"),
            Line("Tell me a joke."),
        ),
        notes=("You told them of salt.", "You wished them well."),
    )
    assert fitted(left, 10_000) == left
    small = fitted(left, 55)
    assert small.lines == (Line("I am Ada Obi from Lagos."), left.lines[1])
    assert small.notes == ()
    assert fitted(left, 150).notes == ("You wished them well.",)
    assert fitted(left, 0) == Left()


def test_what_developers_told_is_never_left_out():
    left = Left(told=("Never swear.",), lines=(Line("My name is Ada."),))
    assert fitted(left, 0).told == ("Never swear.",)


def test_an_earlier_compaction_is_kept_word_for_word_and_extended():
    first = Left(("Be kind.",), (Line("I have 2 cats."),), ("You like cats.",), ())
    items = (user("gone"), Compaction("cmp_1", compacted.write(first)), *ROUNDS)
    left, rest = compacted.part(items)
    assert (left, rest) == (first, ROUNDS)


# What it is written as.


def test_items_that_were_kept_are_shown_as_they_were():
    items = (
        user("One."),
        Reasoning("rs_1", "Hm."),
        model("Two."),
        call("find", 1),
        output("three", 1),
        CustomCall("ctc_1", "call_2", "draw", "a cat"),
        CallOutput("cto_1", "call_2", (Text("drawn"),), "custom"),
        HostedCall("mcp_1", "ours", "search", "{}", output="four"),
        HostedCall("mcp_2", "ours", "search", "{}", error="broke", status="failed"),
        CodeCall("ci_1", "cntr_1", "print(5)", result="5"),
        Message("msg_f", "user", (File("file_1", "a.txt", shown="six"), Text("Read it."))),
    )
    kept = tuple(compacted.keep(item, context.words_of(item)) for item in items)
    again = (Compaction("cmp_1", compacted.write(Left(kept=kept))),)
    for style in ("guided", "native"):
        before = context.assemble(Request("responses", "m", items), style=style)
        after = context.assemble(Request("responses", "m", again), style=style)
        assert after == before


@pytest.mark.parametrize("text", ["", "plain words", "[1, 2]", '{"told": 3}', "{" * 9999])
def test_a_text_that_is_no_compaction_of_ours_is_taken_as_a_note(text):
    assert compacted.read(text) == Left(notes=(text,) if text else ())


def test_half_a_surrogate_pair_is_replaced():
    assert compacted.read(compacted.write(Left(notes=("a\ud800b",)))).notes == ("a\ufffdb",)


def test_the_last_compaction_counts_and_nothing_before_it_is_shown():
    items = (
        user("first"),
        Compaction("cmp_1", compacted.write(Left(notes=("one",)))),
        user("second"),
        Compaction("cmp_2", compacted.write(Left(notes=("two",)))),
        user("third"),
    )
    shown = "\n".join(
        message.text for message in context.assemble(Request("responses", "m", items)).messages
    )
    assert "two" in shown
    assert "third" in shown
    assert not any(word in shown for word in ("first", "one", "second"))


# The whole of it, with a model that takes notes.


NOTES = Say("- I said salt.\n- I said salt.\n* pepper, too\nIn short:\n- half a li")


def engine(*replies: Reply, **more) -> ScriptedEngine:
    values = {"context_window": 2000, "tool_style": "guided", "thinks": "no"} | more
    return ScriptedEngine(Script(replies or (Reply((NOTES,)),), **values))


async def play(
    double: ScriptedEngine, items, room: int = 60, within: float = 0.0, most: int = 1500, **asked
):
    """Compact these items. Returns the scene, the task that goes on and the events."""
    await double.start()
    request = Request("responses", "m", items[-1:], instructions="Be good.", **asked)
    plan = Compacting(tuple(items), room, room + 50, most, 0.2, lambda text: f"sealed {len(text)}")
    turn = context.assemble(request, items[:-1])
    task = Task(request, turn, "me", Clock(within, time.monotonic()), compact=plan)
    events = []
    scene = Scene(double, request, Output(), Tally(), events.append, task.clock)
    return scene, await compact(scene, task), events


async def test_the_model_notes_what_it_said_and_the_user_is_quoted():
    double = engine()
    scene, task, events = await play(double, (*ROUNDS, user("And now?")), room=150)
    [started, done] = events
    assert isinstance(started, ItemStarted)
    assert isinstance(done, ItemDone)
    assert started.item == Compaction(done.item.id)
    assert scene.output.items == [done.item]
    assert done.item.sealed == f"sealed {len(done.item.text)}"
    left = compacted.read(done.item.text)
    assert left.notes == ("I said salt.", "pepper, too", "half a li")
    assert left.lines[0] == Line("My number is 0.")
    assert [kept.text for kept in left.kept][-1] == "And now?"
    shown = "\n".join(message.text for message in task.turn.messages)
    assert shown.startswith("Be good.")
    assert "pepper, too" in shown
    assert task.compact is None
    assert scene.tally.counts() == {"compactions": 1}
    assert scene.usage.output_tokens == len(NOTES.text.split())
    asked = double.turns[0]
    assert asked.messages[-1].text.startswith("Look back at")
    assert "Noted 0." in asked.messages[2].text
    assert asked.sampling.temperature == 0


async def test_notes_are_asked_for_over_the_prompt_that_the_engine_has_read():
    double = engine()
    items = (told("Rule one."), *ROUNDS, user("And now?"))
    await play(double, items, room=150, verbosity="low")
    asked = double.turns[0].messages
    read = context.assemble(
        Request("responses", "m", items, instructions="Be good.", verbosity="low")
    ).messages
    assert 5 < len(asked) < len(read)
    assert asked[:-1] == read[: len(asked) - 1]


async def test_the_wish_for_notes_follows_no_other_message_of_the_users():
    double = engine()
    items = (*ROUNDS, user("One."), user("Two."), user("Three."))
    await play(double, items, room=0)
    roles = [message.role for message in double.turns[0].messages[1:]]
    assert all(one != other for one, other in pairwise(roles))
    assert double.turns[0].messages[-1].text.startswith("One.")


async def test_it_goes_on_from_the_same_prompt_as_the_next_request_will():
    _, task, events = await play(engine(), (*ROUNDS, user("And now?")))
    later = Request("responses", "m", (model("Well."), user("More?")), instructions="Be good.")
    turn = context.assemble(later, (*ROUNDS, user("And now?"), events[1].item))
    assert turn.messages[: len(task.turn.messages)] == task.turn.messages


async def test_in_the_background_it_is_a_step_that_is_not_done_again():
    scene, _, events = await play(engine(), (*ROUNDS, user("?")), background=True)
    assert events[2:] == [StepDone(scene.usage)]
    assert scene.usage.output_tokens


async def test_a_second_compaction_keeps_the_first_ones_words():
    _, _, events = await play(engine(), (*ROUNDS, user("I like figs.")), room=100)
    first = compacted.read(events[1].item.text)
    items = (events[1].item, model("Figs, fine."), *ROUNDS, user("Last?"))
    _, _, events = await play(engine(Reply((Say("- I said fine."),))), items, room=160)
    second = compacted.read(events[1].item.text)
    assert second.notes == (*first.notes, "I said fine.")
    assert {line.text for line in first.lines} <= {line.text for line in second.lines}
    assert any("I like figs." in line.text for line in second.lines)


async def test_nothing_is_noted_where_the_model_said_nothing():
    double = engine()
    scene, _, _ = await play(double, (user("One."), user("Two."), user("Three.")), room=0)
    assert not double.turns
    assert scene.tally.counts() == {"compactions": 1}


async def test_without_time_the_users_words_are_kept_and_nothing_is_noted():
    double = engine(pace=Pace(prefill=10.0, decode=1.0))
    scene, _, events = await play(double, (*ROUNDS, user("And now?")), within=15.0)
    assert not double.turns
    left = compacted.read(events[1].item.text)
    assert left.lines
    assert not left.notes
    assert scene.tally.counts() == {"compactions": 1, "compacted_without_notes": 1}


async def test_a_model_that_takes_too_long_over_its_notes_is_not_waited_for():
    double = engine(Reply((Pause(60.0), NOTES)))
    scene, _, events = await play(double, (*ROUNDS, user("And now?")), within=0.5)
    assert not compacted.read(events[1].item.text).notes
    assert scene.tally.counts()["compacted_without_notes"] == 1
    assert double.active == 0


async def test_notes_leave_most_of_the_requests_tokens_to_the_answer():
    double = engine(Reply((Say("- " + "word " * 500),)))
    scene, _, events = await play(double, (*ROUNDS, user("?")), max_output_tokens=100)
    assert double.turns[0].max_tokens == 30
    # The only line was cut in its middle.
    assert not compacted.read(events[1].item.text).notes
    scene, _, _ = await play(engine(), (*ROUNDS, user("?")), max_output_tokens=40)
    assert scene.usage.output_tokens == 0
    assert scene.tally.counts()["compacted_without_notes"] == 1


async def test_turns_that_do_not_fit_are_shortened_before_the_model_is_asked():
    double = engine(context_window=400)
    long = tuple(
        item for n in range(6) for item in (user(f"My dog is {n}."), model(f"say {n} " * 200))
    )
    _, _, events = await play(double, (*long, user("And now?")))
    assert await double.count_tokens(double.turns[0]) <= 400 - double.turns[0].max_tokens
    assert compacted.read(events[1].item.text).notes


async def test_what_turned_out_not_to_fit_is_made_less():
    long = tuple(
        item for n in range(200) for item in (user(f"I have had {n} dogs."), model("ok ok ok"))
    )
    # Words of one letter: more of them than were reckoned with go into the room.
    double = engine(context_window=4000)
    _, task, events = await play(double, (*long, user("?")), room=3000, most=700)
    assert 350 < await double.count_tokens(task.turn) <= 700
    left = compacted.read(events[1].item.text)
    assert left.lines[-1].text == "I have had 199 dogs." or left.kept[-3].text.endswith("199 dogs.")


async def test_an_engine_that_fails_fails_the_compaction():
    double = engine(Reply((Fail("no"),)))
    with pytest.raises(EngineError, match="no"):
        await play(double, (*ROUNDS, user("And now?")))


async def test_a_task_that_is_not_to_be_compacted_is_left_alone():
    double = engine()
    await double.start()
    request = Request("responses", "m", (user("Hi"),))
    task = Task(request, context.assemble(request), "me", Clock(0.0, 0.0, FakeTime()))
    events = []
    scene = Scene(double, request, Output(), Tally(), events.append, task.clock)
    assert await compact(scene, task) is task
    assert await compact(scene, replace(task, compact=None)) == task
    assert not events
