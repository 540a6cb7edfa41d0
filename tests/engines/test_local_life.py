"""Drills on the embedded engine's process: killed, hung, orphaned, stopped at any moment."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_kit import NO_END, PATIENT, SOON, answer, gone, running, say, until, workers

from ouzel.core.errors import EngineDied, EngineError, EngineUnavailable
from ouzel.core.turns import TextDelta, TurnDone
from ouzel.engines.local import LocalEngine, Overrides, Restarts, Timeouts
from ouzel.engines.local_child import meaning

pytestmark = pytest.mark.tiny

HOST = """
import asyncio, sys, uvloop
from pathlib import Path
from ouzel.engines.local import LocalEngine, Overrides

async def main():
    engine = LocalEngine(
        Path(sys.argv[1]),
        served_as="tiny",
        home=Path(sys.argv[2]),
        overrides=Overrides(context=512, slots=1, threads=1),
    )
    await engine.start()
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

{"asyncio": asyncio, "uvloop": uvloop}[sys.argv[3]].run(main())
"""

LOADING_HOST = """
import asyncio, sys
from pathlib import Path
from ouzel.engines.local_child import Child

PLAN = dict(threads=1, slots=64, context=8192, batch=64, step=64, gpu_layers=0, fit=False,
            prompt_cache=16, kv_bytes=0)

async def main():
    child = await Child.spawn(Path(sys.argv[2]) / "engine.log")
    await child.hear("started", 60)
    await child.tell(dict(weights=sys.argv[1], name="tiny", key="k", connections=8,
                          log=sys.argv[2] + "/engine.log", plan=PLAN))
    await child.hear("loading", 60)
    print(child.pid, flush=True)
    await child.hear("ready", 600)
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
"""Loads the weights with half a million tokens of cache, so that loading takes its time."""


async def test_kill_9_ends_every_stream_and_the_engine_comes_back(
    tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tiny_weights, tmp_path, slots=8, context=1024) as engine:
        first = engine.pid
        assert first is not None
        streams = [engine.stream(say(f"Tell story number {n}.", None, NO_END)) for n in range(8)]
        for each in streams:
            assert isinstance(await anext(each), TextDelta)

        async def rest(number: int) -> list[object]:
            return [delta async for delta in streams[number]]

        reading = [asyncio.create_task(rest(number)) for number in range(8)]
        await asyncio.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        began = time.monotonic()
        ends = await asyncio.gather(*reading, return_exceptions=True)
        assert time.monotonic() - began < 10
        assert [type(end) for end in ends] == [EngineDied] * 8
        await until(lambda: engine.state == "ready" and engine.pid != first)
        text, done = await answer(engine, say("Say hello.", 4))
        assert text
        assert done.usage.output_tokens > 0
        assert dict(engine.info.detail)["restarts"] == "1"
        assert len(workers()) == 1
    assert gone(first)
    assert workers() == []
    assert any("SIGKILL" in record.message for record in caplog.records)


async def test_while_it_is_away_turns_are_refused_with_a_time(
    tiny_weights: Path, tmp_path: Path
) -> None:
    slow = Restarts(first=3.0, longest=3.0, attempts=3)
    async with running(tiny_weights, tmp_path, restarts=slow) as engine:
        before = engine.info
        waiting = [engine.stream(say("Tell a story.", None, NO_END)) for _ in range(3)]
        await anext(waiting[0])
        await anext(waiting[1])
        third = asyncio.create_task(anext(waiting[2]))  # both slots are taken: not begun
        await asyncio.sleep(0.2)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            await third
        await until(lambda: engine.state == "restarting")
        for call in (answer(engine, say("Hello.", 2)), engine.count_tokens(say("Hello."))):
            with pytest.raises(EngineUnavailable, match="SIGKILL") as refused:
                await call
            assert 1 <= refused.value.retry_after <= 60
        assert engine.info.context_window == before.context_window
        assert engine.pid is None
        for each in waiting:
            await each.aclose()
        await until(lambda: engine.state == "ready")
        await answer(engine, say("Hello.", 2))


async def test_it_comes_back_again_and_again(tiny_weights: Path, tmp_path: Path) -> None:
    async with running(tiny_weights, tmp_path) as engine:
        for count in range(1, 4):
            assert engine.pid is not None
            os.kill(engine.pid, (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)[count - 1])
            await until(lambda: engine.state != "ready")
            await until(lambda: engine.state == "ready")
            assert dict(engine.info.detail)["restarts"] == str(count)
        await answer(engine, say("Hello.", 2))


