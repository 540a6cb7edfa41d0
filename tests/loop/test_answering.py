"""Answers that are JSON, over whole runs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import ask, play

from ouzel.core.errors import EngineError
from ouzel.core.request import Format, Sampling
from ouzel.engines.scripted import CAPABILITIES, Die, Pause, Reply, Say, Script, Stop, Think
from ouzel.loop.answering import TRIES

SCHEMA = (
    '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],'
    '"additionalProperties":false}'
)
WANTED = Format("json_schema", "number", schema=SCHEMA)
BARE = CAPABILITIES - {"json_schema", "grammar"}


def script(
    *replies: Reply, bound: bool = True, thinks: str = "no", style: str = "guided"
) -> Script:
    can = CAPABILITIES if bound else BARE
    return Script(replies, capabilities=can, thinks=thinks, tool_style=style, context_window=50_000)


async def test_json_is_generated_under_its_schema():
    played = await play(script(Reply((Say('{"n": 1}'),), constrained=True)), ask(format=WANTED))
    assert (played.kinds, played.text) == (["message"], '{"n": 1}')
    last = played.turns[-1]
    assert '"n"' in (last.schema or last.grammar)
    assert played.outcome.status == "completed"
    assert played.tally == {}


async def test_without_a_grammar_the_schema_is_told_in_words():
    played = await play(script(Reply((Say('{"n": 1}'),)), bound=False), ask(format=WANTED))
    assert played.text == '{"n": 1}'
    turn = played.turns[-1]
    assert (turn.schema, turn.grammar) == (None, None)
    assert '"n"' in turn.messages[-1].text


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("wrong", ['{"m": 1}', '{"n": "one"}', "I think it is one.", "[1]"])
async def test_what_is_not_valid_is_asked_for_again(bound, wrong):
    replies = (Reply((Say(wrong),), times=1), Reply((Say('{"n": 1}'),)))
    played = await play(script(*replies, bound=bound), ask(format=WANTED, effort="none"))
    assert played.text == '{"n": 1}'
    assert played.tally == {"retried_formats": 1}
    shown = "\n".join(message.text for message in played.turns[-1].messages)
    assert wrong in shown


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("wrong", ["never JSON", '{"n": "x"}', ""])
async def test_after_three_tries_it_is_an_error_and_nothing_was_said(bound, wrong):
    played = await play(
        script(Reply((Say(wrong),) if wrong else ()), bound=bound),
        ask(format=WANTED, effort="none"),
        fails=True,
    )
    assert isinstance(played.error, EngineError)
    assert "JSON" in played.error.message
    assert played.items == []
    assert len(played.turns) == TRIES


@pytest.mark.parametrize("wrapped", ['```json\n{"n": 1}\n```', '{"n": 1,}', "{'n': 1}"])
async def test_json_that_is_nearly_right_is_mended(wrapped):
    played = await play(
        script(Reply((Say(wrapped),)), bound=False), ask(format=WANTED, effort="none")
    )
    assert json.loads(played.text) == {"n": 1}
    assert len(played.turns) == 1


@pytest.mark.parametrize("bound", [True, False])
async def test_json_that_is_cut_off_is_incomplete(bound):
    played = await play(
        script(Reply((Say('{"n": '), Stop("length"))), bound=bound),
        ask(format=WANTED, effort="none"),
    )
    assert played.text.startswith('{"n":')
    assert played.outcome.status == "incomplete"
    assert played.outcome.incomplete == "max_output_tokens"


async def test_json_that_is_filtered_is_incomplete():
    played = await play(
        script(Reply((Say('{"n": '), Stop("filter")))), ask(format=WANTED, effort="none")
    )
    assert played.outcome.incomplete == "content_filter"


async def test_any_object_will_do_where_no_schema_is_given():
    replies = (Reply((Say("[1, 2]"),), times=1), Reply((Say('{"anything": [1]}'),)))
    played = await play(script(*replies), ask(format=Format("json_object"), effort="none"))
    assert played.text == '{"anything": [1]}'
    assert played.turns[0].schema is not None or played.turns[0].grammar is not None


@pytest.mark.parametrize("thinks", ["tags", "open", "channel"])
@pytest.mark.parametrize("bound", [True, False])
async def test_thinking_is_not_part_of_the_json(thinks, bound):
    thought = (
        (Think("one or two? "), Say('{"n": 1}'))
        if thinks == "channel"
        else (Say(("<think>" if thinks == "tags" else "") + 'one or {"two"}?</think>\n{"n": 1}'),)
    )
    played = await play(
        script(Reply(thought), bound=bound, thinks=thinks, style="native"), ask(format=WANTED)
    )
    assert played.text == '{"n": 1}'
    assert "one or" not in played.text
    assert played.outcome.status == "completed"


@pytest.mark.parametrize("style", ["native", "guided"])
async def test_probabilities_are_kept_or_it_is_said_that_they_are_not(style):
    thinks = "channel" if style == "native" else "no"
    played = await play(
        script(Reply((Say('{"n": 1}'),)), style=style, thinks=thinks),
        ask(format=WANTED, effort="none", sampling=Sampling(top_logprobs=2)),
    )
    (part,) = played.items[-1].parts
    assert "".join(token.token for token in part.logprobs) == played.text


async def test_a_valid_answer_that_came_unbound_is_taken():
    played = await play(
        script(Reply((Say('{"n": 1}'),)), style="native", thinks="channel"), ask(format=WANTED)
    )
    assert len(played.turns) == 1
    assert played.text == '{"n": 1}'


async def test_the_error_of_the_engine_ends_it():
    played = await play(
        script(Reply((Say('{"n'), Pause(0.001), Die("gone")))), ask(format=WANTED), fails=True
    )
    assert "gone" in str(played.error)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.one_of(VALUES.map(json.dumps), st.text(max_size=40)), st.booleans())
async def test_whatever_the_model_says_only_valid_json_goes_out(said, bound):
    try:
        played = await play(
            script(Reply((Say(said),) if said else ()), bound=bound),
            ask(format=WANTED, effort="none"),
        )
    except EngineError:
        return
    value = json.loads(played.text)
    assert set(value) == {"n"}
    assert isinstance(value["n"], int | float)
