"""Schemas and grammars as the embedded engine itself reads them; a few tokens are enough to see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from schema_cases import CASES

from ouzel.core.request import Grammar, Sampling
from ouzel.core.turns import TextDelta, Turn, TurnMessage
from ouzel.engines.local import LocalEngine, Overrides
from ouzel.loop import grammars
from ouzel.loop.grammars import json_object, one_of
from ouzel.loop.schemas_engine import as_grammar, for_engine

pytestmark = [pytest.mark.tiny, pytest.mark.asyncio(loop_scope="module")]

ASK = Turn((TurnMessage("user", "Hello!"),), Sampling(temperature=0.0), 8)
SUM = 'start: sum\nsum: sum ("+" | "-") N | N\nN: "x" | /[0-9]{1,3}/\n%ignore / +/\n'
REGEXES = [
    "(a*)*b",
    "(a?b?)+c",
    '(?i)abc[^k\\]\\^-]"\\\\',
    "😀{2,}[é-ü]\\D\\s.(?s).",
    "a{1000}",
    "((a{20}){20}b?){20}",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(
    tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalEngine]:
    one = LocalEngine(
        tiny_weights,
        served_as="tiny",
        home=tmp_path_factory.mktemp("home"),
        overrides=Overrides(context=512, slots=1, threads=1),
    )
    try:
        await one.start()
        yield one
    finally:
        await one.stop()


async def _text(engine: LocalEngine, turn: Turn) -> str:
    deltas = [delta async for delta in engine.stream(turn)]
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def test_its_converter_takes_all_kinds_of_schemas(engine: LocalEngine) -> None:
    for name, (wanted, _, _) in CASES.items():
        said = await _text(engine, replace(ASK, schema=for_engine(json.dumps(wanted))))
        assert said, name


async def test_it_takes_schemas_as_grammars(engine: LocalEngine) -> None:
    wanted = '{"type": "number", "minimum": 1000, "maximum": 1001}'
    said = await _text(engine, replace(ASK, grammar=as_grammar(wanted), max_tokens=4))
    assert said.startswith("100")


@pytest.mark.parametrize("pattern", REGEXES)
async def test_its_parser_takes_expressions_as_gbnf(engine: LocalEngine, pattern: str) -> None:
    compiled = grammars.compile(Grammar("regex", pattern))
    assert compiled.gbnf is not None
    assert await _text(engine, replace(ASK, grammar=compiled.gbnf))


async def test_it_keeps_to_grammars_in_both_notations(engine: LocalEngine) -> None:
    compiled = grammars.compile(Grammar("lark", SUM))
    assert compiled.gbnf is not None
    for grammar in (compiled.gbnf, compiled.llguidance):
        said = await _text(engine, replace(ASK, grammar=grammar, max_tokens=2))
        assert said
        assert set(said) <= set("x0123456789 +-")


async def test_it_chooses_one_of_several_and_writes_objects(engine: LocalEngine) -> None:
    names = ["get_weather", 'a"b\\c', "é-[x]"]
    said = await _text(engine, replace(ASK, grammar=one_of(names), max_tokens=12))
    assert said in names
    assert (await _text(engine, replace(ASK, grammar=json_object()))).startswith("{")