async def test_a_hung_process_is_found_and_replaced(tiny_weights: Path, tmp_path: Path) -> None:
    async with running(tiny_weights, tmp_path, hung_after=2.0) as engine:
        first = engine.pid
        assert first is not None
        stream = engine.stream(say("Tell a story.", None, NO_END))
        await anext(stream)
        os.kill(first, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(EngineDied):
            async for _ in stream:
                pass
        assert time.monotonic() - began < 20
        await until(lambda: engine.state == "ready" and engine.pid != first)
        assert gone(first)
        await answer(engine, say("Hello.", 2))


async def test_a_busy_process_is_not_taken_for_hung(tiny_weights: Path, tmp_path: Path) -> None:
    """Far more turns than slots, and long prompts, while every sign of life is asked for often."""
    async with running(tiny_weights, tmp_path, slots=1, hung_after=4.0) as engine:
        first = engine.pid
        turns = [say(f"Read number {n}. " * 30, 2) for n in range(24)]
        answers = await asyncio.gather(*(answer(engine, turn) for turn in turns))
        assert len(answers) == 24
        assert engine.pid == first


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("cause", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_parent(
    tiny_weights: Path, tmp_path: Path, cause: signal.Signals, loop: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOST, str(tiny_weights), str(tmp_path), loop],
        stdout=subprocess.PIPE,
    ) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        assert not gone(pid)
        host.send_signal(cause)
        host.wait(timeout=30)
        _expect_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when loading does")
def test_no_process_outlives_the_parent_while_it_loads(tiny_weights: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOADING_HOST, str(tiny_weights), str(tmp_path)],
        stdout=subprocess.PIPE,
    ) as host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        host.kill()
        host.wait(timeout=30)
        assert host.stdout.read() == b""  # it was still loading
        _expect_gone(pid)


def _expect_gone(pid: int) -> None:
    deadline = time.monotonic() + 2
    while not gone(pid):
        assert time.monotonic() < deadline, "the process outlived its parent"
        time.sleep(0.02)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.4, 0.8])
async def test_stop_during_start_leaves_nothing(
    tiny_weights: Path, tmp_path: Path, after: float
) -> None:
    engine = LocalEngine(
        tiny_weights, served_as="tiny", home=tmp_path, overrides=Overrides(slots=16, context=8192)
    )
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(after)
    await engine.stop()
    (end,) = await asyncio.gather(starting, return_exceptions=True)
    assert end is None or (isinstance(end, EngineError) and "stopped" in end.message)
    assert engine.state == "stopped"
    assert workers() == []


@pytest.mark.parametrize("after", [0.0, 0.1, 0.4])
async def test_a_cancelled_start_leaves_nothing(
    tiny_weights: Path, tmp_path: Path, after: float
) -> None:
    engine = LocalEngine(
        tiny_weights, served_as="tiny", home=tmp_path, overrides=Overrides(slots=16, context=8192)
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(after):
            await engine.start()
    assert workers() == []
    assert engine.state == "stopped"


async def test_stop_ends_running_streams_and_the_process(
    tiny_weights: Path, tmp_path: Path
) -> None:
    async with running(tiny_weights, tmp_path) as engine:
        pid = engine.pid
        assert pid is not None
        stream = engine.stream(say("Tell a story.", None, NO_END))
        await anext(stream)
        await engine.stop()
        assert gone(pid)
        assert workers() == []
        with pytest.raises(EngineError):
            async for _ in stream:
                pass
        assert engine.state == "stopped"
        await engine.stop()


async def test_stop_while_it_waits_to_start_again(tiny_weights: Path, tmp_path: Path) -> None:
    slow = Restarts(first=60.0, longest=60.0)
    async with running(tiny_weights, tmp_path, restarts=slow) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.state == "restarting")
        await engine.stop()
        assert engine.state == "stopped"
        assert workers() == []


async def test_a_process_that_was_stopped_by_hand_does_not_hold_up_the_end(
    tiny_weights: Path, tmp_path: Path
) -> None:
    async with running(tiny_weights, tmp_path) as engine:
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await engine.stop()
        assert gone(pid)


