from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.items import (
    CallOutput,
    CustomCall,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    Reasoning,
    Role,
    Text,
)
from ouzel.core.request import CustomTool, FunctionTool, Request, Sampling, ToolChoice
from ouzel.engines.scripted import ScriptedEngine
from ouzel.loop import guided_words as words
from ouzel.loop.context import assemble, at_most_tokens, round_of
from ouzel.loop.toolbox import open_toolbox


def said(role: Role, text: str, name: str | None = None) -> Message:
    return Message("msg_1", role, (Text(text),), name=name)


def asked(*items: Message, instructions: str | None = None) -> Request:
    return Request(protocol="responses", model="m", input=items, instructions=instructions)


def shown(request: Request, history: tuple = ()) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in assemble(request, history).messages]


@pytest.mark.parametrize(("verbosity", "word"), [("low", "short"), ("high", "detailed")])
def test_how_long_an_answer_is_liked_is_said_after_the_instructions(verbosity, word):
    request = replace(asked(said("user", "hi"), instructions="Be kind."), verbosity=verbosity)
    (role, text), user = shown(request)
    assert role == "system"
    assert text.startswith("Be kind.\n\n")
    assert word in text
    assert user == ("user", "hi")
    led = assemble(request, (), open_toolbox(replace(request, tools=(FunctionTool("f"),)), {}))
    assert any(message.text.endswith(text) for message in led.messages)


@pytest.mark.parametrize(
    ("given_back", "object_"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        (" ", "{}"),
        ("1 + 1", '{"input":"1 + 1"}'),
        ("[1]", '{"input":"[1]"}'),
        (1000 * "[", '{"input":"' + 1000 * "[" + '"}'),
    ],
)
@pytest.mark.parametrize("of", [FunctionCall, HostedCall])
def test_engines_with_calls_of_their_own_are_always_shown_an_object(of, given_back, object_):
    call = (
        FunctionCall("fc_1", "c1", "f", given_back)
        if of is FunctionCall
        else HostedCall("c1", "python", "f", given_back, "2")
    )
    request = asked(said("user", "hi"), call)
    (_, message, *_) = assemble(request, (), style="native").messages
    assert [each.arguments for each in message.calls] == [object_]


def test_instructions_and_opening_system_messages_become_one_system_message():
    request = asked(
        said("developer", "Be brief."),
        said("system", "Be kind."),
        said("user", "hi"),
        instructions="You are Ouzel.",
    )
    assert shown(request) == [
        ("system", "You are Ouzel.\n\nBe brief.\n\nBe kind."),
        ("user", "hi"),
    ]


def test_a_developer_message_in_the_middle_stays_there_as_system():
    request = asked(said("user", "hi"), said("developer", "Now in French."), said("user", "so?"))
    assert shown(request) == [("user", "hi"), ("system", "Now in French."), ("user", "so?")]


def test_history_comes_first_and_its_thinking_is_left_out():
    history = (said("user", "2+2?"), Reasoning("rs_1", "easy"), said("assistant", "4"))
    assert shown(asked(said("user", "and 3+3?")), history) == [
        ("user", "2+2?"),
        ("assistant", "4"),
        ("user", "and 3+3?"),
    ]


def test_instructions_of_this_request_precede_a_system_message_of_the_history():
    history = (said("system", "old"), said("user", "a"), said("assistant", "b"))
    assert shown(asked(said("user", "c"), instructions="new"), history)[0] == (
        "system",
        "new\n\nold",
    )


def test_sampling_limit_and_names_reach_the_turn():
    request = Request(
        protocol="chat",
        model="m",
        input=(said("user", "hi", name="ann"),),
        sampling=Sampling(temperature=0.0, stop=("x",)),
        max_output_tokens=7,
    )
    turn = assemble(request)
    assert turn.sampling == request.sampling
    assert turn.max_tokens == 7
    assert turn.messages[0].name == "ann"


@given(st.lists(st.text(max_size=40), max_size=6))
async def test_the_bound_is_never_below_the_count(texts: list[str]):
    turn = assemble(asked(*(said("user", text) for text in texts)))
    assert at_most_tokens(turn) >= await ScriptedEngine().count_tokens(turn)


WEATHER = FunctionTool("get_weather", "Get the weather.")
SQL = CustomTool("sql", "Run SQL.")
OSLO = '{"city":"Oslo"}'


def output(call_id: str, *texts: str, of: str = "function") -> CallOutput:
    return CallOutput("out_1", call_id, tuple(Text(text) for text in texts), of)


