"""Deadlines, cancelling, stopping, and a server that goes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from fake_upstream import WORDS, chunk, event, serving
from fake_upstream_faults import (
    HELLO,
    QUICK,
    engine_for,
    only,
    raw,
    slow_headers,
    status,
    take,
    until,
    words,
)

from ouzel.core.errors import (
    EngineDied,
    EngineUnavailable,
)
from ouzel.engines.upstream import Timeouts, UpstreamEngine

WORD = event(json.dumps(chunk({"content": "word"})))

# --- deadlines ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [slow_headers(30), only(0, then=30), only(1, then=30), raw(*[b": ping\n\n", 0.1] * 300)],
    ids=["headers", "events", "words", "only pings"],
)
async def test_silence_before_the_first_word(fault: Any) -> None:
    async with serving() as fake, engine_for(fake, timeouts=QUICK) as engine:
        fake.faults.append(fault)
        begun = time.monotonic()
        with pytest.raises(EngineUnavailable, match="said nothing"):
            await take(engine)
        assert time.monotonic() - begun < 10
        assert len(fake.chats) == 1, "it would only wait as long again"
        await until(lambda: fake.running == 0)


@pytest.mark.parametrize(
    "fault",
    [only(3, then=30), raw(WORD, *[b": ping\n\n", 0.1] * 300)],
    ids=["silent", "only pings"],
)
@pytest.mark.parametrize("first", [QUICK.first_token, 600.0])
async def test_silence_in_the_middle(fault: Any, first: float) -> None:
    limits = Timeouts(connect=2.0, first_token=first, idle=QUICK.idle)
    async with serving() as fake, engine_for(fake, timeouts=limits) as engine:
        fake.faults.append(fault)
        with pytest.raises(EngineDied, match="silent"):
            await take(engine)
        await until(lambda: fake.running == 0)


async def test_a_long_answer_may_take_longer_than_any_single_limit() -> None:
    async with serving() as fake, engine_for(fake, timeouts=QUICK) as engine:
        fake.pace = QUICK.idle / 4
        assert words(await take(engine)) == "".join(WORDS)


async def test_no_connection_within_the_time() -> None:
    with deaf() as url:
        engine = UpstreamEngine(url, key=None, model="m", timeouts=Timeouts(connect=0.3), retries=0)
        with pytest.raises(EngineUnavailable, match=r"No connection .* within 0.3 s"):
            await engine.start()
        await engine.stop()


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """The address of a listener whose queue is full: to connect neither succeeds nor fails."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- letting go -----------------------------------------------------------------------------


async def test_closing_the_generator_frees_the_slot_at_once() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.pace = 0.05
        fake.words = ["word "] * 2000
        fake.window = 10_000
        async with aclosing(engine.stream(HELLO)) as deltas:
            async for _ in deltas:
                break
        assert fake.running == 1
        await until(lambda: fake.abandoned)
        assert fake.running == 0
        fake.words, fake.pace = WORDS, 0.0
        assert words(await take(engine)) == "".join(WORDS), "no half-read connection is used again"


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [(slow_headers(30), True), (only(1, then=30), True), (only(3, then=30), True)],
    ids=["before the headers", "before the first word", "between words"],
)
async def test_cancelling_the_task_frees_the_slot(fault: Any, arrived: bool) -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.faults.append(fault)
        task = asyncio.create_task(take(engine))
        await until(lambda: fake.running == 1)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: fake.abandoned)
        assert fake.running == 0


async def test_cancelling_between_two_tries() -> None:
    async with serving() as fake, engine_for(fake, retries=10) as engine:
        fake.faults += [status(503, {})] * 20
        task = asyncio.create_task(take(engine))
        await until(lambda: len(fake.chats) >= 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asked = len(fake.chats)
        await asyncio.sleep(1.0)
        assert len(fake.chats) == asked


async def test_cancelling_while_it_connects() -> None:
    with deaf() as url:
        engine = UpstreamEngine(url, key=None, model="m", timeouts=Timeouts(connect=30.0))
        task = asyncio.create_task(engine.start())
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.state == "failed"
        await engine.stop()


async def test_stopping_ends_what_runs() -> None:
    async with serving() as fake, engine_for(fake) as engine:
        fake.faults.append(only(3, then=30))
        task = asyncio.create_task(take(engine))
        await until(lambda: fake.running == 1)
        await asyncio.sleep(0.1)
        await engine.stop()
        await engine.stop()
        with pytest.raises(EngineDied):
            await task
        assert engine.state == "stopped"
        with pytest.raises(EngineUnavailable, match="stopped"):
            await take(engine)
        await until(lambda: fake.running == 0)


# --- a server that goes and comes back ------------------------------------------------------


async def test_the_state_follows_the_server() -> None:
    async with serving() as fake, engine_for(fake, retries=1) as engine:
        await fake.stop()
        info = engine.info
        with pytest.raises(EngineUnavailable, match="No connection"):
            await take(engine)
        assert engine.state == "restarting"
        assert engine.info is info
        with pytest.raises(EngineUnavailable, match="restarting"):
            await take(engine)
        with pytest.raises(EngineUnavailable, match="restarting"):
            await engine.count_tokens(HELLO)
        fake.healthy = False
        await fake.start()
        await until(lambda: len(fake.asked) >= 2)
        assert engine.state == "restarting", "it answers, and still loads"
        fake.healthy = True
        await until(lambda: engine.state == "ready", 20)
        assert words(await take(engine)) == "".join(WORDS)


async def test_a_try_that_succeeds_brings_the_engine_back() -> None:
    async with serving() as fake, engine_for(fake, retries=6) as engine:
        await fake.stop()
        task = asyncio.create_task(take(engine))
        await until(lambda: engine.state == "restarting")
        await fake.start()
        assert words(await task) == "".join(WORDS)
        assert engine.state == "ready"


async def test_stopping_while_the_server_is_gone_leaves_no_task() -> None:
    async with serving() as fake:
        async with engine_for(fake, retries=1) as engine:
            await fake.stop()
            with pytest.raises(EngineUnavailable):
                await take(engine)
            assert "ouzel-upstream-check" in {t.get_name() for t in asyncio.all_tasks()}
        assert "ouzel-upstream-check" not in {t.get_name() for t in asyncio.all_tasks()}
        assert engine.state == "stopped"