async def test_weights_that_break_while_serving_end_in_a_reason(
    tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(tiny_weights, copy)
    async with running(copy, tmp_path) as engine:
        assert engine.pid is not None
        os.truncate(copy, 50_000_000)
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.state == "failed")
        with pytest.raises(EngineUnavailable, match=r"failed: .*cut short: it has 50,000,000"):
            await answer(engine, say("Hello."))
        assert workers() == []
        given_up = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert len(given_up) == 1
        assert "after 3 attempts" in given_up[0].message
        shutil.copyfile(tiny_weights, copy)
        await engine.stop()
        await engine.start()
        await answer(engine, say("Hello.", 2))


async def refused(path: Path, home: Path, **more: int) -> str:
    engine = LocalEngine(path, served_as="x", home=home, overrides=Overrides(threads=1, **more))
    with pytest.raises(EngineError) as failure:
        await engine.start()
    assert workers() == []
    assert engine.state == "failed"
    await engine.stop()
    return failure.value.message


async def test_a_file_cut_short_is_told_in_words(tiny_weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    for size in (3, 1000, 50_000_000, tiny_weights.stat().st_size - 1):
        with tiny_weights.open("rb") as whole:
            cut.write_bytes(whole.read(size))
        message = await refused(cut, tmp_path)
        assert "cut short" in message or "not a GGUF" in message
        assert str(cut) in message


async def test_what_llama_cpp_cannot_load_is_told_in_words(
    tiny_weights: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "strange.gguf"
    content = bytearray(tiny_weights.read_bytes())
    head = bytes(content[: 2**20]).replace(b"llama", b"lluma")
    strange.write_bytes(head + content[2**20 :])
    message = await refused(strange, tmp_path)
    assert "does not know its architecture, 'lluma'" in message
    assert "strange.gguf" in message
    assert str(tmp_path / "logs" / "engine.log") in message
    empty = tmp_path / "empty.gguf"
    empty.touch()
    assert "not a GGUF" in await refused(empty, tmp_path)
    assert "No such file" in await refused(tmp_path / "nowhere.gguf", tmp_path)
    folder = tmp_path / "folder.gguf"
    folder.mkdir()
    assert str(folder) in await refused(folder, tmp_path)


async def test_settings_that_cannot_be_are_told(tiny_weights: Path, tmp_path: Path) -> None:
    message = await refused(tiny_weights, tmp_path, context=9000)
    assert "8,192 tokens" in message
    message = await refused(tiny_weights, tmp_path, slots=2**24, context=8192)
    assert "set slots or context to less" in message


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("0.00.1 E llama: model has unused tensor\n0.00.2 E cmn: failed to load", "failed to load"),
        ("xllamacpp cannot be loaded: libgomp.so.1: cannot open shared object file", "libgomp1"),
        (
            "E ggml_aligned_malloc: insufficient memory\nE alloc_buffer: failed to allocate",
            "memory",
        ),
        ("E llama_model_load: missing tensor 'blk.0.attn_q.weight'", "tensors"),
        ("ggml.c:99: GGML_ASSERT(n > 0) failed", "gave up: n > 0"),
        ("0.00.1 I all is well", None),
    ],
)
def test_what_the_log_says_is_understood(said: str, meant: str | None) -> None:
    found = meaning(said)
    assert found is None if meant is None else (found is not None and meant in found)


async def test_a_home_that_cannot_be_written_is_told(tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    assert "engine.log cannot be written" in await refused(tiny_weights, tmp_path)


async def test_a_new_life_begins_a_new_log_when_the_old_is_long(
    tiny_weights: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "engine.log").write_bytes(b"x" * (2**20 + 1))
    async with running(tiny_weights, tmp_path):
        assert (logs / "engine.log").stat().st_size < 2**20
        assert (logs / "engine.log.1").stat().st_size == 2**20 + 1
        assert (logs / "engine.log").stat().st_mode & 0o077 == 0


async def test_a_first_token_that_does_not_come_is_an_error(
    tiny_weights: Path, tmp_path: Path
) -> None:
    engine = LocalEngine(
        tiny_weights,
        served_as="tiny",
        home=tmp_path,
        overrides=Overrides(slots=1, context=1024, threads=1),
        timeouts=Timeouts(first_token=1.0, idle=PATIENT.idle),
        restarts=SOON,
    )
    await engine.start()
    try:
        holding = engine.stream(say("Tell a story.", None, NO_END))
        await anext(holding)
        with pytest.raises(EngineUnavailable, match="first_token_timeout"):
            await answer(engine, say("Hello.", 2))
        await holding.aclose()
        deltas = [delta async for delta in engine.stream(say("Hello.", 2))]
        assert isinstance(deltas[-1], TurnDone)
    finally:
        await engine.stop()
