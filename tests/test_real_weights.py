"""The whole server on real weights, as a user starts it: `ouzel serve`, the official SDK."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from openai import AsyncOpenAI, OpenAI

from served import Served, served
from wire import checks


@pytest.fixture(scope="module")
def real(default_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The default weights, served as `make run` does."""
    with served(tmp_path_factory.mktemp("real")) as server:
        yield server


@pytest.fixture
def tiny(tiny_weights: Path, tmp_path: Path) -> Iterator[Served]:
    """The tiny weights, served; a server of its own for each test that breaks it."""
    with served(tmp_path / "home", "--model", str(tiny_weights), "--threads", "1") as server:
        yield server


@pytest.mark.weights
def test_the_sdk_gets_a_streamed_answer_on_both_apis(real: Served):
    with OpenAI(base_url=real.url, api_key="none", max_retries=0) as client:
        question = "What is the capital of France? Answer in one word."
        stream = client.responses.create(
            model="o4-mini", input=question, stream=True, temperature=0, max_output_tokens=32
        )
        events = list(stream)
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events[-1].response
        assert events[-1].type == "response.completed"
        assert "".join(deltas) == final.output_text
        assert "Paris" in final.output_text
        assert final.model == "qwen2.5-coder-1.5b-instruct"
        assert final.usage.output_tokens >= 1
        assert final.usage.input_tokens > 10
        chunks = list(
            client.chat.completions.create(
                model="o4-mini",
                messages=[{"role": "user", "content": question}],
                stream=True,
                temperature=0,
                max_completion_tokens=32,
                stream_options={"include_usage": True},
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert "Paris" in text
        assert chunks[-1].usage.completion_tokens == final.usage.output_tokens


@pytest.mark.weights
def test_a_second_turn_takes_its_history_from_the_cache(real: Served):
    with OpenAI(base_url=real.url, api_key="none", max_retries=0) as client:
        story = "The quick brown fox jumps over the lazy dog. " * 100
        first = client.responses.create(
            model="o4-mini", input=f"{story}\nWho jumps? One word.", max_output_tokens=16
        )
        second = client.responses.create(
            model="o4-mini",
            input="And over whom?",
            previous_response_id=first.id,
            max_output_tokens=16,
        )
    assert first.usage.input_tokens > 900
    assert second.usage.input_tokens_details.cached_tokens > 700


@pytest.mark.weights
def test_sampling_is_honoured(real: Served):
    with OpenAI(base_url=real.url, api_key="none", max_retries=0) as client:

        def say(**more):
            messages = [{"role": "user", "content": "Count: one two three four five six"}]
            values = {"max_completion_tokens": 24, "temperature": 0} | more
            made = client.chat.completions.create(model="o4-mini", messages=messages, **values)
            return made.choices[0]

        # The first call fills the prompt cache; rounding differs with how much comes from it.
        say()
        assert say().message.content == say().message.content
        assert say(seed=5, temperature=1).message.content == (
            say(seed=5, temperature=1).message.content
        )
        stopped = say(stop=[" three", "three"])
        assert "three" not in stopped.message.content
        assert stopped.finish_reason == "stop"
        assert say(max_completion_tokens=3).finish_reason == "length"
        entries = say(logprobs=True, top_logprobs=3).logprobs.content
        assert "".join(entry.token for entry in entries) == say().message.content
        assert all(len(entry.top_logprobs) == 3 for entry in entries)
        assert all(entry.logprob <= 0 for entry in entries)


@pytest.mark.weights
def test_the_command_line_asks_it(real: Served):
    asked = subprocess.run(
        [sys.executable, "-m", "ouzel.cli", "ask", "--url", real.url, "Say hello in French."],
        capture_output=True,
        timeout=120,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()


async def _stream(server: Served, number: int) -> bytes:
    body = {
        "model": "o4-mini",
        "input": f"Write a very long story about the number {number}.",
        "stream": True,
        "max_output_tokens": 1000,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/responses", json=body) as reply,
    ):
        return await reply.read()


@pytest.mark.tiny
async def test_killing_the_engine_under_eight_streams_ends_each_properly(tiny: Served):
    streams = [asyncio.create_task(_stream(tiny, number)) for number in range(8)]
    await asyncio.sleep(2)
    (engine,) = tiny.children()
    engine.kill()
    for sse in await asyncio.wait_for(asyncio.gather(*streams), 30):
        transcript = checks.check_response_stream(sse)
        assert transcript.response["status"] == "failed"
    assert tiny.process.poll() is None
    # The SDK comes back by itself after a 503 with `retry-after`.
    async with AsyncOpenAI(base_url=tiny.url, api_key="none", max_retries=10) as client:
        again = await client.responses.create(model="o4-mini", input="hi", max_output_tokens=16)
    assert again.output_text


@pytest.mark.tiny
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_engine_outlives_its_server(tiny: Served, sign: signal.Signals):
    (engine,) = tiny.children()
    code = tiny.stop(sign)
    if sign != signal.SIGKILL:
        assert code == 0, tiny.log.read_text()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(engine.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(engine.pid)


@pytest.mark.tiny
def test_weights_cut_short_are_told_as_such(tiny_weights: Path, tmp_path: Path):
    cut = tmp_path / "cut.gguf"
    with tiny_weights.open("rb") as whole:
        cut.write_bytes(whole.read(50_000_000))
    with pytest.raises(AssertionError, match=r"50000000|50,000,000|50\.0 MB") as caught:
        served(tmp_path / "home", "--model", str(cut)).__enter__()
    assert "Traceback" not in str(caught.value)


@pytest.mark.tiny
def test_another_openai_server_serves_as_engine(tiny: Served, tmp_path: Path):
    with (
        served(tmp_path / "front", "--engine-url", tiny.url, "--engine-context", "2048") as front,
        OpenAI(base_url=front.url, api_key="none", max_retries=0) as client,
    ):
        made = client.responses.create(model="o4-mini", input="hello", max_output_tokens=16)
    assert made.output_text
    assert made.usage.input_tokens > 0
