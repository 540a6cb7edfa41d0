"""The command line's HTTP client: events however they are cut, and servers that misbehave."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ouzel.cli.client import Client, Server, find_server, read_events
from ouzel.cli.output import Failed
from ouzel.config import Settings

EVENTS = [
    {"type": "a", "delta": "héllo ✓ 🦦"},
    {"type": "b", "delta": "line\u2028separator\u0085here\x0b"},
    {"type": "c", "n": 1},
]


async def _pieces(data: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for begin, end in itertools.pairwise(places):
        yield data[begin:end]


def parse(data: bytes, cuts: list[int] | None = None) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [event async for event in read_events(_pieces(data, cuts or []))]

    return asyncio.run(collect())


@given(
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    noise=st.sampled_from(["", ": keep-alive{0}{0}", "event: x{0}", "id: 1{0}retry: 5{0}{0}"]),
)
def test_events_are_the_same_wherever_the_chunks_end(
    cuts: list[int], end: str, mark: bytes, noise: str
) -> None:
    text = "".join(
        f"{noise.format(end)}data: {json.dumps(event, ensure_ascii=False)}{end}{end}"
        for event in EVENTS
    )
    assert parse(mark + text.encode(), cuts) == EVENTS


def test_data_over_several_lines_and_the_done_mark() -> None:
    assert parse(b'data: {"a":\ndata:1}\n\ndata: [DONE]\n\n') == [{"a": 1}]


def test_an_event_that_is_cut_off_is_not_one() -> None:
    assert parse(b'data: {"a": 1}\n\ndata: {"b": 2}') == [{"a": 1}]


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n"])
def test_data_that_is_no_object_is_a_failure(data: bytes) -> None:
    with pytest.raises(Failed):
        parse(data)


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=9))
def test_any_bytes_are_read_or_refused(data: bytes, cuts: list[int]) -> None:
    try:
        events = parse(data, cuts)
    except Failed:
        return
    assert all(isinstance(event, dict) for event in events)


# --- servers that misbehave ---------------------------------------------------------------------

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(reply: bytes, *, hold: bool = False) -> AsyncIterator[Server]:
    """A server that answers everything with these bytes, then closes, or holds its tongue."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(reply)
        await writer.drain()
        if hold:
            await over.wait()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Server(f"http://127.0.0.1:{port}/v1", silence=0.3)
    finally:
        over.set()
        server.close()
        await server.wait_closed()


def http(
    status: int, body: str, kind: str = "application/json", length: int | None = None
) -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n"
    return f"{head}content-length: {length or len(data)}\r\n\r\n".encode() + data


async def listen(client: Client) -> None:
    async with aclosing(client.stream({"input": "x"})) as events:
        async for _ in events:
            pass


DELTA = 'data: {"type": "response.output_text.delta", "delta": "hi"}\n\n'


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (http(500, "<html>"), "answered 500, but not as"),
        (http(404, '{"detail": "no"}'), "answered 404, but not as"),
        (http(400, '{"error": "text"}'), "answered 400, but not as"),
        (http(401, '{"error": {"message": "No key."}}'), "No key. Give it with --key"),
        (http(503, '{"error": {"message": "Starting."}}'), "Starting."),
        (http(200, DELTA, "text/event-stream"), "broke off in the middle"),
        (http(200, DELTA, "text/event-stream", length=900), "broke off"),
        (http(200, "data: nonsense\n\n", "text/event-stream"), "not a JSON object"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
    ],
)
async def test_a_server_that_misbehaves_is_a_failure_that_says_how(reply: bytes, says: str) -> None:
    async with answering(reply) as server, Client(server) as client:
        with pytest.raises(Failed, match=says):
            await listen(client)


@pytest.mark.parametrize("reply", [b"", http(200, DELTA, "text/event-stream", length=900)])
async def test_silence_comes_to_an_end(reply: bytes) -> None:
    async with answering(reply, hold=True) as server, Client(server) as client:
        with pytest.raises(Failed, match=r"in time|broke off"):
            await listen(client)


@pytest.mark.parametrize("body", ["{}", '{"data": [{}]}', '{"data": 5}', "[]", "", '{"data": []}'])
async def test_a_list_of_models_that_is_none(body: str) -> None:
    async with answering(http(200, body)) as server, Client(server) as client:
        with pytest.raises(Failed):
            await client.models()


def test_the_settings_own_key_goes_nowhere_else() -> None:
    settings = Settings(api_key="mine", port=9)
    assert find_server(settings, None, None) == Server("http://127.0.0.1:9/v1", "mine", 660)
    assert find_server(settings, None, "other").key == "other"
    assert find_server(settings, "https://example.org", None).key is None
    assert find_server(settings, "https://example.org", "k").key == "k"
    assert "mine" not in repr(find_server(settings, None, None))
