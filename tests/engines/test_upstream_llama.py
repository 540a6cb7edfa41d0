"""The upstream engine against a real llama.cpp server on small real weights."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ouzel.core.errors import ContextLengthExceeded, EngineDied, EngineError, EngineUnavailable
from ouzel.core.request import Sampling
from ouzel.core.turns import TextDelta, Turn, TurnDone, TurnMessage
from ouzel.engines.local_life import SAMPLING
from ouzel.engines.upstream import Timeouts, UpstreamEngine
from ouzel.engines.upstream_client import Client

pytestmark = pytest.mark.tiny

SERVER = """
import sys, time
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
params.api_keys = ["k"]
params.n_parallel = 2
params.n_ctx = 2048
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.use_jinja = True
server = xllamacpp.Server(params)
print("ready", flush=True)
time.sleep(1e6)
"""
GREEDY = Sampling(temperature=0.0)
HELLO = Turn((TurnMessage("system", "Be kind."), TurnMessage("user", "Say hello.")), GREEDY, 8)
ESSAY = Turn((TurnMessage("user", "Write a very long essay about rivers."),), GREEDY)


class Server:
    """One llama.cpp server in a process of its own, that can be killed and started again."""

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.weights), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == b"ready"

    def kill(self) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="module")
def server(tiny_weights: Path) -> Iterator[Server]:
    server = Server(tiny_weights)
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def started(server: Server, **how: Any) -> AsyncIterator[UpstreamEngine]:
    engine = UpstreamEngine(server.url, **({"key": "k", "model": None} | how))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def read(engine: UpstreamEngine, turn: Turn) -> list[Any]:
    return [delta async for delta in engine.stream(turn)]


async def busy(client: Client) -> int:
    """How many slots the server has at work, as it says itself."""
    slots = (await client.call("/slots", within=10)).json()
    assert isinstance(slots, list)
    return sum(slot["is_processing"] for slot in slots)


async def test_what_it_is_and_what_it_says(server: Server) -> None:
    async with started(server) as engine:
        info = engine.info
        assert info.context_window == 1024, "of one slot"
        assert info.capabilities == SAMPLING | {"grammar", "json_schema", "opening", "llguidance"}
        deltas = [d async for d in engine.stream(HELLO)]
        done = deltas[-1]
        assert isinstance(done, TurnDone)
        assert all(isinstance(d, TextDelta) and d.text for d in deltas[:-1])
        assert done.reason == "length"
        assert done.usage.output_tokens == 8
        assert done.usage.input_tokens == await engine.count_tokens(HELLO)
        again = [d async for d in engine.stream(HELLO)]
        assert again[:-1] == deltas[:-1]
        assert isinstance(again[-1], TurnDone)
        assert again[-1].usage.cached_tokens > 0


async def test_every_way_of_counting_gives_the_same_number(server: Server) -> None:
    async with started(server) as engine:
        tokenizer = engine._tokenizer
        counts = [await route(HELLO) for route in list(tokenizer._routes[:2])]
        counts.append(await tokenizer.by_generating(HELLO))
        assert len(set(counts)) == 1
        assert await tokenizer.text("Hello there, world") == 4


async def test_parameters_do_what_they_say(server: Server) -> None:
    async with started(server) as engine:

        async def said(sampling: Sampling, tokens: int = 8) -> list[TextDelta]:
            turn = Turn(HELLO.messages, sampling, tokens)
            return [d async for d in engine.stream(turn) if isinstance(d, TextDelta)]

        plain = "".join(d.text for d in await said(GREEDY))
        stopped = await said(Sampling(temperature=0.0, stop=(plain[3:6],)))
        assert "".join(d.text for d in stopped) == plain[: plain.index(plain[3:6])]
        wild = [await said(Sampling(temperature=1.5, seed=seed), 12) for seed in (-1, -1, 5)]
        assert wild[0] == wild[1] != wild[2]
        with_logprobs = await said(Sampling(temperature=0.0, top_logprobs=3))
        assert "".join(d.text for d in with_logprobs) == plain
        for delta in with_logprobs:
            for token in delta.logprobs:
                assert len(token.top) == 3
                assert token.top[0].logprob == max(t.logprob for t in token.top)
                assert token.logprob == token.top[0].logprob, "greedy takes the likeliest"
                assert bytes(token.raw).decode() == token.token


async def test_a_prompt_that_does_not_fit(server: Server) -> None:
    long = Turn((TurnMessage("user", "word " * 3000),))
    async with started(server) as engine:
        counted = await engine.count_tokens(long)
        with pytest.raises(ContextLengthExceeded) as caught:
            [d async for d in engine.stream(long)]
        assert (caught.value.prompt_tokens, caught.value.context_window) == (counted, 1024)


async def test_a_wrong_key(server: Server) -> None:
    with pytest.raises(EngineError, match="engine_key"):
        async with started(server, key="not-it"):
            pass


async def test_letting_go_frees_the_slot(server: Server) -> None:
    client = Client(server.url, "k", Timeouts())
    try:
        async with started(server) as engine:
            async with aclosing(engine.stream(ESSAY)) as deltas:
                async for _ in deltas:
                    assert await busy(client) == 1
                    break
            async with asyncio.timeout(10):  # the essay would go on for a thousand tokens
                while await busy(client):
                    await asyncio.sleep(0.02)
            task = asyncio.create_task(read(engine, ESSAY))
            await until(lambda: busy(client))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(10):
                while await busy(client):
                    await asyncio.sleep(0.02)
    finally:
        await client.close()


async def test_eight_at_once_on_two_slots(server: Server) -> None:
    async with started(server) as engine:
        answers = await asyncio.gather(*(read(engine, HELLO) for _ in range(8)))
        assert all(isinstance(a[-1], TurnDone) for a in answers)
        assert all(a[-1].usage.output_tokens == 8 for a in answers)


async def test_it_is_killed_in_mid_answer_and_comes_back(server: Server) -> None:
    async with started(server, retries=1) as engine:
        got: list[Any] = []

        async def read() -> None:
            async for delta in engine.stream(ESSAY):
                got.append(delta)
                if len(got) == 3:
                    server.kill()

        with pytest.raises(EngineDied):
            await read()
        assert not any(isinstance(d, TurnDone) for d in got)
        with pytest.raises(EngineUnavailable):
            [d async for d in engine.stream(HELLO)]
        assert engine.state == "restarting"
        await asyncio.to_thread(server.start)

        async def back() -> bool:
            return engine.state == "ready"

        await until(back)
        assert isinstance([d async for d in engine.stream(HELLO)][-1], TurnDone)