CONVERSATION: tuple[Item, ...] = (
    said("user", "weather?"),
    Reasoning("rs_1", "hm"),
    said("assistant", "Let me see."),
    FunctionCall("fc_1", "call_1", "get_weather", OSLO),
    CustomCall("ctc_1", "call_2", "sql", "SELECT 1"),
    output("call_1", "12 ", "degrees"),
    output("call_2", "1", of="custom"),
    HostedCall("call_3", "own", "convert", '{"a":1}', "2 m"),
    HostedCall("call_4", "own", "convert", '{"a":2}', None, "no such unit", "failed"),
    said("assistant", "It is warm."),
)


def turn_of(*items: Item, style: str, tools=(WEATHER, SQL), **more):
    request = Request("responses", "m", items, tools=tools, **more)
    return assemble(request, (), open_toolbox(request, {}), style)


def test_natively_calls_and_results_are_shown_as_such():
    messages = turn_of(*CONVERSATION, style="native").messages
    assert [message.role for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    both = messages[1]
    assert both.text == "Let me see."
    assert [(call.name, call.arguments) for call in both.calls] == [
        ("get_weather", OSLO),
        ("sql", '{"input":"SELECT 1"}'),
    ]
    assert [(m.call_id, m.text) for m in messages if m.role == "tool"] == [
        ("call_1", "12 degrees"),
        ("call_2", "1"),
        ("call_3", "2 m"),
        ("call_4", "no such unit"),
    ]


def test_natively_every_result_has_its_call():
    messages = turn_of(*CONVERSATION, style="native").messages
    called: set[str] = set()
    for message in messages:
        called |= {call.id for call in message.calls}
        assert message.call_id is None or message.call_id in called


def test_led_models_see_calls_and_results_in_our_words():
    messages = turn_of(*CONVERSATION, style="guided").messages[len(words.prefix()) + 1 :]
    roles = [message.role for message in messages]
    assert roles[0] == "user"
    assert roles[-1] == "assistant"
    assert all(a != b for a, b in pairwise(roles)), "the sides take turns"
    text = "\n".join(message.text for message in messages)
    for part in (
        words.call_words("get_weather", OSLO),
        words.call_words("sql", "SELECT 1"),
        words.result_words("12 degrees"),
        words.result_words("no such unit"),
        words.answer_words("It is warm."),
    ):
        assert part in text
    assert not any(message.calls or message.call_id for message in messages)


TEXTS = st.text(max_size=30)


@given(TEXTS, TEXTS, st.sampled_from([(WEATHER,), (WEATHER, SQL)]))
def test_the_prefix_is_the_same_whatever_is_asked(text, instructions, tools):
    one = turn_of(said("user", text), style="guided", tools=tools, instructions=instructions)
    two = turn_of(said("user", "hello"), style="guided", tools=(SQL,))
    fixed = words.prefix()
    assert one.messages[: len(fixed)] == two.messages[: len(fixed)] == fixed
    assert one.messages[len(fixed)].text.endswith(instructions)


@pytest.mark.parametrize("style", ["native", "guided"])
@pytest.mark.parametrize("choice", [ToolChoice("none"), ToolChoice("auto", ("sql",), "allowed")])
def test_the_choice_does_not_change_what_a_led_model_is_shown(style, choice):
    plain = turn_of(said("user", "hi"), style=style)
    chosen = turn_of(said("user", "hi"), style=style, tool_choice=choice)
    assert plain.messages == chosen.messages


@pytest.mark.parametrize("style", ["native", "guided"])
def test_a_longer_conversation_begins_like_the_shorter_one(style):
    shorter = turn_of(*CONVERSATION, style=style).messages
    longer = turn_of(*CONVERSATION, said("user", "and now?"), style=style).messages
    assert longer[: len(shorter)] == shorter


def test_the_round_is_what_came_since_the_last_message():
    now = round_of(CONVERSATION)
    assert now.done == {
        ("get_weather", OSLO),
        ("sql", "SELECT 1"),
        ("convert", '{"a":1}'),
        ("convert", '{"a":2}'),
    }
    assert now.failing
    assert round_of((*CONVERSATION, said("user", "thanks"))).done == frozenset()
    assert round_of((*CONVERSATION, said("system", "Be brief."))).done == now.done


@given(
    st.lists(
        st.one_of(
            TEXTS.map(lambda text: said("user", text)),
            TEXTS.map(lambda text: said("assistant", text)),
            TEXTS.map(lambda text: FunctionCall("fc", "c", "get_weather", text)),
            TEXTS.map(lambda text: output("c", text)),
        ),
        max_size=8,
    ),
    st.sampled_from(["native", "guided"]),
)
async def test_with_tools_the_bound_is_never_below_the_count(items, style):
    turn = turn_of(*items, style=style)
    assert at_most_tokens(turn) >= await ScriptedEngine().count_tokens(turn)
