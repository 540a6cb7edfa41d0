from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import scripted
from ouzel.core.errors import ContextLengthExceeded, EngineError, EngineUnavailable, RequestError
from ouzel.core.request import FunctionTool, Sampling
from ouzel.core.turns import (
    CallDelta,
    Halt,
    Pace,
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnCall,
    TurnDone,
    TurnMessage,
    Usage,
)
from ouzel.engines.scripted import (
    Call,
    Fail,
    Pause,
    Reply,
    Say,
    Script,
    ScriptedEngine,
    ScriptError,
    Think,
    load_script,
    tokenize,
)


def turn(text: str = "hi", **more) -> Turn:
    return Turn((TurnMessage("user", text),), **more)


async def heard(engine: ScriptedEngine, what: Turn) -> list:
    return [delta async for delta in engine.stream(what)]


@given(st.text())
def test_tokens_joined_are_the_text(text: str):
    assert "".join(tokenize(text)) == text


async def test_the_first_reply_that_matches_is_played():
    script = Script((Reply((Say("rain"),), match="weather"), Reply((Say("dunno"),))))
    engine = ScriptedEngine(script)
    await engine.start()
    assert (await heard(engine, turn("the weather?")))[0] == TextDelta("rain")
    assert (await heard(engine, turn("what?")))[0] == TextDelta("dunno")


async def test_no_reply_for_the_input_is_an_error():
    engine = ScriptedEngine(Script((Reply((Say("x"),), match="never"),)))
    await engine.start()
    with pytest.raises(EngineError, match="no reply"):
        await heard(engine, turn())


async def test_it_takes_turns_only_while_it_runs():
    engine = scripted()
    with pytest.raises(EngineUnavailable):
        await heard(engine, turn())


async def test_a_call_ends_the_turn_with_calls():
    engine = scripted(Call("weather", '{"city": "Ghent"}'))
    await engine.start()
    deltas = await heard(engine, turn())
    assert deltas[:2] == [
        CallDelta(0, "call_0", "weather"),
        CallDelta(0, arguments='{"city": "Ghent"}'),
    ]
    assert deltas[2].reason == "calls"


async def test_a_stop_sequence_across_tokens_ends_the_text_before_it():
    engine = scripted(Say("one two three"))
    await engine.start()
    deltas = await heard(engine, turn(sampling=Sampling(stop=(" thr",))))
    assert "".join(d.text for d in deltas[:-1]) == "one two"
    assert deltas[-1].reason == "stop"


async def test_the_context_window_bounds_prompt_and_answer():
    engine = scripted(Say("word " * 50), window=10)
    await engine.start()
    with pytest.raises(ContextLengthExceeded, match=r"10 tokens.* 13 tokens"):
        await heard(engine, turn("word " * 12))
    deltas = await heard(engine, turn("a b c d"))
    assert isinstance(deltas[-1], TurnDone)
    assert (deltas[-1].reason, deltas[-1].usage.output_tokens) == ("length", 5)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestError), (500, EngineError), (503, EngineUnavailable)]
)
async def test_errors_are_raised_as_their_kind(status, kind):
    engine = scripted(Fail("broken", status))
    await engine.start()
    with pytest.raises(kind, match="broken"):
        await heard(engine, turn())


async def test_log_probabilities_are_given_when_asked_for():
    engine = scripted(Say("yes"))
    await engine.start()
    (delta, _) = await heard(engine, turn(sampling=Sampling(top_logprobs=3)))
    assert delta.logprobs[0].token == "yes"
    assert len(delta.logprobs[0].top) == 3


async def said(engine: ScriptedEngine, what: Turn) -> str:
    return "".join(d.text for d in await heard(engine, what) if isinstance(d, TextDelta))


