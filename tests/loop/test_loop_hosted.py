"""Hosted tools within whole runs: one step after another."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from loop_kit import FakeTime, TickingEngine, ask, chooses, guided_script, play

from hosted_tool import ConvertLength
from ouzel.core.contracts import Invocation, Stage, ToolOutcome
from ouzel.core.items import CallOutput, FunctionCall, HostedCall, Message, Text
from ouzel.core.request import FunctionTool, HostedTool, ToolChoice
from ouzel.core.turns import Pace, Usage
from ouzel.engines.scripted import Call, Die, Reply, Say, Script, Think
from ouzel.loop.budget import Clock
from ouzel.loop.context import assemble
from ouzel.loop.toolbox import open_toolbox

CONVERT = HostedTool("convert_length")
TOOLS = (ConvertLength(),)
CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
WEATHER = FunctionTool("get_weather", "Get the weather.", CITY)
TWO_KM = '{"value":2,"unit":"km","to":"m"}'
ONE_MILE = '{"value":1,"unit":"mi","to":"m"}'
WRONG = '{"value":2,"unit":"parsec","to":"m"}'


def wants(name: str, arguments: str, **more) -> Reply:
    """A guided model writes these arguments."""
    return Reply((Say(arguments),), opening=f"{name}\n$", **more)


def answers(text: str = "That is {last}") -> Reply:
    return Reply((Say(text),), opening="answer\n$")


LED = guided_script(
    chooses("answer", last="^Result"),
    chooses("convert_length"),
    wants("convert_length", TWO_KM),
    answers(),
)
FREE = Script(
    (Reply((Say("That is {last}"),), last=" m$"), Reply((Call("convert_length", TWO_KM),)))
)


@pytest.mark.parametrize("script", [LED, FREE], ids=["guided", "native"])
async def test_a_hosted_tool_is_run_and_its_result_told(script):
    played = await play(script, ask("2 km in m?", tools=(CONVERT,)), tools=TOOLS)
    assert played.kinds == ["hosted_call", "message"]
    call, message = played.items
    assert (call.name, call.arguments, call.output) == ("convert_length", TWO_KM, "2000.0 m")
    assert message.text.endswith("2000.0 m")
    assert played.tally == {"calls": 1, "hosted_calls": 1}
    assert played.outcome.status == "completed"


@pytest.mark.parametrize("script", [LED, FREE], ids=["guided", "native"])
async def test_the_prompt_of_each_step_counts_and_all_that_was_generated(script):
    played = await play(script, ask("2 km in m?", tools=(CONVERT,)), tools=TOOLS)
    turns = played.turns
    firsts = [turns[0], next(t for t in turns if len(t.messages) > len(turns[0].messages))]
    prompts = [await played.engine.count_tokens(turn) for turn in firsts]
    assert played.outcome.usage.input_tokens == sum(prompts)
    assert played.outcome.usage.output_tokens > 0
    assert played.outcome.usage.reasoning_tokens == 0


async def test_thinking_is_counted_over_all_steps():
    script = Script(
        (
            Reply((Think("done I think"), Say("It is 2000 m.")), last=" m$"),
            Reply((Think("let me convert"), Call("convert_length", TWO_KM))),
        )
    )
    played = await play(script, ask(tools=(CONVERT,)), tools=TOOLS)
    assert played.kinds == ["reasoning", "hosted_call", "reasoning", "message"]
    assert played.outcome.usage.reasoning_tokens == 6


@pytest.mark.parametrize("style", ["guided", "native"])
async def test_a_tools_error_is_shown_and_the_model_tries_again(style):
    if style == "guided":
        script = guided_script(
            chooses("answer", last="2000"),
            chooses("convert_length"),
            wants("convert_length", WRONG, times=1),
            wants("convert_length", TWO_KM),
            answers(),
        )
    else:
        script = Script(
            (
                Reply((Say("That is {last}"),), last=" m$"),
                Reply((Call("convert_length", TWO_KM),), last="no unit"),
                Reply((Call("convert_length", WRONG),)),
            )
        )
    played = await play(script, ask(tools=(CONVERT,)), tools=TOOLS)
    failed, worked, message = played.items
    assert (failed.status, failed.output) == ("failed", None)
    assert "no unit 'parsec'" in failed.error
    assert worked.output == "2000.0 m"
    assert "2000.0 m" in message.text
    assert played.tally["failed_hosted_calls"] == 1
    assert any("no unit 'parsec'" in m.text for turn in played.turns for m in turn.messages)


async def test_a_client_call_beside_a_hosted_one_ends_the_run_with_both():
    script = Script(
        (Reply((Call("get_weather", '{"city":"Oslo"}'), Call("convert_length", TWO_KM))),)
    )
    played = await play(script, ask(tools=(CONVERT, WEATHER)), tools=TOOLS)
    assert sorted(played.kinds) == ["function_call", "hosted_call"]
    assert len(played.turns) == 1
    assert played.outcome.status == "completed"


async def test_a_client_call_after_a_hosted_one():
    script = guided_script(
        chooses("get_weather", last="^Result"),
        chooses("convert_length"),
        wants("convert_length", TWO_KM),
        wants("get_weather", '{"city":"Oslo"}'),
    )
    played = await play(script, ask(tools=(CONVERT, WEATHER)), tools=TOOLS)
    assert played.kinds == ["hosted_call", "function_call"]


@pytest.mark.parametrize("most", [0, 1, 2])
@pytest.mark.parametrize("style", ["guided", "native"])
async def test_max_tool_calls_is_kept_and_there_is_an_answer(style, most):
    lengths = [
        Reply((Say(f'{{"value":{n},"unit":"km","to":"m"}}'),), opening="length\n$", times=1)
        for n in range(9)
    ]
    if style == "guided":
        script = guided_script(chooses("convert_length"), *lengths, answers("So be it."))
    else:
        script = Script(
            (
                Reply(
                    (Call("convert_length", TWO_KM), Call("convert_length", ONE_MILE)), tools=True
                ),
                Reply((Say("So be it."),)),
            )
        )
    request = ask(tools=(CONVERT,), max_tool_calls=most)
    played = await play(script, request, tools=TOOLS)
    assert [item.kind for item in played.items[:-1]] == ["hosted_call"] * most
    assert played.text == "So be it."
    assert played.outcome.status == "completed"


async def test_max_tool_calls_does_not_concern_the_clients_tools():
    script = guided_script(
        Reply((Say(" convert_length"),), opening="^Action:$", times=1),
        chooses("get_weather"),
        wants("convert_length", TWO_KM),
        wants("get_weather", '{"city":"Oslo"}'),
    )
    request = ask(tools=(CONVERT, WEATHER), max_tool_calls=1)
    played = await play(script, request, tools=TOOLS)
    assert played.kinds == ["hosted_call", "function_call"]
    assert "convert_length" not in played.turns[2].grammar


async def test_a_model_that_never_has_enough_comes_to_an_end():
    script = Script(
        (Reply((Call("convert_length", TWO_KM),), tools=True), Reply((Say("Enough."),)))
    )
    played = await play(script, ask(tools=(CONVERT,)), tools=TOOLS)
    assert played.text == "Enough."
    assert 1 <= played.kinds.count("hosted_call") <= 32


async def test_required_holds_for_the_first_call_only():
    request = ask(tools=(CONVERT,), tool_choice=ToolChoice("required"))
    played = await play(LED, request, tools=TOOLS)
    assert played.kinds == ["hosted_call", "message"]


async def test_after_the_deadline_no_more_tools_are_run():
    now = FakeTime()
    script = guided_script(
        chooses("convert_length"),
        *[
            Reply((Say(f'{{"value":{n},"unit":"km","to":"m"}}'),), opening="length\n$", times=1)
            for n in range(50)
        ],
        Reply((Say("One. " * 100),), opening="answer\n$"),
        pace=Pace(1e5, 2),
    )
    played = await play(
        TickingEngine(script, now, seconds=1),
        ask(tools=(CONVERT,)),
        tools=TOOLS,
        clock=Clock(30, now.at, now),
    )
    assert now.at - 1000 <= 45
    assert played.kinds[-1] == "message"
    assert played.text.startswith("One.")


async def test_an_engine_that_dies_between_two_steps_leaves_what_was_done():
    script = Script((Reply((Die("gone"),), last=" m$"), Reply((Call("convert_length", TWO_KM),))))
    played = await play(script, ask(tools=(CONVERT,)), tools=TOOLS, fails=True)
    assert "gone" in str(played.error)
    assert [item.status for item in played.items] == ["completed"]


class Broken(ConvertLength):
    """Has a mistake in it."""

    async def run(self, call: Invocation) -> AsyncGenerator[Stage | ToolOutcome, None]:
        yield Stage("looking_up")
        raise ZeroDivisionError("secret")


async def test_a_mistake_in_a_tool_fails_the_run():
    played = await play(LED, ask(tools=(CONVERT,)), tools=(Broken(),), fails=True)
    assert isinstance(played.error, ZeroDivisionError)
    (item,) = played.items
    assert item.status == "failed"
    assert "secret" not in (item.error or "")


async def test_max_output_tokens_hold_over_all_steps():
    script = Script(
        (
            Reply((Say("word " * 100),), last=" m$"),
            Reply((Call("convert_length", TWO_KM),)),
        )
    )
    played = await play(script, ask(tools=(CONVERT,), max_output_tokens=20), tools=TOOLS)
    assert played.outcome.incomplete == "max_output_tokens"
    assert played.outcome.usage.output_tokens == 20
    assert played.kinds == ["hosted_call", "message"]


@pytest.mark.parametrize("style", ["guided", "native"])
def test_a_hosted_call_in_the_history_is_shown_like_the_first_time(style):
    """The next request's prompt begins like this one's, so its prefill is found in the cache."""
    output = "begin" + "x" * 50_000 + "end"
    request = ask(tools=(CONVERT,))
    history = (
        Message("msg_0", "user", (Text("2 km in m?"),)),
        HostedCall("call_1", "convert_length", "convert_length", TWO_KM, output),
        Message("msg_2", "assistant", (Text("2000 m."),)),
    )
    toolbox = open_toolbox(request, {"convert_length": ConvertLength()})
    turn = assemble(request, history, toolbox, style)
    shown = "".join(message.text for message in turn.messages)
    assert len(shown) < 20_000
    assert "begin" in shown
    assert "end" in shown


@pytest.mark.parametrize("style", ["guided", "native"])
async def test_going_on_begins_with_the_same_prompt(style):
    script = LED if style == "guided" else FREE
    first = await play(script, ask("2 km in m?", tools=(CONVERT,)), tools=TOOLS)
    history = (*ask("2 km in m?").input, *first.items)
    second = await play(script, ask("thanks", tools=(CONVERT,)), tools=TOOLS, history=history)
    before, after = first.turns[-1].messages, second.turns[0].messages
    assert after[: len(before)] == before


async def test_a_clients_result_goes_on_where_the_run_stopped():
    items = (
        Message("msg_1", "user", (Text("weather?"),)),
        FunctionCall("fc_1", "call_1", "get_weather", '{"city":"Oslo"}'),
        CallOutput("out_1", "call_1", (Text("12 degrees"),)),
    )
    script = Script((Reply((Say("Told: {last}"),), last="12 degrees"),))
    played = await play(script, replace(ask(tools=(WEATHER,)), input=items))
    assert played.text == "Told: 12 degrees"
    assert [m.role for m in played.turns[0].messages] == ["user", "assistant", "tool"]


async def test_nothing_is_counted_twice_and_nothing_forgotten():
    played = await play(FREE, ask(tools=(CONVERT,)), tools=TOOLS)
    first, second = played.turns
    usage = played.outcome.usage
    assert usage == Usage(
        await played.engine.count_tokens(first) + await played.engine.count_tokens(second),
        0,
        usage.output_tokens,
        0,
    )
