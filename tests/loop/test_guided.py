"""Models that are led to call tools, over whole runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import ask, chooses, guided_script, play

from ouzel.core.errors import EngineError
from ouzel.core.items import CallOutput, CustomCall, FunctionCall, Message, Text, TokenLogprob
from ouzel.core.request import CustomTool, Format, FunctionTool, Grammar, Sampling, ToolChoice
from ouzel.core.turns import EngineDelta, Halt, TextDelta, Turn
from ouzel.engines.scripted import CAPABILITIES, Reply, Say, Script, ScriptedEngine, Stop
from ouzel.loop import guided
from ouzel.loop import guided_words as words

CITY = (
    '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],'
    '"additionalProperties":false}'
)
WEATHER = FunctionTool("get_weather", "Get the weather.", CITY)
SEARCH = FunctionTool("search", "Search.", '{"type":"object","properties":{}}')
OSLO = '{"city":"Oslo"}'
ARGUMENTS = Reply((Say(OSLO),), opening="get_weather\n$")
ANSWER = Reply((Say("It is sunny."),), opening="answer\n$")


def calls(played) -> list[tuple[str, str]]:
    return [
        (item.name, item.arguments if isinstance(item, FunctionCall) else item.input)
        for item in played.items
        if isinstance(item, FunctionCall | CustomCall)
    ]


def openings(played) -> list[str]:
    return [turn.opening for turn in played.turns]


async def test_a_call_is_chosen_and_then_written():
    played = await play(
        guided_script(chooses("get_weather"), ARGUMENTS), ask("weather?", tools=(WEATHER, SEARCH))
    )
    assert calls(played) == [("get_weather", OSLO)]
    assert played.kinds == ["function_call"]
    choice, arguments = played.turns
    assert (choice.opening, choice.schema) == ("Action:", None)
    assert "search" in choice.grammar
    assert "answer" in choice.grammar
    assert arguments.opening == "Action: get_weather\n"
    assert "city" in (arguments.schema or arguments.grammar)
    assert choice.messages == arguments.messages
    assert choice.sampling.temperature == 0
    assert choice.tools == ()
    assert played.tally == {"calls": 1}


async def test_an_answer_is_chosen_and_then_said():
    played = await play(guided_script(chooses("answer"), ANSWER), ask(tools=(WEATHER,)))
    assert (played.kinds, played.text) == (["message"], "It is sunny.")
    assert openings(played) == ["Action:", "Action: answer\n"]
    assert played.turns[-1].sampling.stop == words.answer_stops(["get_weather"])


async def test_the_clients_stop_sequences_hold_in_the_answer_only():
    request = ask(tools=(WEATHER,), sampling=Sampling(temperature=1.0, stop=("sunny",)))
    played = await play(guided_script(chooses("answer"), ANSWER), request)
    assert played.text.strip() == "It is"
    assert played.turns[0].sampling.stop == ()


async def test_without_tools_nothing_is_chosen():
    played = await play(guided_script(), ask())
    assert openings(played)[-1] == ""
    assert played.text == "Plain answer."


async def test_where_the_choice_is_none_nothing_is_chosen_but_the_prompt_is_the_same():
    tools = (WEATHER, SEARCH)
    none = await play(guided_script(ANSWER), ask(tools=tools, tool_choice=ToolChoice("none")))
    auto = await play(guided_script(chooses("answer"), ANSWER), ask(tools=tools))
    assert openings(none) == ["Action: answer\n"]
    assert none.turns[-1].messages == auto.turns[-1].messages


async def test_required_leaves_no_room_for_an_answer():
    request = ask(tools=(WEATHER, SEARCH), tool_choice=ToolChoice("required"))
    played = await play(guided_script(chooses("get_weather"), ARGUMENTS), request)
    assert calls(played) == [("get_weather", OSLO)]
    assert "answer" not in played.turns[0].grammar


@pytest.mark.parametrize("form", ["named", "allowed"])
async def test_one_tool_that_must_be_called_is_not_chosen(form):
    choice = ToolChoice("required", ("get_weather",), form)
    played = await play(guided_script(ARGUMENTS), ask(tools=(SEARCH, WEATHER), tool_choice=choice))
    assert openings(played) == ["Action: get_weather\n"]
    assert calls(played) == [("get_weather", OSLO)]


async def test_only_allowed_tools_are_to_choose_from():
    choice = ToolChoice("auto", ("search",), "allowed")
    played = await play(
        guided_script(chooses("answer"), ANSWER), ask(tools=(WEATHER, SEARCH), tool_choice=choice)
    )
    assert "search" in played.turns[0].grammar
    assert "get_weather" not in played.turns[0].grammar


async def test_invalid_arguments_are_asked_for_again():
    bad = Reply((Say("{}"),), opening="get_weather\n$", times=1)
    played = await play(
        guided_script(chooses("get_weather"), bad, ARGUMENTS), ask(tools=(WEATHER,))
    )
    assert calls(played) == [("get_weather", OSLO)]
    assert played.tally == {"calls": 1, "invalid_calls": 1}
    assert "city" in played.turns[-1].messages[-1].text


@pytest.mark.parametrize("bad", ['{"city": null}', "words", "", "[]", "[" * 5000])
async def test_arguments_that_stay_invalid_become_an_answer(bad):
    played = await play(
        guided_script(
            chooses("get_weather"), Reply((Say(bad),) if bad else (), opening="get_weather"), ANSWER
        ),
        ask(tools=(WEATHER,)),
    )
    assert calls(played) == []
    assert played.text == "It is sunny."
    assert played.tally["invalid_calls"] >= 2


async def test_arguments_that_stay_invalid_where_a_call_is_required_are_an_error():
    played = await play(
        guided_script(Reply((Say("words"),), opening="get_weather"), ANSWER),
        ask(tools=(WEATHER,), tool_choice=ToolChoice("required")),
        fails=True,
    )
    assert isinstance(played.error, EngineError)
    assert played.items == []


async def test_arguments_without_an_end_are_dropped():
    endless = Reply((Say('{"city": "Os'), Stop("length")), opening="get_weather")
    played = await play(
        guided_script(chooses("get_weather"), endless, ANSWER), ask(tools=(WEATHER,))
    )
    assert calls(played) == []
    assert played.text == "It is sunny."


@pytest.mark.parametrize("said", [" nothing", "", " get_weath", " get_weather get_weather"])
async def test_a_choice_that_is_none_is_an_answer(said):
    steps = (Say(said),) if said else ()
    played = await play(
        guided_script(Reply(steps, opening="^Action:$"), ANSWER), ask(tools=(WEATHER,))
    )
    assert calls(played) == []
    assert played.text == "It is sunny."


def given_back(output: str = "12 degrees") -> tuple:
    return (
        Message("msg_1", "user", (Text("weather?"),)),
        FunctionCall("fc_1", "call_1", "get_weather", OSLO),
        CallOutput("out_1", "call_1", (Text(output),)),
    )


async def test_the_same_call_is_not_made_twice_for_one_message():
    request = replace(ask(tools=(WEATHER,)), input=given_back())
    played = await play(guided_script(chooses("get_weather"), ARGUMENTS, ANSWER), request)
    assert calls(played) == []
    assert played.text == "It is sunny."


async def test_the_same_call_may_be_made_for_the_next_message():
    request = replace(
        ask(tools=(WEATHER,)), input=(*given_back(), Message("msg_2", "user", (Text("again?"),)))
    )
    played = await play(guided_script(chooses("get_weather"), ARGUMENTS, ANSWER), request)
    assert calls(played) == [("get_weather", OSLO)]


async def test_another_call_may_follow_a_result():
    request = replace(ask(tools=(WEATHER,)), input=given_back())
    rome = Reply((Say('{"city":"Rome"}'),), opening="get_weather\n$")
    played = await play(guided_script(chooses("get_weather"), rome, ANSWER), request)
    assert calls(played) == [("get_weather", '{"city":"Rome"}')]


async def test_text_for_a_custom_tool_is_written_in_a_fence():
    tool = CustomTool("python", "Run Python.", language="python")
    code = Reply((Say("print(1)\nprint(2)\n```\nThat was it"),), opening="```python\n$")
    played = await play(guided_script(chooses("python"), code), ask(tools=(tool,)))
    assert calls(played) == [("python", "print(1)\nprint(2)")]
    assert played.turns[-1].sampling.stop == ("```",)


@pytest.mark.parametrize(
    ("definition", "text"),
    [("[0-9]+", "42"), ("[a-z]+\n", "abc\n"), (" [a-z]+", " abc"), ("( *[a-z]+\n)+", "a\n  b\n")],
)
async def test_input_under_a_grammar_is_taken_as_it_is(definition, text):
    tool = CustomTool("special", grammar=Grammar("regex", definition))
    reply = Reply((Say(text),), opening="special\n$", constrained=True)
    played = await play(guided_script(chooses("special"), reply), ask(tools=(tool,)))
    assert calls(played) == [("special", text)]
    assert played.turns[-1].grammar is not None


async def test_a_lark_grammar_is_kept():
    tool = CustomTool("sum", grammar=Grammar("lark", 'start: NUMBER "+" NUMBER\nNUMBER: /[0-9]+/'))
    bad = Reply((Say("one+two"),), opening="sum\n", times=1)
    good = Reply((Say("1+2"),), opening="sum\n")
    played = await play(guided_script(chooses("sum"), bad, good), ask(tools=(tool,)))
    assert calls(played) == [("sum", "1+2")]


async def test_input_that_never_fits_its_grammar_is_not_emitted():
    tool = CustomTool("number", grammar=Grammar("regex", "[0-9]+"))
    played = await play(
        guided_script(chooses("number"), Reply((Say("forty"),), opening="number\n"), ANSWER),
        ask(tools=(tool,)),
    )
    assert calls(played) == []
    assert played.text == "It is sunny."


async def test_a_name_like_answer_can_be_told_from_it():
    tool = FunctionTool("answer_phone", "", '{"type":"object","properties":{}}')
    played = await play(
        guided_script(chooses("use_answer_phone"), Reply((Say("{}"),), opening="answer_phone\n$")),
        ask(tools=(tool,)),
    )
    assert calls(played) == [("answer_phone", "{}")]


class Sure(ScriptedEngine):
    """Shows these probabilities for the first token of a decision."""

    def __init__(self, played: Script, *top: tuple[str, float]) -> None:
        super().__init__(played)
        self._top = tuple(TokenLogprob(token, value) for token, value in top)

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        async with aclosing(super().stream(turn, halt)) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta) and turn.opening == words.DECISION_OPENING:
                    token = TokenLogprob(delta.text, -1.0, top=self._top)
                    delta = replace(delta, logprobs=(token,))
                yield delta


@pytest.mark.parametrize(
    ("tool", "answer", "called"),
    [
        (-0.1, -0.1 - words.MARGIN_FIRST - 0.01, True),
        (-0.1, -0.1 - words.MARGIN_FIRST + 0.01, False),
        (-0.1, -0.1, False),
        (-3.0, -0.1, False),
    ],
)
async def test_a_tool_has_to_be_likelier_than_the_answer(tool, answer, called):
    engine = Sure(
        guided_script(chooses("get_weather"), ARGUMENTS, ANSWER),
        (" get", tool),
        (" answer", answer),
    )
    played = await play(engine, ask(tools=(WEATHER,)))
    assert bool(calls(played)) == called
    assert played.turns[0].sampling.top_logprobs == 20


async def test_a_tool_that_is_likelier_is_called_though_the_answer_was_drawn():
    """The grammar may lead astray: the first token says what was meant."""
    engine = Sure(
        guided_script(chooses("answer", times=1), chooses("get_weather"), ARGUMENTS, ANSWER),
        (" get", -0.01),
        (" answer", -9.0),
    )
    played = await play(engine, ask(tools=(WEATHER,)))
    assert calls(played) == [("get_weather", OSLO)]


async def test_after_a_result_another_margin_holds():
    between = (words.MARGIN_FIRST + words.MARGIN_AFTER_RESULT) / 2
    rome = Reply((Say('{"city":"Rome"}'),), opening="get_weather\n$")
    script = guided_script(chooses("get_weather"), rome, ANSWER)
    for request, called in [
        (ask(tools=(WEATHER,)), between >= words.MARGIN_FIRST),
        (replace(ask(tools=(WEATHER,)), input=given_back()), between >= words.MARGIN_AFTER_RESULT),
    ]:
        engine = Sure(script, (" get", -0.1), (" answer", -0.1 - between))
        assert bool(calls(await play(engine, request))) == called


async def test_no_probabilities_decide_where_a_call_is_required():
    engine = Sure(
        guided_script(chooses("get_weather"), ARGUMENTS), (" get", -9.0), (" answer", -0.1)
    )
    request = ask(tools=(WEATHER, SEARCH), tool_choice=ToolChoice("required"))
    assert calls(await play(engine, request)) == [("get_weather", OSLO)]


async def test_without_probabilities_the_name_decides():
    can = CAPABILITIES - {"logprobs"}
    played = await play(
        guided_script(chooses("get_weather"), ARGUMENTS, capabilities=can), ask(tools=(WEATHER,))
    )
    assert calls(played) == [("get_weather", OSLO)]
    assert played.turns[0].sampling.top_logprobs is None


@pytest.mark.parametrize("missing", ["grammar", "opening"])
async def test_an_engine_that_cannot_be_led_calls_in_its_own_way(missing):
    engine = ScriptedEngine(guided_script(capabilities=CAPABILITIES - {missing}))
    assert not guided.able(engine.info)
    played = await play(engine, ask(tools=(WEATHER,)))
    assert all(turn.opening == "" and turn.grammar is None for turn in played.turns)


async def test_a_call_within_an_answer_is_a_call():
    written = Reply(
        (Say('Sure.\n{"name": "get_weather", "arguments": {"city": "Oslo"}}'),), opening="answer\n$"
    )
    played = await play(guided_script(chooses("answer"), written), ask(tools=(WEATHER,)))
    assert calls(played) == [("get_weather", OSLO)]
    assert played.text.strip() == "Sure."
    assert played.tally["repaired_calls"] == 1


@pytest.mark.parametrize("parallel", [True, False])
async def test_several_calls_within_an_answer_are_one_where_only_one_is_taken(parallel):
    call = '{"name": "get_weather", "arguments": {"city": "Oslo"}}\n'
    played = await play(
        guided_script(chooses("answer"), Reply((Say(2 * call),), opening="answer\n$")),
        ask(tools=(WEATHER,), parallel_tool_calls=parallel),
    )
    assert calls(played) == [("get_weather", OSLO)] * (2 if parallel else 1)
    assert played.text == ""


async def test_prose_that_is_an_invalid_call_is_not_lost():
    written = '{"name": "get_weather", "arguments": {"town": "Oslo"}}'
    played = await play(
        guided_script(chooses("answer"), Reply((Say(written),), opening="answer\n$")),
        ask(tools=(WEATHER,)),
    )
    assert calls(played) == []
    assert "Oslo" in played.text


async def test_a_planned_call_is_counted():
    plan = Reply((Say("I would use get_weather for that."),), opening="answer\n$")
    played = await play(guided_script(chooses("answer"), plan), ask(tools=(WEATHER,)))
    assert played.tally == {"planned_calls": 1}


async def test_the_prompt_of_all_turns_of_a_step_counts_once():
    played = await play(guided_script(chooses("get_weather"), ARGUMENTS), ask(tools=(WEATHER,)))
    usage = played.outcome.usage
    first = await played.engine.count_tokens(played.turns[0])
    assert usage.input_tokens == first
    assert usage.output_tokens == 2  # " get_weather" and the arguments
    assert usage.reasoning_tokens == 0


async def test_a_format_holds_for_the_answer_beside_tools():
    schema = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
    request = ask(tools=(WEATHER,), format=Format("json_schema", "x", schema=schema))
    said = Reply((Say('{"n": 1}'),), opening="answer\n$", constrained=True)
    played = await play(guided_script(chooses("answer"), said), request)
    assert played.text == '{"n": 1}'
    played = await play(guided_script(chooses("get_weather"), ARGUMENTS), request)
    assert calls(played) == [("get_weather", OSLO)]


async def test_the_limit_of_the_request_ends_it_as_incomplete():
    played = await play(
        guided_script(chooses("get_weather"), ARGUMENTS),
        ask(tools=(WEATHER,), max_output_tokens=1),
    )
    assert (played.outcome.status, played.outcome.incomplete) == (
        "incomplete",
        "max_output_tokens",
    )
    assert calls(played) == []


@given(st.text(max_size=30), st.text(max_size=60), st.text(max_size=60))
async def test_whatever_the_model_says_no_invalid_call_is_emitted(choice, arguments, answer):
    def said(text: str, opening: str) -> Reply:
        return Reply((Say(text),) if text else (), opening=opening)

    played = await play(
        guided_script(
            said(choice, "^Action:$"), said(arguments, "get_weather"), said(answer, "answer\n$")
        ),
        ask(tools=(WEATHER,)),
    )
    assert all(name == "get_weather" for name, _ in calls(played))
    assert played.kinds in (["message"], ["function_call"], ["message", "function_call"])


@given(st.text(max_size=60))
async def test_whatever_it_writes_where_a_call_is_required_it_is_valid_or_an_error(arguments):
    reply = Reply((Say(arguments),) if arguments else (), opening="search\n$")
    request = ask(tools=(SEARCH,), tool_choice=ToolChoice("required"))
    engine = ScriptedEngine(guided_script(reply))
    try:
        played = await play(engine, request)
    except EngineError:
        return
    assert [name for name, _ in calls(played)] == ["search"]
