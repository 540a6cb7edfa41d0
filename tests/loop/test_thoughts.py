"""Thinking is shown again in the round that goes on, and only there."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import ask, guided_script, play

from hosted_tool import ConvertLength
from ouzel.core.items import (
    CallOutput,
    CodeCall,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    Reasoning,
    Role,
    Text,
)
from ouzel.core.request import FunctionTool, HostedTool, Request
from ouzel.core.turns import TurnMessage
from ouzel.engines.scripted import Call, Reply, Say, Script, ScriptedEngine, Think
from ouzel.loop import thinking_words
from ouzel.loop.context import assemble, at_most_tokens, round_of
from ouzel.loop.toolbox import open_toolbox

WEATHER = FunctionTool("get_weather", "Get the weather.")
CONVERT = HostedTool("convert_length")
TWO_KM = '{"value":2,"unit":"km","to":"m"}'


def said(role: Role, text: str) -> Message:
    return Message("msg_1", role, (Text(text),))


def called(number: int = 1) -> FunctionCall:
    return FunctionCall(f"fc_{number}", f"call_{number}", "get_weather", "{}")


def output(number: int = 1) -> CallOutput:
    return CallOutput(f"out_{number}", f"call_{number}", (Text("12 degrees"),))


def messages(*items: Item, style="native", thinks="channel", tools=(WEATHER,), history=()):
    request = Request("responses", "m", items, tools=tools)
    turn = assemble(request, history, open_toolbox(request, {}), style, thinks=thinks)
    return turn.messages


QUESTION = said("user", "weather?")
THOUGHT = Reasoning("rs_1", "They ask about Oslo.\n")


def test_natively_it_stands_with_the_call_that_came_after_it():
    _, call, result = messages(QUESTION, THOUGHT, called(), output())
    assert call == TurnMessage("assistant", "", calls=call.calls, thinking="They ask about Oslo.")
    assert len(call.calls) == 1
    assert result.role == "tool"


def test_what_was_said_beside_the_call_has_it_too():
    _, call, _ = messages(QUESTION, THOUGHT, said("assistant", "I look."), called(), output())
    assert (call.text, call.thinking, len(call.calls)) == ("I look.", "They ask about Oslo.", 1)


def test_each_step_of_the_round_keeps_its_own():
    later = Reasoning("rs_2", "Now Bergen.")
    items = (QUESTION, THOUGHT, called(1), output(1), later, called(2), output(2))
    assert [each.thinking for each in messages(*items)] == [
        *("", "They ask about Oslo.", "", "Now Bergen.", "")
    ]


def test_calls_that_become_one_message_keep_all_of_it():
    items = (QUESTION, THOUGHT, called(1), Reasoning("rs_2", "And more."), called(2))
    (_, both) = messages(*items, output(1), output(2))[:2]
    assert both.thinking == "They ask about Oslo.\n\nAnd more."
    assert len(both.calls) == 2


@pytest.mark.parametrize("style", ["native", "guided"])
@pytest.mark.parametrize("thinks", ["no", "channel", "tags", "open"])
def test_a_round_that_is_over_is_shown_without(style, thinks):
    over = (QUESTION, THOUGHT, called(), output(), Reasoning("rs_2", "Warm."))
    items = (*over, said("assistant", "12 degrees."), said("user", "and tomorrow?"))
    shown = messages(*items, style=style, thinks=thinks)
    assert shown == messages(*items, style=style, thinks=None)
    assert not any(each.thinking or "<think>" in each.text for each in shown)


def test_a_developers_word_in_between_ends_no_round():
    items = (QUESTION, THOUGHT, called(), output(), said("developer", "Be brief."))
    assert messages(*items)[1].thinking


def test_none_shows_none():
    shown = messages(QUESTION, THOUGHT, called(), output(), thinks=None)
    assert not any(each.thinking for each in shown)
    assert "Oslo" not in "".join(each.text for each in shown)


def test_models_without_thinking_of_their_own_see_it_as_they_write_it():
    shown = messages(QUESTION, THOUGHT, called(), output(), style="guided", thinks="no")
    assert [each.role for each in shown[-3:]] == ["user", "assistant", "user"]
    assert shown[-2].text.startswith(thinking_words.closed("They ask about Oslo.") + "\n\nAction:")
    assert not any(each.thinking for each in shown)
    roles = [each.role for each in shown]
    assert all(a != b for a, b in pairwise(roles[-3:])), "the sides take turns"


def test_code_that_was_run_has_it_before_it():
    code = CodeCall("ci_1", "cntr_1", "print(1)", result="1")
    for style in ("native", "guided"):
        for thinks in ("channel", "no"):
            shown = messages(QUESTION, THOUGHT, code, style=style, thinks=thinks)
            all_of_it = "".join(each.thinking + each.text for each in shown)
            assert all_of_it.count("They ask about Oslo.") == 1


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_thinking_that_was_broken_off_is_gone_on_from(status):
    thought = Reasoning("rs_1", "Half of it", status=status)
    native = messages(QUESTION, thought)
    assert [each.role for each in native] == ["user", "system"]
    assert "Half of it" in native[-1].text
    pad = messages(QUESTION, thought, thinks="no", style="guided", tools=())
    assert [each.role for each in pad] == ["user", "assistant", "system"]
    assert pad[1].text == thinking_words.closed("Half of it")
    unfinished = status == "incomplete"
    assert pad[2].text == thinking_words.answer_prompt(unfinished=unfinished)


def test_thinking_without_words_is_nothing():
    assert messages(QUESTION, Reasoning("rs_1", " \n", ("A summary.",))) == messages(QUESTION)


ITEMS = st.lists(
    st.sampled_from(
        [
            QUESTION,
            THOUGHT,
            called(),
            output(),
            said("assistant", "Well."),
            said("system", "Be brief."),
            HostedCall("call_3", "own", "convert", "{}", "2 m"),
        ]
    ),
    max_size=8,
)


@given(ITEMS, st.integers(0, 8), st.sampled_from(["native", "guided"]))
async def test_it_is_the_same_wherever_the_history_comes_from(items, at, style):
    """Given back by the client or found in the store: the engine sees the same."""
    for thinks in ("no", "channel"):
        whole = messages(*items, style=style, thinks=thinks)
        assert messages(*items[at:], history=items[:at], style=style, thinks=thinks) == whole
        request = Request("responses", "m", tuple(items), tools=(WEATHER,))
        turn = assemble(request, (), open_toolbox(request, {}), style, thinks=thinks)
        assert at_most_tokens(turn) >= await ScriptedEngine().count_tokens(turn)
        # Whoever ends with the assistant's words is taken to want more of them.
        if items and isinstance(items[-1], Reasoning):
            assert whole[-1].role != "assistant" or "They ask" not in whole[-1].text


@given(ITEMS)
def test_within_a_round_the_prompt_only_grows(items):
    """What the engine has read stays found in its cache until the user says something new."""
    shorter = messages(QUESTION, *(each for each in items if each is not QUESTION), called())
    longer = messages(
        QUESTION, *(each for each in items if each is not QUESTION), called(), output(), THOUGHT
    )
    assert longer[: len(shorter)] == shorter


def test_the_round_knows_that_there_was_thinking():
    assert round_of((QUESTION, THOUGHT, called())).thought
    assert not round_of((QUESTION, Reasoning("rs_1"), called())).thought
    assert not round_of((QUESTION, THOUGHT, said("assistant", "12"), QUESTION)).thought


# --- runs -------------------------------------------------------------------------------------

TOOLS = [ConvertLength()]
FREE = Script(
    (
        Reply((Think("It is easy."), Call("convert_length", TWO_KM)), tools=True, times=1),
        Reply((Say("That is {last}"),)),
    )
)


async def test_after_a_hosted_tool_the_model_sees_what_it_had_thought():
    played = await play(FREE, ask("2 km in m?", tools=(CONVERT,)), tools=TOOLS)
    first, second = played.turns
    assert not any(each.thinking for each in first.messages)
    (call,) = [each for each in second.messages if each.calls]
    assert call.thinking == "It is easy."


async def test_the_next_step_is_shown_what_a_later_request_would_be():
    """A run that is taken up again, or gone on with by the client, sees the same prompt."""
    request = ask("2 km in m?", tools=(CONVERT,))
    played = await play(FREE, request, tools=TOOLS)
    items = (*request.input, *played.items[:-1])
    later = Request("responses", "m", items, tools=(CONVERT,))
    toolbox = open_toolbox(later, {"convert_length": TOOLS[0]})
    shown = assemble(later, (), toolbox, "native", thinks="channel").messages
    (ours, theirs) = (played.turns[1].messages, shown)
    assert [(m.role, m.text, m.thinking) for m in ours] == [
        (m.role, m.text, m.thinking) for m in theirs
    ]


async def test_thinking_gives_way_where_the_window_is_small():
    steps = (Think("word " * 500), Call("convert_length", TWO_KM))
    script = Script(
        (Reply(steps, tools=True, times=1), Reply((Say("That is {last}"),))), context_window=1000
    )
    played = await play(script, ask("2 km in m?", tools=(CONVERT,)), tools=TOOLS)
    assert not any(each.thinking for each in played.turns[1].messages)


async def test_a_scratchpad_is_not_written_twice():
    question = said("user", "Add 17 and 25, then subtract 4. What is it?")
    pad = Reply((Say("17 + 25 = 42, minus 4 is 38."),), opening="<think>")
    request = Request("responses", "m", (question,), effort="medium")
    first = await play(guided_script(pad), request)
    assert first.kinds == ["reasoning", "message"]
    again = Request("responses", "m", (question, first.items[0]), effort="medium")
    second = await play(guided_script(pad), again)
    assert second.kinds == ["message"]
    assert "38" in "".join(each.text for each in second.turns[0].messages)
    assert second.turns[0].messages == first.turns[1].messages
