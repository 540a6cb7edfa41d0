from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ouzel.core.items import Message, Reasoning, Role, Text
from ouzel.core.request import Request, Sampling
from ouzel.engines.scripted import ScriptedEngine
from ouzel.loop.context import assemble, at_most_tokens


def said(role: Role, text: str, name: str | None = None) -> Message:
    return Message("msg_1", role, (Text(text),), name=name)


def asked(*items: Message, instructions: str | None = None) -> Request:
    return Request(protocol="responses", model="m", input=items, instructions=instructions)


def shown(request: Request, history: tuple = ()) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in assemble(request, history).messages]


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
