"""Turns over HTTP against a real server that misbehaves: retries, deadlines, cancelling."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fake_upstream import WORDS, chunk, event, flat, serving
from fake_upstream_faults import (
    HELLO,
    QUICK,
    engine_for,
    only,
    raw,
    reset,
    status,
    take,
    words,
)

from ouzel.core.errors import (
    ContextLengthExceeded,
    EngineDied,
    EngineError,
    EngineUnavailable,
    OuzelError,
    RequestError,
)
from ouzel.core.request import Sampling
from ouzel.core.turns import EngineDelta, TextDelta, Turn, TurnDone, TurnMessage, Usage
from ouzel.engines import upstream
from ouzel.engines.upstream_sse import MAX_EVENT

BODY = [event(json.dumps(chunk({"content": w}))) for w in ("a", "b")]
END = event(json.dumps(chunk({}, "stop")))
COUNTS = event(json.dumps({"choices": [], "usage": {"prompt_tokens": 6, "completion_tokens": 2}}))
DONE = b"data: [DONE]\n\n"

# --- turns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["llama", "old_llama", "vllm", "sglang", "ollama"])
async def test_a_turn_in_every_dialect(dialect: str) -> None:
    async with serving(dialect) as fake, engine_for(fake) as engine:
        deltas = await take(engine)
        assert words(deltas) == "".join(WORDS)
        done = deltas[-1]
        assert isinstance(done, TurnDone)
        assert done.reason == "stop"
        assert (done.usage.input_tokens, done.usage.output_tokens) == (6, len(WORDS))
        assert sum(isinstance(d, TurnDone) for d in deltas) == 1
        assert await engine.count_tokens(HELLO) == 6


async def test_logprobs_arrive() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        turn = Turn(HELLO.messages, Sampling(top_logprobs=0), max_tokens=1)
        first = (await take(engine, turn))[0]
        assert isinstance(first, TextDelta)
        assert first.logprobs[0].logprob == -0.5
        assert first.logprobs[0].top == (), "0 alternatives were asked for"


async def test_connections_are_used_again() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.peers.clear()
        for _ in range(5):
            await take(engine)
        assert len(set(fake.peers)) == 1


async def test_a_connection_whose_end_comes_a_little_later_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "SETTLE", 10.0)  # however slow this machine is
    async with serving() as fake, engine_for(fake) as engine:
        fake.peers.clear()
        fake.faults += [raw(*BODY, END, COUNTS, DONE, 0.1)] * 2
        await take(engine)
        await take(engine)
        assert len(set(fake.peers)) == 1


async def test_a_kept_connection_that_died_costs_no_retry() -> None:
    async with serving() as fake, engine_for(fake, retries=0) as engine:
        fake.pace = 0.02  # all at once, so that several connections are kept
        await asyncio.gather(*(take(engine) for _ in range(4)))
        fake.hangs_up, fake.pace = True, 0.0
        assert words(await take(engine)) == "".join(WORDS)
        assert await engine.count_tokens(HELLO) == 6


async def test_eight_at_once() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.pace = 0.02
        answers = await asyncio.gather(*(take(engine) for _ in range(8)))
        assert [words(a) for a in answers] == ["".join(WORDS)] * 8
        assert fake.most_running == 8


async def test_a_hundred_broken_and_whole_streams_do_not_touch_each_other() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        for number in range(100):
            if number % 3 == 0:
                fake.faults.append(reset(after=4))
        answers = await asyncio.gather(*(take(engine) for _ in range(100)), return_exceptions=True)
        died = [a for a in answers if isinstance(a, EngineDied)]
        whole = [a for a in answers if isinstance(a, list)]
        assert (len(died), len(whole)) == (34, 66)
        assert {words(a) for a in whole} == {"".join(WORDS)}


async def test_a_slow_reader_loses_nothing_and_times_nothing_out() -> None:
    async with serving() as fake, engine_for(fake, timeouts=QUICK) as engine:
        got: list[EngineDelta] = []
        async for delta in engine.stream(HELLO):
            got.append(delta)
            if len(got) == 2:
                await asyncio.sleep(3 * QUICK.idle)
        assert words(got) == "".join(WORDS)
        assert isinstance(got[-1], TurnDone)


async def test_a_very_long_prompt_is_sent() -> None:
    async with serving(window=2_000_000) as fake, engine_for(fake) as engine:
        turn = Turn((TurnMessage("user", "word " * 400_000),))
        done = (await take(engine, turn))[-1]
        assert isinstance(done, TurnDone)
        assert done.usage.input_tokens == 400_003


# --- broken answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        reset(after=3),
        only(3),
        raw(*BODY, b"data: {broken\n\n"),
        raw(*BODY, b'data: {"choices": [{"delta": {"con'),
        raw(*BODY, DONE),
        raw(*BODY, event(json.dumps({"error": {"message": "it broke", "code": 500}})), DONE),
        raw(*BODY, event(json.dumps({"error": {"message": "busy", "code": 503}})), DONE),
        raw(*BODY, event(json.dumps(flat("it broke"))), DONE),
        raw(*BODY, event(json.dumps(chunk({}, "abort"))), DONE),
        raw(*BODY, b"data: " + b"x" * (MAX_EVENT + 100)),
        raw(*BODY, b"\x00\xff\xfe" * 100 + b"\n\n"),
    ],
    ids=[
        "reset",
        "ends",
        "garbage",
        "half an event",
        "done without a reason",
        "error",
        "error 503",
        "flat error",
        "abort",
        "huge line",
        "binary",
    ],
)
async def test_a_break_in_the_middle_is_a_death_and_nothing_is_said_twice(fault: Any) -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.faults.append(fault)
        with pytest.raises(EngineDied) as caught:
            await take(engine)
        assert len(fake.chats) == 1
        assert caught.value.__notes__[0] in ("ab", "The quick", "ab" * 1)
        assert words(await take(engine)) == "".join(WORDS), "the next turn is not harmed"


@pytest.mark.parametrize(
    "pieces",
    [
        [*BODY, END, COUNTS],
        [*BODY, COUNTS, END, DONE],
        [*BODY, END, COUNTS, b"data: [DONE]"],
        [b": ping\n\n", BODY[0], b": ping\r\n\r\n", BODY[1], END, COUNTS, DONE],
        [b"".join([*BODY, END, COUNTS, DONE])[i : i + 7] for i in range(0, 700, 7)],
        [b"".join([*BODY, END, COUNTS, DONE]).replace(b"\n", b"\r\n")],
        [*BODY, END, COUNTS, 30.0],
        [*BODY, END, COUNTS, *[b": ping\n\n", 0.05] * 600],
        [*BODY, END, COUNTS, DONE, 30.0],
    ],
    ids=[
        "no DONE",
        "counts first",
        "no last line end",
        "pings",
        "little pieces",
        "CRLF",
        "open",
        "pings for ever",
        "open after DONE",
    ],
)
async def test_odd_but_whole_answers(pieces: list[Any]) -> None:
    async with serving() as fake, engine_for(fake, timeouts=QUICK) as engine:
        fake.faults.append(raw(*pieces))
        assert await take(engine) == [
            TextDelta("a"),
            TextDelta("b"),
            TurnDone("stop", Usage(6, 0, 2, 0)),
        ]


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (raw(b"<html>hi</html>", content_type="text/html"), EngineDied, "text/html"),
        (raw(b"{}", content_type="application/json"), EngineDied, "engine_url"),
        (status(200, {"error": {"message": "no such stop", "code": 400}}), RequestError, "stop"),
        (status(200, {"error": "odd"}), EngineDied, "odd"),
        (status(302, b"", Location="http://example.com/"), EngineError, "redirects"),
        (status(401, {"error": {"message": "bad key: k"}}), EngineError, "engine_key"),
        (status(404, {"error": {"message": "model 'm' not found"}}), EngineError, "engine_model"),
        (status(400, {"error": {"message": "no stop", "param": "stop"}}), RequestError, "no stop"),
        (status(500, b"oops"), EngineDied, "oops"),
        (raw(), EngineDied, "middle"),
        (raw(DONE), EngineDied, "reason"),
    ],
)
async def test_refusals_are_not_tried_again(fault: Any, kind: type[OuzelError], says: str) -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.faults.append(fault)
        with pytest.raises(kind, match=says):
            await take(engine)
        assert len(fake.chats) == 1


# --- trying again ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        reset(),
        reset(after=0),
        reset(after=1),
        status(503, {"error": {"message": "Loading model", "code": 503}}),
        status(502, b"<html>bad gateway</html>"),
        status(429, {"error": {"message": "slow down"}}),
        raw(event(json.dumps({"error": {"message": "busy", "code": 503}}))),
    ],
    ids=["no headers", "no events", "only the role", "503", "502", "429", "error 503"],
)
async def test_a_failure_before_the_first_word_is_tried_again(fault: Any) -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.faults += [fault, fault]
        assert words(await take(engine)) == "".join(WORDS)
        assert len(fake.chats) == 3
        assert fake.chats[0] == fake.chats[2]


async def test_tries_come_to_an_end() -> None:
    async with serving() as fake, engine_for(fake, retries=1) as engine:
        fake.faults += [status(503, {"error": {"message": "Loading model"}})] * 5
        with pytest.raises(EngineUnavailable, match="Loading model"):
            await take(engine)
        assert len(fake.chats) == 2
        fake.faults.clear()
        fake.faults += [reset()] * 5
        with pytest.raises(EngineUnavailable, match="before it had answered"):
            await take(engine)


async def test_a_server_that_wants_a_long_pause_is_left_alone() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.faults.append(status(429, {}, Retry_After="30"))
        with pytest.raises(EngineUnavailable) as caught:
            await take(engine)
        assert caught.value.retry_after == 30
        assert len(fake.chats) == 1


async def test_no_tries_when_none_are_wanted() -> None:
    async with serving() as fake, engine_for(fake, retries=0) as engine:
        fake.faults.append(status(503, {}))
        with pytest.raises(EngineUnavailable):
            await take(engine)
        assert len(fake.chats) == 1


# --- prompts that do not fit ----------------------------------------------------------------

LONG = Turn((TurnMessage("user", "word " * 600),), max_tokens=16)


@pytest.mark.parametrize("dialect", ["llama", "old_llama", "vllm", "sglang", "ollama"])
async def test_a_prompt_that_does_not_fit_is_told_with_both_numbers(dialect: str) -> None:
    async with serving(dialect, window=512) as fake, engine_for(fake) as engine:
        with pytest.raises(ContextLengthExceeded) as caught:
            await take(engine, LONG)
        assert (caught.value.prompt_tokens, caught.value.context_window) == (603, 512)
        assert "512" in caught.value.message
        assert "603" in caught.value.message


async def test_without_any_number_it_is_still_the_callers_error() -> None:
    async with serving("ollama", window=512) as fake, engine_for(fake) as engine:
        fake.faults.append(status(400, flat("the request exceeds the available context size")))
        with pytest.raises(RequestError) as caught:
            await take(engine)
        assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("dialect", ["llama", "vllm", "sglang"])
@pytest.mark.parametrize("limit", [505, 508, 100_000])
async def test_an_answer_longer_than_there_is_room_for_is_only_a_bound(
    dialect: str, limit: int
) -> None:
    """The reference takes max_tokens as an upper bound; vLLM and SGLang refuse it."""
    async with serving(dialect, window=512) as fake, engine_for(fake) as engine:
        fake.words = ["word "] * 600
        deltas = await take(engine, Turn(HELLO.messages, max_tokens=limit))
        done = deltas[-1]
        assert isinstance(done, TurnDone)
        assert done.reason == "length"
        assert done.usage.output_tokens >= min(limit, 512 - 6 - 1)
        assert len(fake.chats) <= 2


# --- counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["llama", "old_llama", "vllm"])
async def test_a_server_that_sends_no_counts_is_asked_for_them(dialect: str) -> None:
    async with serving(dialect, usage=False) as fake, engine_for(fake) as engine:
        done = (await take(engine))[-1]
        assert isinstance(done, TurnDone)
        assert done.usage == Usage(input_tokens=6, output_tokens=len("".join(WORDS).split()))


@pytest.mark.parametrize("dialect", ["sglang", "ollama"])
async def test_counts_are_never_made_up(dialect: str) -> None:
    async with serving(dialect, usage=False) as fake, engine_for(fake) as engine:
        with pytest.raises(EngineDied, match="counts") as caught:
            await take(engine)
        assert caught.value.__notes__ == ["".join(WORDS)]


async def test_counting_is_tried_again_and_refused_like_a_turn() -> None:
    async with serving("ollama") as fake, engine_for(fake) as engine:
        fake.faults.append(status(503, {}))
        assert await engine.count_tokens(HELLO) == 6
        with pytest.raises(ContextLengthExceeded):
            await engine.count_tokens(LONG)
    async with serving("llama") as fake, engine_for(fake) as engine:
        assert await engine.count_tokens(LONG) == 603
        assert fake.chats == []


async def test_the_key_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    key = "sk-very-secret-1234"
    async with serving(key=key) as fake, engine_for(fake, retries=1) as engine:
        said: list[str] = []
        faults = [
            status(400, {"error": {"message": f"your key {key} is odd"}}),
            status(503, {"error": {"message": f"your key {key} is odd"}}),
            raw(event(json.dumps({"error": f"your key {key} is odd"}))),
            status(401, {"error": {"message": f"Incorrect API key: {key}"}}),
            reset(),
        ]
        for fault in faults:
            fake.faults.clear()
            fake.faults += [fault] * 4
            with pytest.raises(OuzelError) as caught:
                await take(engine)
            error: BaseException | None = caught.value
            while error is not None:
                said += [str(error), repr(error), repr(error.args)]
                error = error.__cause__
        said.append(repr(engine.info))
    assert key not in "".join(said)
    assert key not in caplog.text
