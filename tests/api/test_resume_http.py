"""Streams that are read again: by anybody, from anywhere, while they run and after."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from hostile_kit import at_rest, request
from resume_kit import GATE, Gated, Stream, ask, becomes, created, resumed, told

from harness import serving
from wire import checks

KINDS = pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])


@pytest.fixture
async def server(serve: Any) -> Any:
    return await serve(Gated())


@KINDS
async def test_readers_of_a_running_response_get_the_same_bytes_then_and_ever_after(
    http: Any, tmp_path: Path, background: bool
) -> None:
    engine = Gated()
    async with (
        serving(engine, tmp_path) as server,
        created(http, server, "gated", background=background) as first,
    ):
        await first.until(b"word19")
        readers: list[Stream] = []
        async with (
            resumed(http, server, first.id) as again,
            resumed(http, server, first.id, 0) as from_one,
            resumed(http, server, first.id, 11) as from_twelve,
            resumed(http, server, first.id, len(first.blocks) + 5) as from_later,
        ):
            readers = [again, from_one, from_twelve, from_later]
            for reader in readers[:3]:
                await reader.until(b"word19")
            assert again.blocks == first.blocks, "they know the same before it goes on"
            engine.gate.set()
            whole = await first.all()
            skipped = (0, 1, 12, len(whole.split(b"\n\n")) - 1 - len(first.blocks[25:]))
            for reader in readers[:3]:
                await reader.all()
            await from_later.all()
        blocks = first.blocks
        for reader, left_out in zip(readers[:3], skipped, strict=False):
            assert reader.blocks == blocks[left_out:]
        assert from_later.blocks == blocks[from_later.events[0]["sequence_number"] :]
        transcript = checks.check_response_stream(whole)
        assert transcript.response["status"] == "completed"
        assert transcript.text.count(GATE) == 1
        for after in (None, 0, 11, len(blocks) - 2):
            async with resumed(http, server, first.id, after) as late:
                assert await late.all() == b"".join(blocks[(-1 if after is None else after) + 1 :])
        response_id = first.id
        await at_rest(server)
    async with serving(Gated(), tmp_path) as server:
        async with resumed(http, server, response_id) as late:
            assert await late.all() == whole
        async with resumed(http, server, response_id, 20) as late:
            assert await late.all() == b"".join(blocks[21:])


@pytest.mark.parametrize("text", ["hi", "ponder"])
async def test_every_number_is_a_place_to_go_on_from(http: Any, server: Any, text: str) -> None:
    server.engine.gate.set()
    async with created(http, server, text) as first:
        await first.all()
    for after in range(len(first.blocks)):
        async with resumed(http, server, first.id, after) as late:
            assert await late.all() == b"".join(first.blocks[after + 1 :])


async def test_the_official_sdk_resumes(server: Any, sdk: Any) -> None:
    client = sdk(server)
    stream = await client.responses.create(
        model="o4-mini", input="gated", background=True, stream=True
    )
    seen = []
    async for event in stream:
        seen.append(event)
        if getattr(event, "delta", "") == " word10":
            break
    await stream.close()
    response_id, last = seen[0].response.id, seen[-1].sequence_number
    again = await client.responses.retrieve(response_id, stream=True, starting_after=last)
    server.engine.gate.set()
    seen += [event async for event in again]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    final = seen[-1].response
    assert final.status == "completed"
    deltas = (e.delta for e in seen if e.type == "response.output_text.delta")
    assert "".join(deltas) == final.output_text


async def test_the_sdks_own_stream_helper_resumes(server: Any, sdk: Any) -> None:
    client = sdk(server)
    server.engine.gate.set()
    made = await client.responses.create(model="o4-mini", input="gated")
    async with client.responses.stream(response_id=made.id) as stream:
        final = await stream.get_final_response()
    assert final.output_text == made.output_text
    async with client.responses.stream(response_id=made.id, starting_after=10) as stream:
        numbers = [event.sequence_number async for event in stream]
    assert numbers[0] == 11 or numbers[0] > 10


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ("-1", "from 0"),
        ("1.5", "integer"),
        ("", "integer"),
        ("ten", "integer"),
        ("1e3", "integer"),
        ("99999999999999999999999", "integer"),
        ("\u0664", "integer"),
        ("1000", "there is none after 1000"),
    ],
)
async def test_a_wrong_number_is_named(http: Any, server: Any, after: str, why: str) -> None:
    _, made = await ask(http, server, "hi")
    await becomes(http, server, made["id"], "completed")
    path = f"/{made['id']}"
    status, body = await told(
        http, server, path, params={"stream": "true", "starting_after": after}
    )
    error = checks.check_error(body)["error"]
    assert (status, error["param"], error["type"]) == (
        400,
        "starting_after",
        "invalid_request_error",
    )
    assert why in error["message"]


async def test_a_place_in_no_stream_is_refused(http: Any, server: Any) -> None:
    _, made = await ask(http, server, "hi")
    await becomes(http, server, made["id"], "completed")
    for query in ("starting_after=1", "starting_after=1&stream=false"):
        status, body = await told(http, server, f"/{made['id']}?{query}")
        assert (status, body["error"]["param"]) == (400, "starting_after")
    for query in ("stream=perhaps", "stream=true&stream=true", "stream=true&after=3"):
        status, body = await told(http, server, f"/{made['id']}?{query}")
        assert status == 400, query
        checks.check_error(body)


async def test_what_is_not_stored_or_gone_cannot_be_resumed(http: Any, server: Any) -> None:
    async with created(http, server, "hi", store=False) as unstored:
        await unstored.all()
    _, forgotten = await ask(http, server, "hi")
    assert (await told(http, server, f"/{forgotten['id']}", "DELETE"))[0] == 200
    chat = {"model": "o4-mini", "messages": [{"role": "user", "content": "hi"}], "store": True}
    async with http.post(f"{server.base_url}/chat/completions", json=chat) as reply:
        completion = (await reply.json())["id"]
    for response_id in (unstored.id, forgotten["id"], completion, "resp_0", "a" * 300):
        for query in ("stream=true", "stream=true&starting_after=3"):
            status, body = await told(http, server, f"/{response_id}?{query}")
            assert status == 404, response_id
            checks.check_error(body)


async def test_an_unstored_response_cannot_be_resumed_while_it_runs(http: Any, server: Any) -> None:
    async with created(http, server, "gated", store=False) as first:
        await first.until(b"word19")
        assert (await told(http, server, f"/{first.id}?stream=true"))[0] == 404
        server.engine.gate.set()
        await first.all()


async def test_a_second_reader_sees_the_end_when_the_first_leaves(http: Any, server: Any) -> None:
    """In the foreground the one who asked decides how long it runs."""
    async with created(http, server, "gated") as first:
        await first.until(b"word19")
        async with resumed(http, server, first.id) as second:
            await second.until(b"word19")
            first._reply.close()
            transcript = checks.check_response_stream(await second.all())
    assert transcript.response["status"] == "cancelled"
    await at_rest(server)


@KINDS
async def test_a_second_reader_that_leaves_is_nobodys_loss(
    http: Any, server: Any, background: bool
) -> None:
    async with created(http, server, "gated", background=background) as first:
        await first.until(b"word19")
        async with resumed(http, server, first.id) as second:
            await second.until(b"word19")
            second._reply.close()
        server.engine.gate.set()
        assert checks.check_response_stream(await first.all()).response["status"] == "completed"
    await at_rest(server)


async def test_a_reader_that_hardly_reads_holds_up_nobody(http: Any, server: Any) -> None:
    """Its stream is larger than all buffers between; it is stuck, and the run is not."""
    path = "/v1/responses"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        body = {"model": "o4-mini", "input": "flood", "background": True, "stream": True}
        await loop.sock_sendall(slow, request(path, body))
        heard = b""
        while b"response.created" not in heard and b"response.queued" not in heard:
            heard += await loop.sock_recv(slow, 1)
        while b'"resp_' not in heard or not heard.endswith(b'",'):
            heard += await loop.sock_recv(slow, 1)
        response_id = "resp_" + heard.partition(b'"resp_')[2].partition(b'"')[0].decode()
        made = await becomes(http, server, response_id, "completed")
        async with resumed(http, server, response_id) as other:
            whole = await other.all()
        for _ in range(20):
            async with created(http, server, "hi") as another:
                checks.check_response_stream(await another.all())
        assert len(whole) > 4_000_000
        # Stuck all the while, it misses nothing.
        while not heard.endswith(b"0\r\n\r\n"):
            heard += await loop.sock_recv(slow, 2**20)
    assert unchunked(heard) == whole
    assert made["output"][0]["content"][0]["text"].count("line") == 40_000
    await at_rest(server)


def unchunked(heard: bytes) -> bytes:
    """The body of a reply that came in chunks."""
    body, rest = [], heard.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(body)
