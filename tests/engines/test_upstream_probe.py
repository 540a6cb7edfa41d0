"""What a server and its model can, in every dialect: found by effect, and then made use of."""

from __future__ import annotations

from typing import Any

import pytest
from fake_upstream import FakeUpstream, serving

from ouzel.core.contracts import Capability
from ouzel.core.request import FunctionTool, Sampling
from ouzel.core.turns import (
    CallDelta,
    EngineDelta,
    Halt,
    TextDelta,
    ThinkingDelta,
    Turn,
    TurnDone,
    TurnMessage,
)
from ouzel.engines.upstream import UpstreamEngine
from ouzel.engines.upstream_probe import style_of

HELLO = Turn((TurnMessage("user", "Hi there"),))
AGAIN = Turn(
    (
        TurnMessage("user", "How many?"),
        TurnMessage("assistant", "Two.", thinking="Two is few."),
        TurnMessage("user", "Are you sure?"),
    )
)
NOTE = FunctionTool("note", "Notes.", '{"type":"object","properties":{"word":{"type":"string"}}}')


async def up(fake: FakeUpstream, **how: Any) -> UpstreamEngine:
    engine = UpstreamEngine(fake.url, **({"key": fake.key, "model": None, "retries": 0} | how))
    await engine.start()
    fake.asked.clear()
    return engine


async def said(
    engine: UpstreamEngine, turn: Turn, halt: Halt | None = None
) -> tuple[list[EngineDelta], TurnDone]:
    deltas = [delta async for delta in engine.stream(turn, halt)]
    done = deltas.pop()
    assert isinstance(done, TurnDone)
    return deltas, done


def text(deltas: list[EngineDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


@pytest.mark.parametrize(
    ("dialect", "field"),
    [
        ("llama", "grammar"),
        ("old_llama", "grammar"),
        ("vllm", "structured_outputs"),
        ("sglang", "ebnf"),
    ],
)
async def test_a_grammar_is_handed_over_in_the_servers_own_field(dialect: str, field: str) -> None:
    async with serving(dialect) as fake:
        engine = await up(fake)
        assert "grammar" in engine.info.capabilities
        deltas, _ = await said(engine, Turn(HELLO.messages, grammar='root ::= "yes"'))
        assert text(deltas) == "yes"
        (body,) = fake.chats
        assert field in body
        others = {"grammar", "structured_outputs", "guided_grammar", "ebnf"} - {field}
        assert not others & set(body)
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "old_llama", "vllm", "sglang", "ollama"])
async def test_a_message_that_has_begun_goes_on(dialect: str) -> None:
    async with serving(dialect) as fake:
        engine = await up(fake)
        assert "opening" in engine.info.capabilities
        deltas, _ = await said(engine, Turn(HELLO.messages, opening="So"))
        assert text(deltas) == " and on"
        (body,) = fake.chats
        assert body["messages"][-1] == {"role": "assistant", "content": "So"}
        assert body.get("continue_final_message") == (dialect in ("vllm", "sglang") or None)
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "vllm", "sglang", "ollama"])
@pytest.mark.parametrize("missing", ["grammar", "json_schema", "opening", "tools"])
async def test_what_has_no_effect_is_not_claimed(dialect: str, missing: Capability) -> None:
    async with serving(dialect) as fake:
        fake.skills.can.discard(missing)
        engine = await up(fake)
        info = engine.info
        assert missing not in info.capabilities
        assert dict(info.detail)[f"can {missing}"].startswith("no: ")
        assert info.tool_style == ("guided" if missing == "tools" else "native")
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "ollama", "vllm"])
@pytest.mark.parametrize("sees", [True, False])
async def test_images_are_said_or_shown(dialect: str, sees: bool) -> None:
    async with serving(dialect) as fake:
        if sees:
            fake.skills.can.add("images")
        engine = await up(fake)
        assert ("images" in engine.info.capabilities) is sees
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "vllm", "sglang", "ollama"])
@pytest.mark.parametrize("how", ["no", "channel", "tags", "open"])
async def test_how_thinking_shows(dialect: str, how: str) -> None:
    async with serving(dialect) as fake:
        fake.skills.thinks = how
        engine = await up(fake)
        assert engine.info.thinks == how
        assert engine.info.capabilities >= {"opening"}
        await engine.stop()