async def test_a_reply_may_ask_for_more_than_the_user_text():
    script = Script(
        (
            Reply((Say("program"),), opening="^```python"),
            Reply((Say("after the tool: {last}"),), last="sunny"),
            Reply((Say("by rule"),), constrained=True, tools=False),
            Reply((Say("with tools"),), tools=True),
            Reply((Say("free"),), constrained=False),
        )
    )
    engine = ScriptedEngine(script)
    await engine.start()
    assert await said(engine, turn(opening="```python\n")) == "program"
    assert await said(engine, turn(grammar="root ::= [a-z]+")) == "by rule"
    assert await said(engine, turn(schema="{}")) == "by rule"
    assert await said(engine, turn(tools=(FunctionTool("f"),))) == "with tools"
    assert await said(engine, turn()) == "free"
    result = Turn((TurnMessage("user", "hi"), TurnMessage("tool", "sunny, 20", call_id="c")))
    assert await said(engine, result) == "after the tool: sunny, 20"
    both = turn(grammar="root ::= [a-z]+", tools=(FunctionTool("f"),))
    assert await said(engine, both) == "with tools"


async def test_the_last_user_message_is_looked_at_behind_results_of_tools():
    script = Script((Reply((Say("yes"),), match="^weather$"), Reply((Say("no"),))))
    engine = ScriptedEngine(script)
    await engine.start()
    messages = (
        TurnMessage("user", "weather"),
        TurnMessage("assistant", "", calls=(TurnCall("c", "f", "{}"),)),
        TurnMessage("tool", "sunny", call_id="c"),
    )
    assert await said(engine, Turn(messages)) == "yes"


async def test_a_reply_is_given_so_many_times_and_then_passed_over():
    script = Script((Reply((Say("{"),), times=2), Reply((Say("{}"),))))
    engine = ScriptedEngine(script)
    await engine.start()
    assert [await said(engine, turn()) for _ in range(4)] == ["{", "{", "{}", "{}"]


async def test_a_halt_ends_it_with_the_tokens_counted():
    engine = scripted(Think("a b c"), Say("one two three"))
    await engine.start()
    halt, got = Halt(), []
    async for delta in engine.stream(turn(), halt):
        got.append(delta)
        halt.wished = isinstance(delta, TextDelta)
    assert got[-2:] == [TextDelta("one"), TurnDone("halted", Usage(2, 0, 4, 3))]
    assert (engine.active, engine.cancelled) == (0, 0)


async def test_a_halt_that_was_wished_before_ends_it_at_once():
    engine = scripted(Pause(60), Say("never"))
    await engine.start()
    halt = Halt()
    halt.wished = True
    assert [d async for d in engine.stream(turn(), halt)] == [TurnDone("halted", Usage(2, 0, 0, 0))]


async def test_much_thinking_takes_time_in_proportion():
    engine = scripted(Think("hm " * 20_000), Say("so " * 20_000), window=100_000)
    await engine.start()
    deltas = await heard(engine, turn(sampling=Sampling(stop=("never said",))))
    assert deltas[-1].usage == Usage(2, 0, 40_000, 20_000)
    assert isinstance(deltas[0], ThinkingDelta)


async def test_calls_are_counted_and_come_though_no_tool_was_offered():
    engine = scripted(Call("f", '{"a": 1, "b": 2}'))
    await engine.start()
    done = (await heard(engine, turn()))[-1]
    assert (done.reason, done.usage.output_tokens) == ("calls", 5)


async def test_the_pace_is_what_the_script_says_or_measured():
    fixed = ScriptedEngine(Script(pace=Pace(50, 20)))
    assert fixed.pace == Pace(50, 20)
    measured = ScriptedEngine(Script((Reply((Say("w " * 20, delay=0.005),)),), pace=None))
    await measured.start()
    before = measured.pace
    await heard(measured, turn())
    assert 0 < measured.pace.decode < 201 < before.decode


async def test_what_it_can_is_what_the_script_says():
    script = Script(capabilities=frozenset({"stop"}), thinks="tags", tool_style="guided")
    info = ScriptedEngine(script).info
    assert (info.capabilities, info.thinks, info.tool_style) == ({"stop"}, "tags", "guided")
    info = scripted().info
    assert {"grammar", "json_schema", "opening", "tools"} < info.capabilities
    assert (info.thinks, info.tool_style) == ("channel", "native")


