"""What may be asked of the embedded engine beyond text, tried on small real weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from local_kit import GREEDY, NO_END, answer, running, say, until

from ouzel.core.errors import RequestError
from ouzel.core.request import FunctionTool
from ouzel.core.turns import (
    EngineDelta,
    Halt,
    Pace,
    TextDelta,
    Turn,
    TurnCall,
    TurnDone,
    TurnMessage,
)
from ouzel.engines.local import LocalEngine

pytestmark = [pytest.mark.tiny, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(
    tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalEngine]:
    async with running(tiny_weights, tmp_path_factory.mktemp("home"), context=1024) as one:
        yield one


async def test_what_was_found_out_at_the_start(engine: LocalEngine) -> None:
    info = engine.info
    assert {"opening", "grammar", "json_schema"} <= info.capabilities
    assert "images" not in info.capabilities, "no projector is loaded"
    assert (info.thinks, info.tool_style) == ("no", "guided")
    facts = dict(info.detail)
    assert facts["can grammar"].startswith("yes: ")
    assert facts["can images"].startswith("no: ")


async def test_an_opening_goes_on_and_is_not_said_again(engine: LocalEngine) -> None:
    turn = replace(say("Name the days of the week.", 4), opening="Monday, Tuesday, Wednes")
    text, done = await answer(engine, turn)
    assert text.startswith("day")
    assert done.usage.input_tokens == await engine.count_tokens(turn)
    assert done.usage.input_tokens > await engine.count_tokens(replace(turn, opening=""))


async def test_a_grammar_leaves_no_other_word(engine: LocalEngine) -> None:
    turn = replace(say("Which is better?", 8), grammar='root ::= "tea" | "milk"')
    assert (await answer(engine, turn))[0] in ("tea", "milk")
    opened = replace(turn, opening="I choose: ")
    assert (await answer(engine, opened))[0] in ("tea", "milk")


async def test_a_grammar_that_is_none_is_refused(engine: LocalEngine) -> None:
    turn = replace(say("Which is better?", 8), grammar="root ::= [")
    with pytest.raises(RequestError, match="grammar"):
        await answer(engine, turn)
    assert engine.state == "ready"


async def test_a_schema_leaves_only_valid_values(engine: LocalEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "w": {"enum": ["a", "b"]}},
        "required": ["n", "w"],
        "additionalProperties": False,
    }
    turn = replace(say("Give me a value.", 100), schema=json.dumps(schema))
    value = json.loads((await answer(engine, turn))[0])
    assert isinstance(value["n"], int)
    assert value["w"] in ("a", "b")
    anything = replace(say("Give me an object.", 8), schema="{}")
    assert (await answer(engine, anything))[0].lstrip().startswith("{")


async def test_calls_and_results_of_earlier_turns_are_shown(engine: LocalEngine) -> None:
    messages = (
        TurnMessage("user", "How warm is it?"),
        TurnMessage("assistant", "", calls=(TurnCall("c1", "look", '{"where": "here"}'),)),
        TurnMessage("tool", "21 degrees", call_id="c1"),
    )
    turn = Turn(messages, GREEDY, 4, tools=(FunctionTool("look", "Looks."),))
    _, done = await answer(engine, turn)
    assert done.usage.input_tokens == await engine.count_tokens(turn)


async def halted_after(
    engine: LocalEngine, turn: Turn, pieces: int
) -> tuple[list[EngineDelta], TurnDone]:
    halt, heard = Halt(), []
    async for delta in engine.stream(turn, halt):
        heard.append(delta)
        halt.wished = len(heard) == pieces or halt.wished
    done = heard.pop()
    assert isinstance(done, TurnDone)
    return heard, done


async def test_a_halt_counts_exactly_and_frees_the_slot(engine: LocalEngine) -> None:
    turn = say("Tell me a long story.", 600, NO_END)
    heard, done = await halted_after(engine, turn, 12)
    assert done.reason == "halted"
    assert len(heard) == 12
    assert all(isinstance(delta, TextDelta) for delta in heard)
    # A piece is a token here, but for those that hold half a character back.
    assert 12 <= done.usage.output_tokens <= 14
    assert done.usage.input_tokens == await engine.count_tokens(turn)
    life = engine._life
    assert life is not None

    async def idle() -> bool:
        slots = (await life.line.call("/slots", within=10)).json()
        assert isinstance(slots, list)
        return not any(slot["is_processing"] for slot in slots)

    async with asyncio.timeout(30):
        while not await idle():
            await asyncio.sleep(0.05)


async def test_the_pace_is_measured_and_outlives_the_process(engine: LocalEngine) -> None:
    from ouzel.engines.local import SUPPOSED

    _, done = await answer(engine, say("Tell me of the sea. " * 10, 24, NO_END))
    assert done.usage.output_tokens == 24
    pace = engine.pace
    assert pace != SUPPOSED
    assert pace.prefill > 0
    assert pace.decode > 0
    assert engine.pid is not None
    first, life = engine.pid, engine._life
    assert life is not None
    life.child.kill()
    await until(lambda: engine.pid not in (None, first) and engine.state == "ready")
    assert isinstance(engine.pace, Pace)
    assert engine.pace != SUPPOSED
    assert engine.info.capabilities >= {"grammar"}
