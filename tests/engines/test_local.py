"""The embedded engine on small real weights: answers, limits, slots, and what it tells."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from local_kit import GREEDY, NO_END, answer, running, say, workers

from ouzel.core.errors import ContextLengthExceeded, EngineError, EngineUnavailable
from ouzel.core.request import Sampling
from ouzel.core.turns import TextDelta, Turn, TurnMessage
from ouzel.engines.local import LocalEngine
from ouzel.engines.local_life import SAMPLING

pytestmark = [pytest.mark.tiny, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(
    tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalEngine]:
    os.environ["OUZEL_API_KEY"] = "the-servers-own-key"
    try:
        async with running(tiny_weights, tmp_path_factory.mktemp("home"), context=512) as one:
            yield one
    finally:
        del os.environ["OUZEL_API_KEY"]


async def test_it_answers_and_counts(engine: LocalEngine) -> None:
    turn = say("What is the capital of France?", 12)
    text, done = await answer(engine, turn)
    assert text
    assert done.usage.output_tokens <= 12
    assert await engine.count_tokens(turn) == done.usage.input_tokens


async def test_it_says_what_it_is(engine: LocalEngine) -> None:
    info = engine.info
    assert (info.model, info.context_window) == ("tiny", 512)
    assert SAMPLING | {"grammar", "json_schema", "opening"} <= info.capabilities
    facts = dict(info.detail)
    assert (facts["slots"], facts["threads"], facts["restarts"]) == ("2", "1", "0")
    assert int(facts["resident memory"].split()[0]) > 50
    assert facts["process"] == str(engine.pid)
    assert engine.state == "ready"


async def test_a_second_turn_is_not_computed_again(engine: LocalEngine) -> None:
    story = "Once there was a copper lantern in a winter market. " * 12
    first = say(story, 8)
    text, _ = await answer(engine, first)
    second = Turn(
        (*first.messages, TurnMessage("assistant", text), TurnMessage("user", "And then?")),
        GREEDY,
        4,
    )
    _, done = await answer(engine, second)
    assert done.usage.cached_tokens > 0.9 * await engine.count_tokens(first)


async def test_a_full_context_ends_with_length(engine: LocalEngine) -> None:
    _, done = await answer(engine, say("Tell a story. " * 100, None, NO_END))
    assert done.reason == "length"
    assert done.usage.input_tokens + done.usage.output_tokens in range(508, 514)


async def test_a_limit_beyond_the_window_ends_with_length(engine: LocalEngine) -> None:
    _, done = await answer(engine, say("Tell a story. " * 110, 5000, NO_END))
    assert done.reason == "length"
    assert done.usage.input_tokens + done.usage.output_tokens <= 513


async def test_a_prompt_that_does_not_fit_is_told_both_numbers(engine: LocalEngine) -> None:
    turn = say("Tell a story. " * 600)
    with pytest.raises(ContextLengthExceeded) as refused:
        await answer(engine, turn)
    assert refused.value.context_window == 512
    assert refused.value.prompt_tokens == await engine.count_tokens(turn)
    assert refused.value.prompt_tokens > 512


async def test_logprobs_come_with_alternatives(engine: LocalEngine) -> None:
    turn = say("Say hello.", 4, Sampling(temperature=0.0, top_logprobs=3))
    deltas = [each async for each in engine.stream(turn)]
    tokens = [token for each in deltas if isinstance(each, TextDelta) for token in each.logprobs]
    assert tokens
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top) == 3
        assert token.top[0].logprob == max(other.logprob for other in token.top)


async def test_a_stop_sequence_ends_it_and_is_not_shown(engine: LocalEngine) -> None:
    turn = "Write two sentences about rivers."
    whole, _ = await answer(engine, say(turn, 40))
    word = whole.split()[5]
    text, done = await answer(engine, say(turn, 40, Sampling(temperature=0.0, stop=(word,))))
    assert done.reason == "stop"
    assert word not in text
    assert whole.startswith(text)
    assert text


async def test_a_bias_forbids_a_token(engine: LocalEngine) -> None:
    plain = [e async for e in engine.stream(say("Say hello.", 1, GREEDY))]
    assert isinstance(plain[0], TextDelta)
    everything = Sampling(
        temperature=0.0, logit_bias={str(token): -100.0 for token in range(3, 49152)}
    )
    none_left, done = await answer(engine, say("Say hello.", 3, everything))
    assert plain[0].text not in none_left
    assert done.usage.output_tokens <= 3


async def test_a_seed_repeats_what_was_drawn(engine: LocalEngine) -> None:
    def wild(seed: int) -> Turn:
        return say("Invent a word.", 24, Sampling(temperature=1.5, seed=seed))

    drawn = [(await answer(engine, wild(seed)))[0] for seed in (7, 7, 7, 8, 9)]
    assert drawn[1] == drawn[2]
    assert len(set(drawn[2:])) == 3


async def test_penalties_change_what_is_said(engine: LocalEngine) -> None:
    turn = "Repeat the word river many times: river river river river"
    plain, _ = await answer(engine, say(turn, 40, NO_END))
    bias = NO_END.logit_bias
    for much in (
        Sampling(temperature=0.0, frequency_penalty=2.0, logit_bias=bias),
        Sampling(temperature=0.0, presence_penalty=2.0, logit_bias=bias),
    ):
        punished, _ = await answer(engine, say(turn, 40, much))
        assert punished != plain


async def test_more_turns_than_slots_wait_and_all_end(engine: LocalEngine) -> None:
    turns = [say(f"Name {n} animals.", 6) for n in range(12)]
    answers = await asyncio.gather(*(answer(engine, turn) for turn in turns))
    assert len(answers) == 12
    assert all(done.usage.output_tokens > 0 for _, done in answers)


async def test_a_turn_that_is_left_frees_its_slot_at_once(engine: LocalEngine) -> None:
    """Both slots are taken until the window is full; one is left, and the next turn begins long
    before the other has ended."""
    running_on = [engine.stream(say(f"Tell story {n}.", None, NO_END)) for n in range(2)]
    for each in running_on:
        await anext(each)
    waiting = engine.stream(say("Say hello.", 4))
    first = asyncio.create_task(anext(waiting))
    await asyncio.sleep(0.3)
    assert not first.done()  # both slots are taken
    await running_on[0].aclose()
    await first
    await anext(running_on[1])  # and the other one still goes on
    await running_on[1].aclose()
    await waiting.aclose()


async def test_a_prompt_that_is_left_half_read_frees_its_slot(
    tiny_weights: Path, tmp_path: Path
) -> None:
    """Beside another answer, which must not keep the process from seeing that somebody left."""

    async def first_word_after(engine: LocalEngine, word: str, leave: bool) -> float:
        reading = engine.stream(say(f"{word} is what to read. " * 120, 4))
        first = asyncio.create_task(anext(reading))
        await asyncio.sleep(0.5)
        began = time.monotonic()
        if leave:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await answer(engine, say("Say hello.", 2))
        took = time.monotonic() - began
        if not leave:
            await first
        await reading.aclose()
        return took

    async with running(tiny_weights, tmp_path, context=2048) as engine:
        beside = engine.stream(say("Tell a story.", None, NO_END))
        await anext(beside)
        waited = await first_word_after(engine, "This", leave=False)
        left = await first_word_after(engine, "That", leave=True)
        await anext(beside)
        await beside.aclose()
    assert left < waited / 2


async def test_a_task_that_is_cancelled_leaves_nothing_behind(engine: LocalEngine) -> None:
    async def read() -> None:
        async for _ in engine.stream(say("Tell a story.", None, NO_END)):
            pass

    tasks = [asyncio.create_task(read()) for _ in range(6)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError)
        for each in await asyncio.gather(*tasks, return_exceptions=True)
    )
    _, done = await answer(engine, say("Say hello.", 2))
    assert done.usage.output_tokens > 0


async def test_only_who_has_the_key_is_answered(engine: LocalEngine) -> None:
    assert engine.pid is not None
    listening = [
        each.laddr
        for each in psutil.Process(engine.pid).net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert [each.ip for each in listening] == ["127.0.0.1"]

    def ask(path: str, body: bytes | None) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{listening[0].port}{path}",
            body,
            {"Authorization": "Bearer the-servers-own-key"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    for path in ("/v1/chat/completions", "/completion", "/tokenize", "/apply-template"):
        assert await asyncio.to_thread(ask, path, b"{}") == 401
    for path in ("/slots", "/props", "/metrics", "/v1/models"):
        assert await asyncio.to_thread(ask, path, None) == 401


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="/proc is Linux's")
async def test_its_key_and_ours_stay_out_of_proc(engine: LocalEngine) -> None:
    life = engine._life
    assert life is not None
    key = life.line.secret
    assert key is not None
    assert len(key) >= 32
    proc = Path("/proc") / str(engine.pid)
    for name in ("cmdline", "environ"):
        content = (proc / name).read_bytes()
        assert key.encode() not in content
        assert b"the-servers-own-key" not in content
    assert b"PATH=" in (proc / "environ").read_bytes()


async def test_it_cannot_be_started_twice(engine: LocalEngine) -> None:
    with pytest.raises(EngineError, match="started already"):
        await engine.start()
    assert engine.state == "ready"


async def test_before_it_is_started_it_takes_no_turns(tmp_path: Path, tiny_weights: Path) -> None:
    engine = LocalEngine(tiny_weights, served_as="tiny", home=tmp_path)
    with pytest.raises(EngineUnavailable, match="not started"):
        await answer(engine, say("Hello."))
    with pytest.raises(EngineUnavailable, match="not started"):
        await engine.count_tokens(say("Hello."))
    with pytest.raises(EngineUnavailable):
        _ = engine.info
    await engine.stop()
    await engine.stop()
    assert engine.state == "stopped"


async def test_it_can_be_started_again_after_a_stop(tmp_path: Path, tiny_weights: Path) -> None:
    async with running(tiny_weights, tmp_path) as engine:
        first = engine.pid
        before = {each.pid for each in workers()}
        await engine.stop()
        assert first not in {each.pid for each in workers()}
        with pytest.raises(EngineUnavailable, match="stopped"):
            await answer(engine, say("Hello."))
        await engine.start()
        assert engine.pid not in before
        await answer(engine, say("Hello.", 2))