@pytest.mark.parametrize(
    ("dialect", "how", "name"),
    [
        ("llama", "channel", "reasoning_content"),
        ("sglang", "channel", "reasoning_content"),
        ("vllm", "channel", "reasoning"),
        ("ollama", "channel", "reasoning"),
        ("llama", "tags", "content"),
        ("vllm", "open", "content"),
    ],
)
async def test_thinking_is_handed_back_as_it_came(dialect: str, how: str, name: str) -> None:
    async with serving(dialect) as fake:
        fake.skills.thinks = how
        engine = await up(fake)
        await said(engine, AGAIN)
        message = fake.chats[0]["messages"][1]
        told = "<think>\nTwo is few.\n</think>\n\nTwo." if name == "content" else "Two is few."
        assert message[name] == told
        assert {"role", "content", name} == set(message)
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "vllm", "sglang", "ollama"])
async def test_thinking_that_a_server_refuses_is_kept_from_it(dialect: str) -> None:
    async with serving(dialect) as fake:
        fake.skills.thinks, fake.skills.takes_thinking = "channel", False
        engine = await up(fake)
        assert engine.info.thinks == "channel"
        await said(engine, AGAIN)
        assert fake.chats[0]["messages"][1] == {"role": "assistant", "content": "Two."}
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "vllm", "sglang", "ollama"])
async def test_thinking_is_counted_and_never_made_up(dialect: str) -> None:
    """By the running counts, by the final ones, by the tokenizer, or by what a prompt grows."""
    async with serving(dialect) as fake:
        fake.skills.thinks = "channel"
        fake.skills.thoughts = [" one", " two", " three"]
        engine = await up(fake)
        deltas, done = await said(engine, HELLO)
        assert [d.text for d in deltas if isinstance(d, ThinkingDelta)] == [
            " one",
            " two",
            " three",
        ]
        assert (done.usage.reasoning_tokens, done.usage.output_tokens) == (3, 13)
        await engine.stop()


@pytest.mark.parametrize(
    ("taken", "effort", "sent"),
    [
        ({"low", "medium", "high"}, "high", "high"),
        ({"low", "medium", "high"}, "minimal", "low"),
        ({"low", "medium", "high"}, "none", "low"),
        ({"none", "minimal", "low", "medium", "high"}, "none", "none"),
        (set(), "low", None),
    ],
)
async def test_an_effort_is_said_as_the_server_takes_it(
    taken: set[str], effort: Any, sent: str | None
) -> None:
    async with serving("vllm") as fake:
        fake.skills.thinks, fake.skills.efforts = "channel", taken
        engine = await up(fake)
        await said(engine, Turn(HELLO.messages, effort=effort))
        assert fake.chats[-1].get("reasoning_effort") == sent
        assert "chat_template_kwargs" not in fake.chats[-1]
        await said(engine, HELLO)
        assert "reasoning_effort" not in fake.chats[-1]
        await engine.stop()


async def test_thinking_is_turned_off_where_that_works() -> None:
    async with serving("vllm") as fake:
        fake.skills.thinks, fake.skills.switch, fake.skills.efforts = "channel", True, set()
        engine = await up(fake)
        deltas, done = await said(engine, Turn(HELLO.messages, effort="none"))
        assert fake.chats[-1]["chat_template_kwargs"] == {"enable_thinking": False}
        assert not [d for d in deltas if isinstance(d, ThinkingDelta)]
        assert done.usage.reasoning_tokens == 0
        deltas, _ = await said(engine, Turn(HELLO.messages, effort="high"))
        assert [d for d in deltas if isinstance(d, ThinkingDelta)]
        await engine.stop()


