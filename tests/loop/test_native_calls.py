"""Models that call tools in their own way, over whole runs."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest
from loop_kit import FakeTime, TickingEngine, ask, play, script

from ouzel.core.errors import EngineError
from ouzel.core.items import CustomCall, FunctionCall
from ouzel.core.request import CustomTool, Format, FunctionTool, Grammar, ToolChoice
from ouzel.core.turns import CallDelta, Pace
from ouzel.engines.scripted import Call, Pause, Reply, Say, Script, ScriptedEngine, Stop, Think
from ouzel.loop.budget import Clock

CITY = (
    '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],'
    '"additionalProperties":false}'
)
WEATHER = FunctionTool("get_weather", "Get the weather.", CITY)
OSLO = '{"city":"Oslo"}'


def calls(played) -> list[tuple[str, str]]:
    return [
        (item.name, item.arguments if isinstance(item, FunctionCall) else item.input)
        for item in played.items
        if isinstance(item, FunctionCall | CustomCall)
    ]


async def test_text_and_calls_side_by_side():
    played = await play(
        script(Say("Let me look."), Call("get_weather", OSLO), Call("get_weather", OSLO)),
        ask(tools=(WEATHER,)),
    )
    assert played.kinds == ["message", "function_call", "function_call"]
    assert calls(played) == [("get_weather", OSLO)] * 2
    assert played.items[1].call_id != played.items[2].call_id
    assert played.tally == {"calls": 2}
    assert len(played.turns) == 1


async def test_calls_that_all_have_the_same_number_are_told_apart_by_their_ids():
    class NumbersNothing(ScriptedEngine):
        async def stream(self, turn, halt=None):
            async with aclosing(super().stream(turn, halt)) as deltas:
                async for delta in deltas:
                    yield replace(delta, index=0) if isinstance(delta, CallDelta) else delta

    rome = '{"city":"Rome"}'
    engine = NumbersNothing(script(Call("get_weather", OSLO), Call("get_weather", rome)))
    played = await play(engine, ask(tools=(WEATHER,)))
    assert calls(played) == [("get_weather", OSLO), ("get_weather", rome)]
    assert len(played.turns) == 1


async def test_not_parallel_is_one_call():
    played = await play(
        script(Call("get_weather", OSLO), Call("get_weather", OSLO)),
        ask(tools=(WEATHER,), parallel_tool_calls=False),
    )
    assert len(calls(played)) == 1
    assert played.turns[0].parallel is False


async def test_invalid_arguments_are_asked_for_again():
    replies = (
        Reply((Call("get_weather", '{"city": null}'),), times=1),
        Reply((Call("get_weather", OSLO),)),
    )
    played = await play(Script(replies), ask(tools=(WEATHER,)))
    assert calls(played) == [("get_weather", OSLO)]
    assert played.tally == {"calls": 1, "invalid_calls": 1}
    assert "city" in played.turns[1].messages[-1].text


@pytest.mark.parametrize(
    "bad",
    [
        Call("get_weather", '{"town": 3}'),
        Call("get_weather", "nonsense"),
        Call("delete_everything", "{}"),
        Call("get_weather", "[" * 2000),
    ],
)
async def test_calls_that_stay_invalid_are_never_emitted(bad):
    played = await play(
        Script((Reply((bad,), tools=True), Reply((Say("I cannot."),)))), ask(tools=(WEATHER,))
    )
    assert calls(played) == []
    assert played.text == "I cannot."
    assert len(played.turns) <= 5


async def test_calls_that_stay_invalid_where_one_is_required_are_an_error():
    played = await play(
        script(Call("get_weather", "{}")),
        ask(tools=(WEATHER,), tool_choice=ToolChoice("required")),
        fails=True,
    )
    assert isinstance(played.error, EngineError)
    assert played.items == []


async def test_arguments_that_can_be_mended_are_mended():
    played = await play(script(Call("get_weather", "{'city': 'Oslo',}")), ask(tools=(WEATHER,)))
    assert calls(played)[0][0] == "get_weather"
    assert played.tally == {"calls": 1, "repaired_calls": 1}


async def test_valid_calls_go_out_though_others_are_not():
    played = await play(
        script(Call("get_weather", "{}"), Call("get_weather", OSLO)), ask(tools=(WEATHER,))
    )
    assert calls(played) == [("get_weather", OSLO)]


async def test_text_of_a_given_up_try_is_not_said_twice():
    replies = (
        Reply((Say("Let me look. "), Call("get_weather", "{}")), times=1),
        Reply((Say("Let me look. "), Call("get_weather", OSLO))),
    )
    played = await play(Script(replies), ask(tools=(WEATHER,)))
    assert played.text.count("Let me look.") == 1


async def test_what_is_said_in_the_end_is_said_though_something_was_said_before():
    replies = (
        Reply((Say("Let me look. "), Call("get_weather", "{}")), tools=True),
        Reply((Say("I could not find it."),)),
    )
    played = await play(Script(replies), ask(tools=(WEATHER,)))
    assert played.text.endswith("I could not find it.")
    assert played.text.count("Let me look.") <= 1


@pytest.mark.parametrize(
    "prose",
    [
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}',
        '```json\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n```',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        '<function=get_weather>{"city":"Oslo"}</function>',
    ],
)
async def test_calls_written_as_prose_are_calls(prose):
    played = await play(script(Say(f"I will look.\n{prose}")), ask(tools=(WEATHER,)))
    assert calls(played) == [("get_weather", OSLO)]
    assert played.text.strip() == "I will look."
    assert played.tally == {"calls": 1, "repaired_calls": 1}


@pytest.mark.parametrize("between", ["\n", "\n\n", " "])
async def test_white_space_around_calls_in_prose_is_no_message(between):
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'
    said = f"{between}{call}{between}{call}{between}"
    played = await play(script(Say(said)), ask(tools=(WEATHER,)))
    assert played.kinds == ["function_call", "function_call"]


async def test_arguments_without_an_end_stop_with_the_time():
    now = FakeTime()
    engine = TickingEngine(
        script(*[Call("get_weather", "[")] * 500, pace=Pace(1000, 10)), now, seconds=1
    )
    played = await play(engine, ask(tools=(WEATHER,), effort="none"), clock=Clock(60, now.at, now))
    assert now.at - 1000 <= 62
    assert calls(played) == []
    assert played.outcome.status == "incomplete"


async def test_prose_that_is_an_invalid_call_is_asked_for_again():
    prose = '<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>'
    replies = (Reply((Say(prose),), times=1), Reply((Call("get_weather", OSLO),)))
    played = await play(Script(replies), ask(tools=(WEATHER,)))
    assert calls(played) == [("get_weather", OSLO)]
    assert played.text == ""


async def test_no_tools_may_be_called_where_the_choice_is_none():
    played = await play(script(Say("Hi.")), ask(tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert played.turns[0].tools == ()
    assert played.turns[0].tool_mode == "none"
    assert calls(played) == []


@pytest.mark.parametrize("form", [Format(), Format("json_object")])
async def test_a_model_that_does_not_think_is_offered_none_either_where_the_choice_is_none(form):
    request = ask(tools=(WEATHER,), tool_choice=ToolChoice("none"), format=form)
    played = await play(script(Say("{}"), thinks="no"), request)
    assert [turn.tools for turn in played.turns] == [()]
    assert played.text == "{}"


async def test_a_call_though_none_was_offered_is_an_error():
    played = await play(script(Call("get_weather", OSLO)), fails=True)
    assert isinstance(played.error, EngineError)
    assert "none was offered" in played.error.message
    assert played.items == []


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (ToolChoice("required"), ["get_weather", "other"]),
        (ToolChoice("required", ("other",), "named"), ["other"]),
        (ToolChoice("auto", ("other",), "allowed"), ["other"]),
    ],
)
async def test_the_engine_is_offered_what_may_be_called(choice, names):
    played = await play(
        script(Call("other", "{}")),
        ask(tools=(WEATHER, FunctionTool("other")), tool_choice=choice),
    )
    assert [tool.name for tool in played.turns[0].tools] == names
    assert played.turns[0].tool_mode == choice.mode
    assert calls(played) == [("other", "{}")]


async def test_a_call_outside_of_the_choice_is_not_emitted():
    replies = (Reply((Call("get_weather", OSLO),), times=1), Reply((Call("other", "{}"),)))
    played = await play(
        Script(replies),
        ask(
            tools=(WEATHER, FunctionTool("other")),
            tool_choice=ToolChoice("required", ("other",), "named"),
        ),
    )
    assert calls(played) == [("other", "{}")]


async def test_required_and_answered_in_words_is_asked_again_and_then_an_error():
    tools = {"tools": (WEATHER,), "tool_choice": ToolChoice("required")}
    replies = (Reply((Say("It is sunny."),), times=1), Reply((Call("get_weather", OSLO),)))
    played = await play(Script(replies), ask(**tools))
    assert calls(played) == [("get_weather", OSLO)]
    played = await play(script(Say("It is sunny.")), ask(**tools), fails=True)
    assert isinstance(played.error, EngineError)


async def test_a_custom_tool_is_offered_as_a_function_with_one_input():
    played = await play(
        script(Call("sql", '{"input": "SELECT 1"}')), ask(tools=(CustomTool("sql", "Run SQL."),))
    )
    assert calls(played) == [("sql", "SELECT 1")]
    assert "input" in played.turns[0].tools[0].parameters


@pytest.mark.parametrize("arguments", ["SELECT 1", '"SELECT 1"'])
async def test_a_custom_tool_called_with_bare_text(arguments):
    played = await play(script(Call("sql", arguments)), ask(tools=(CustomTool("sql"),)))
    assert [name for name, _ in calls(played)] == ["sql"]
    assert "SELECT 1" in calls(played)[0][1]


async def test_a_custom_tools_grammar_is_kept():
    replies = (
        Reply((Call("number", '{"input": "forty"}'),), times=1),
        Reply((Call("number", '{"input": "40"}'),)),
    )
    tool = CustomTool("number", grammar=Grammar("regex", "[0-9]+"))
    played = await play(Script(replies), ask(tools=(tool,)))
    assert calls(played) == [("number", "40")]
    assert played.tally["invalid_calls"] == 1


async def test_thinking_before_a_call_is_kept_with_its_summary():
    replies = (
        Reply((Say("Looking it up."),), last="Sum up"),
        Reply((Think("I need the weather."), Call("get_weather", OSLO))),
    )
    played = await play(Script(replies), ask(tools=(WEATHER,), summary="auto"))
    assert played.kinds == ["reasoning", "function_call"]
    assert played.items[0].summary == ("Looking it up.",)


async def test_a_call_cut_by_the_limit_is_not_emitted():
    played = await play(
        script(Call("get_weather", '{"city": "Os'), Stop("length")),
        ask(tools=(WEATHER,), max_output_tokens=20),
    )
    assert calls(played) == []
    assert played.outcome.status == "incomplete"


async def test_a_model_that_does_not_think_goes_through_its_own_way_with_tools():
    played = await play(
        script(Call("get_weather", OSLO), thinks="no"), ask(tools=(WEATHER,), effort="low")
    )
    assert calls(played) == [("get_weather", OSLO)]


# Formats beside tools.


async def test_a_format_is_kept_beside_tools():
    schema = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
    request = ask(tools=(WEATHER,), format=Format("json_schema", "x", schema=schema))
    played = await play(script(Say('{"n": 1}')), request)
    assert played.text == '{"n": 1}'
    replies = (Reply((Say('{"n": 2}'),), constrained=True), Reply((Say("It is one."),)))
    played = await play(Script(replies), request)
    assert played.text == '{"n": 2}'
    played = await play(script(Call("get_weather", OSLO)), request)
    assert calls(played) == [("get_weather", OSLO)]
    assert played.text == ""


async def test_json_that_is_cut_by_the_limit_is_kept_and_incomplete():
    wanted = Format("json_schema", "x", schema='{"type":"object"}')
    played = await play(
        script(Say('{"n": [1, 2, 3, 4, 5]}')), ask(format=wanted, max_output_tokens=3)
    )
    assert played.outcome.incomplete == "max_output_tokens"
    assert played.text.startswith('{"n":')


async def test_what_was_said_when_the_limit_came_is_kept_though_a_try_was_given_up():
    replies = (
        Reply((Say("Let me look. "), Call("get_weather", "{}")), times=1),
        Reply((Say("I could not"), Stop("length"))),
    )
    played = await play(Script(replies), ask(tools=(WEATHER,)))
    assert played.outcome.status == "incomplete"
    assert played.text.endswith("I could not")


async def test_an_answer_goes_out_as_it_comes():
    played = await play(script(Say("one two"), Pause(0.001), Say(" three")), ask(tools=(WEATHER,)))
    texts = [event.text for event in played.events if event.kind == "delta"]
    assert texts == ["one", " two", " three"]
