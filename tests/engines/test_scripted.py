from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import scripted
from ouzel.core.errors import ContextLengthExceeded, EngineError, EngineUnavailable, RequestError
from ouzel.core.request import Sampling
from ouzel.core.turns import CallDelta, TextDelta, Turn, TurnDone, TurnMessage
from ouzel.engines.scripted import (
    Call,
    Fail,
    Reply,
    Say,
    Script,
    ScriptedEngine,
    ScriptError,
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


def test_a_script_is_read_from_a_file(tmp_path: Path):
    path = tmp_path / "script.toml"
    path.write_text(
        """
        model = "parrot"
        context_window = 100
        [[reply]]
        match = "bye"
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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "at least one"),
        ("[[reply]]\nstep = []", "reply 1: unknown key 'step'"),
        ("[[reply]]\nsteps = [{ sing = 'la' }]", "reply 1, step 1: a step is one of"),
        ("[[reply]]\nsteps = [{ say = 'a', loud = true }]", "unknown key 'loud'"),
        ("[[reply]]\nsteps = [{ stop = 'never' }]", "stop is one of"),
        ("[[reply]]\nmatch = '('", "is not right"),
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
