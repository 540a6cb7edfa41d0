"""The load generator and the timed reader, against real connections that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from bench.load import Plan, Target, generate
from bench.processes import free_port
from bench.streamed import Caller, StreamBroken

Handler = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
RIGHT = json.dumps({"status": "completed", "output": [{"content": [{"text": "yes"}]}]}).encode()


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[int]:
    """A server that reads requests and lets `handler` answer the n-th of a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                await reader.readexactly(int(size))
                number += 1
                await handler(writer, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


async def right(writer: asyncio.StreamWriter, number: int) -> None:
    writer.write(whole(RIGHT))


def plan(*ports: int, **more: float) -> Plan:
    targets = [Target(port, "/", "{}", "plain", "yes") for port in ports]
    return Plan(targets, clients=3, **({"requests": 4} | more))


async def test_every_right_reply_is_counted_once() -> None:
    async with server(right) as port:
        outcome = await generate(plan(port))
    assert (outcome.asked, outcome.right, outcome.broken) == (12, 12, 0)
    assert len(outcome.latency[0]) == 12
    for first, last in zip(outcome.first[0], outcome.latency[0], strict=True):
        assert 0 < first <= last


async def test_pairs_ask_both_targets_as_often() -> None:
    async with server(right) as one, server(right) as other:
        outcome = await generate(plan(one, other))
    assert [len(each) for each in outcome.latency] == [12, 12]


async def test_a_counted_time_ends() -> None:
    async with server(right) as port:
        outcome = await generate(plan(port, requests=0, seconds=0.1, warm_up=0.05))
    assert outcome.right > 0
    assert outcome.asked > outcome.right  # those of the warm-up
    assert outcome.rate == pytest.approx(outcome.right / 0.1)


async def test_wrong_replies_are_broken_and_not_counted() -> None:
    async def every_second(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(whole(RIGHT if number % 2 else RIGHT.replace(b"yes", b"no")))

    async with server(every_second) as port:
        outcome = await generate(plan(port))
    assert (outcome.right, outcome.broken) == (6, 6)
    assert "'no'" in outcome.faults[0]


async def test_a_connection_lost_in_mid_reply_is_broken() -> None:
    async def cut(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(whole(RIGHT)[:-5])
        await writer.drain()
        writer.close()

    async with server(cut) as port:
        outcome = await generate(plan(port))
    assert (outcome.right, outcome.broken) == (0, 12)
    assert "connection lost" in outcome.faults[0]


async def test_bytes_that_are_not_http_are_broken() -> None:
    async def noise(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"\x00\xff nothing of HTTP\r\n\r\n")

    async with server(noise) as port:
        outcome = await generate(plan(port))
    assert (outcome.right, outcome.broken) == (0, 12)


async def test_nobody_there_is_broken_and_ends() -> None:
    outcome = await generate(plan(free_port()))
    assert (outcome.right, outcome.broken) == (0, 12)
    assert "Connect" in outcome.faults[0]


EVENTS = (
    {"type": "response.created"},
    {"type": "response.output_text.delta", "delta": "How"},
    {"type": "response.output_text.delta", "delta": " so"},
    {
        "type": "response.completed",
        "response": {
            "id": "resp_1",
            "usage": {
                "input_tokens": 9,
                "output_tokens": 2,
                "input_tokens_details": {"cached_tokens": 4},
            },
        },
    },
)


async def slowly(writer: asyncio.StreamWriter, number: int) -> None:
    """Events cut in the middle, with a pause before each second half."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in EVENTS:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        writer.write(chunk(data[:20]))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(chunk(data[20:]))
    writer.write(b"0\r\n\r\n")


async def test_a_token_comes_when_its_event_is_whole() -> None:
    async with server(slowly) as port:
        caller = Caller(f"http://127.0.0.1:{port}/v1")
        readings = [await caller.stream("/responses", {}) for _ in range(2)]
    for reading in readings:
        assert (reading.text, reading.output_tokens, reading.cached_tokens) == ("How so", 2, 4)
        assert reading.first > 0.035  # two pauses, less the clock's grain
        assert reading.last - reading.first > 0.015


async def test_a_stream_without_its_end_is_an_error() -> None:
    async def endless(writer: asyncio.StreamWriter, number: int) -> None:
        data = f"data: {json.dumps(EVENTS[1])}\n\n".encode()
        writer.write(whole(data))

    async with server(endless) as port:
        caller = Caller(f"http://127.0.0.1:{port}/v1")
        with pytest.raises(StreamBroken, match="ended with"):
            await caller.stream("/responses", {})
        with pytest.raises(StreamBroken, match="DONE"):
            await caller.stream("/chat/completions", {})


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1/v1", "http:///v1"])
def test_a_url_that_cannot_be_asked_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Caller(url)
