"""Cancel, delete, leave and shut down at every moment of a run's life.

What is done comes a little later each time, so that it falls before, into and after the end of
the run. Whatever the moment: the stream has one terminal event, the stored run is what the stream
said or is gone, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from hostile_kit import at_rest

from doubles import scripted
from harness import Running
from ouzel.engines.scripted import Say
from wire import checks

MOMENTS = (*(step * 0.0006 for step in range(36)), 0.3)
"""Seconds after a run's first event; the last is long after its end."""

Act = Callable[[aiohttp.ClientSession, str], Awaitable[Any]]


@pytest.fixture
async def server(
    serve: Callable[..., Awaitable[Running]], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Running]:
    running = await serve(scripted(Say("a b c d e f", delay=0.002)))
    yield running
    await at_rest(running)
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert loud == []


async def stream_and(
    server: Running, http: aiohttp.ClientSession, act: Act, delay: float
) -> tuple[checks.ResponseTranscript, Any]:
    """A whole stream, and what `act` gave that was begun `delay` seconds after its first event."""
    body = {"model": "o4-mini", "input": "hi", "stream": True}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        head = await reply.content.readuntil(b"\n\n")
        response_id = head.split(b'"id":"')[1].split(b'"')[0].decode()

        async def later() -> Any:
            await asyncio.sleep(delay)
            return await act(http, f"{server.base_url}/responses/{response_id}")

        acting = asyncio.create_task(later())
        sse = head + await reply.read()
        return checks.check_response_stream(sse), await acting


async def cancel(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with http.post(f"{url}/cancel") as reply:
        assert reply.status == 200
        return checks.check_response(await reply.read())


async def delete(http: aiohttp.ClientSession, url: str) -> int:
    async with http.delete(url) as reply:
        body = await reply.read()
        if reply.status == 200:
            checks.check_body("deleted", body)
        return reply.status


async def kept(http: aiohttp.ClientSession, server: Running, response_id: str) -> Any:
    async with http.get(f"{server.base_url}/responses/{response_id}") as reply:
        body = await reply.read()
        return checks.check_response(body) if reply.status == 200 else reply.status


@pytest.mark.parametrize("part", range(2))
async def test_a_cancelled_run_is_to_all_what_it_is_to_its_reader(
    server: Running, http: aiohttp.ClientSession, part: int
) -> None:
    seen: set[str] = set()
    for moment in (*MOMENTS[part::2], MOMENTS[-1]):
        transcript, cancelled = await stream_and(server, http, cancel, moment)
        final = transcript.response
        assert cancelled == final
        assert await kept(http, server, final["id"]) == final
        seen.add(final["status"])
    assert seen == {"cancelled", "completed"}, "the moments fell before and after the end"


async def test_a_deleted_run_is_gone_and_its_stream_still_ends(
    server: Running, http: aiohttp.ClientSession
) -> None:
    seen: set[str] = set()
    for moment in MOMENTS:
        transcript, status = await stream_and(server, http, delete, moment)
        assert status == 200
        final = transcript.response
        assert await kept(http, server, final["id"]) == 404
        assert await delete(http, f"{server.base_url}/responses/{final['id']}") == 404
        seen.add(final["status"])
    assert seen == {"cancelled", "completed"}


async def test_cancelling_deleting_and_looking_at_once_agree(
    server: Running, http: aiohttp.ClientSession
) -> None:
    async def everything(http: aiohttp.ClientSession, url: str) -> list[int]:
        async def status(method: str, tail: str = "") -> int:
            async with http.request(method, url + tail) as reply:
                body = await reply.read()
                if reply.status == 200 and method != "DELETE":
                    (checks.check_input_items if tail == "/input_items" else checks.check_response)(
                        body
                    )
                return reply.status

        return await asyncio.gather(
            status("POST", "/cancel"),
            status("DELETE"),
            status("GET"),
            status("GET", "/input_items"),
            status("POST", "/cancel"),
            status("DELETE"),
        )

    for moment in MOMENTS[::2]:
        transcript, found = await stream_and(server, http, everything, moment)
        assert set(found) <= {200, 404}, found
        assert sorted([found[1], found[5]]) == [200, 404], "deleted once"
        assert await kept(http, server, transcript.response["id"]) == 404


async def test_leaving_at_any_moment_leaves_a_finished_run(
    server: Running, http: aiohttp.ClientSession
) -> None:
    body = {"model": "o4-mini", "input": "hi", "stream": True}
    ids: list[str] = []
    for moment in MOMENTS:
        reply = await http.post(f"{server.base_url}/responses", json=body)
        head = await reply.content.readuntil(b"\n\n")
        ids.append(head.split(b'"id":"')[1].split(b'"')[0].decode())
        await asyncio.sleep(moment)
        reply.close()
    await at_rest(server)
    stored = [await kept(http, server, response_id) for response_id in ids]
    assert {each["status"] for each in stored} == {"cancelled", "completed"}


@pytest.mark.parametrize("delay", [0, 0.001, 0.002, 0.005, 0.01, 0.02])
async def test_shutting_down_under_new_and_running_requests_ends_each(
    serve: Callable[..., Awaitable[Running]], http: aiohttp.ClientSession, delay: float
) -> None:
    server = await serve(scripted(Say("a " * 2000, delay=0.01)))
    statuses: list[str] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number / 2000)
        body = {"model": "o4-mini", "input": "hi", "stream": number % 2 == 0}
        async with http.post(f"{server.base_url}/responses", json=body) as reply:
            data = await reply.read()
        if reply.content_type == "text/event-stream":
            statuses.append(checks.check_response_stream(data).response["status"])
        else:
            assert (reply.status, checks.check_error(data)["error"]["code"]) == (
                503,
                "server_shutting_down",
            )

    async with asyncio.timeout(20):
        requests = [asyncio.create_task(one(number)) for number in range(30)]
        await asyncio.sleep(delay)
        server.answers.shut_down()
        await asyncio.gather(*requests)
    assert set(statuses) <= {"failed"}
    await at_rest(server)