async def test_no_effort_is_sent_to_a_model_that_does_not_think() -> None:
    async with serving("ollama") as fake:  # which would refuse it
        engine = await up(fake)
        _, done = await said(engine, Turn(HELLO.messages, effort="high"))
        assert done.reason == "stop"
        await engine.stop()


async def test_a_call_comes_as_a_call() -> None:
    async with serving("vllm") as fake:
        engine = await up(fake)
        turn = Turn(HELLO.messages, tools=(NOTE,), tool_mode="required", parallel=False)
        deltas, done = await said(engine, turn)
        assert deltas == [CallDelta(0, "c1", "note", '{"word": "zebra"}')]
        assert done.reason == "calls"
        assert fake.chats[-1]["parallel_tool_calls"] is False
        assert await engine.count_tokens(turn) > 0
        assert fake.asked[-1][1]["tools"] == fake.chats[-1]["tools"]
        await engine.stop()


@pytest.mark.parametrize("dialect", ["llama", "vllm", "sglang", "ollama", "old_llama"])
@pytest.mark.parametrize("along", [True, False])
async def test_a_halt_ends_a_turn_with_its_tokens_counted(dialect: str, along: bool) -> None:
    async with serving(dialect, words=[" word"] * 400, window=2000) as fake:
        fake.skills.counts_as_it_goes = along
        engine = await up(fake)
        fake.pace = 0.01
        halt, heard, done = Halt(), 0, None
        async for delta in engine.stream(HELLO, halt):
            if isinstance(delta, TurnDone):
                done = delta
            else:
                heard += 1
                halt.wished = heard == 5
        assert done is not None
        assert done.reason == "halted"
        assert heard <= done.usage.output_tokens < 40, "what was read, not what was to come"
        assert done.usage.input_tokens == 5
        fake.pace = 0.0
        await fake.abandoned_one.wait()
        await engine.stop()


async def test_a_halt_wished_before_asks_nothing() -> None:
    async with serving() as fake:
        engine = await up(fake)
        halt = Halt()
        halt.wished = True
        assert await said(engine, HELLO, halt) == ([], TurnDone("halted"))
        assert fake.chats == []
        await engine.stop()


async def test_a_halt_wished_in_a_finished_answer_says_that_some_was_left_out() -> None:
    async with serving() as fake:  # all of it comes in one piece
        engine = await up(fake)
        halt, heard = Halt(), []
        async for delta in engine.stream(HELLO, halt):
            heard.append(delta)
            halt.wished = True
        assert heard[0] == TextDelta("The")
        assert isinstance(heard[-1], TurnDone)
        assert heard[-1].usage.output_tokens == 10 or len(heard) == 2
        assert heard[-1].reason == "halted"
        await engine.stop()


async def test_the_pace_is_what_llama_server_measures() -> None:
    async with serving("llama") as fake:
        engine = await up(fake)
        long = Turn((TurnMessage("user", "word " * 100),), Sampling(temperature=0.0))
        await said(engine, long)
        assert engine.pace.prefill == pytest.approx(100)
        assert engine.pace.decode == pytest.approx(20)
        await engine.stop()


async def test_the_pace_is_seen_from_outside_elsewhere() -> None:
    async with serving("vllm", words=[" word"] * 30) as fake:
        engine = await up(fake)
        fake.pace = 0.01
        before = engine.pace
        for _ in range(20):
            await said(engine, HELLO)
        # A word every ten milliseconds, and timers that may fire a little early.
        assert 20 < engine.pace.decode < 120
        assert engine.pace.decode < before.decode
        await engine.stop()


def test_the_style_of_calling_tools() -> None:
    can: frozenset[Capability] = frozenset({"tools"})
    cannot: frozenset[Capability] = frozenset()
    assert style_of(can, None) == "native"
    assert style_of(cannot, None) == "guided"
    assert style_of(can, None, "guided") == "guided"
    assert style_of(cannot, None, "native") == "guided"
    assert style_of(cannot, "native", "guided") == "native"