async def test_it_remembers_what_it_was_asked():
    engine = scripted()
    await engine.start()
    await heard(engine, turn("a"))
    await heard(engine, turn("b", opening="x y"))
    assert [t.messages[0].text for t in engine.turns] == ["a", "b"]
    assert await engine.count_tokens(engine.turns[1]) == 4


def test_a_script_is_read_from_a_file(tmp_path: Path):
    path = tmp_path / "script.toml"
    path.write_text(
        """
        model = "parrot"
        context_window = 100
        capabilities = ["stop", "opening"]
        thinks = "tags"
        tool_style = "guided"
        pace = { prefill = 50, decode = 20.5 }
        [[reply]]
        match = "bye"
        opening = "^so"
        last = "rain"
        constrained = false
        tools = true
        times = 2
        steps = [{ think = "leaving" }, { pause = 0.1 }, { say = "so long", delay = 0.01 },
                 { call = "wave", arguments = "{}" }, { stop = "length" }]
        [[reply]]
        steps = [{ say = "word ", repeat = 3 }, { error = "no", status = 503 }, { die = "oops" }]
        """
    )
    script = load_script(path)
    assert script.model == "parrot"
    assert script.replies[1].steps[0] == Say("word word word ")
    assert len(script.replies[0].steps) == 5
    reply = script.replies[0]
    assert (reply.match, reply.opening, reply.last) == ("bye", "^so", "rain")
    assert (reply.constrained, reply.tools, reply.times) == (False, True, 2)
    assert (script.capabilities, script.pace) == ({"stop", "opening"}, Pace(50, 20.5))
    assert (script.thinks, script.tool_style) == ("tags", "guided")


def test_a_script_may_have_its_pace_measured(tmp_path: Path):
    path = tmp_path / "script.toml"
    path.write_text('pace = "measured"\n[[reply]]\nsteps = []')
    assert load_script(path).pace is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "at least one"),
        ("[[reply]]\nstep = []", "reply 1: unknown key 'step'"),
        ("[[reply]]\nsteps = [{ sing = 'la' }]", "reply 1, step 1: a step is one of"),
        ("[[reply]]\nsteps = [{ say = 'a', loud = true }]", "unknown key 'loud'"),
        ("[[reply]]\nsteps = [{ stop = 'never' }]", "stop is one of"),
        ("[[reply]]\nmatch = '('", "is not right"),
        ("[[reply]]\nopening = '('", "is not right"),
        ("[[reply]]\ntimes = 0", "reply 1: times is a whole number"),
        ("[[reply]]\nconstrained = 'yes'", "reply 1: constrained is true or false"),
        ("thinks = 'loudly'\n[[reply]]", "thinks knows no, channel, tags, open; got 'loudly'"),
        ("tool_style = 1\n[[reply]]", "tool_style knows"),
        ("capabilities = ['flight']\n[[reply]]", "capabilities knows .* got 'flight'"),
        ("capabilities = 'stop'\n[[reply]]", "capabilities is a list"),
        ("pace = 'fast'\n[[reply]]", "pace is"),
        ("pace = { decode = 0 }\n[[reply]]", "more than 0"),
        ("pace = { speed = 1 }\n[[reply]]", "pace: unknown key 'speed'"),
        ("nonsense", "cannot be read"),
    ],
)
def test_a_wrong_script_says_what_is_wrong(tmp_path: Path, text: str, names: str):
    path = tmp_path / "script.toml"
    path.write_text(text)
    with pytest.raises(ScriptError, match=names.replace("(", r"\(")):
        load_script(path)


def test_a_missing_script_is_named(tmp_path: Path):
    with pytest.raises(ScriptError, match=r"nowhere\.toml"):
        load_script(tmp_path / "nowhere.toml")
