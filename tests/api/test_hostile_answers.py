"""An engine that does not let go, a reader that does not come, and questions asked too early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
from hostile_kit import at_rest

from doubles import scripted
from harness import Running
from ouzel.answer import admitting, running
from ouzel.answer.preparing import Asked
from ouzel.core.errors import RequestError
from ouzel.core.items import Message, Text
from ouzel.core.request import Request
from ouzel.core.turns import EngineDelta, Halt, TextDelta, Turn, TurnDone
from ouzel.engines.scripted import Pause, Say, ScriptedEngine
from wire import checks

Serve = Callable[..., Awaitable[Running]]


class Stubborn(ScriptedEngine):
    """Says a word and then holds on to its turn, cancelled or not, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        yield TextDelta("word")
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                continue
        yield TextDelta("too late")
        yield TurnDone("stop")


@pytest.fixture
async def stubborn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(running, "CLOSE_WITHIN", 0.2)
    engine = Stubborn()
    server = await serve(engine)
    yield server
    engine.let_go.set()
    await at_rest(server)


async def stream_until(
    http: aiohttp.ClientSession, server: Running, act: Callable[[str], Awaitable[Any]]
) -> dict[str, Any]:
    """The final response of a stream in which `act` was done after the first word."""
    body = {"model": "o4-mini", "input": "hi", "stream": True}
    async with asyncio.timeout(10), http.post(f"{server.base_url}/responses", json=body) as reply:
        head = await reply.content.readuntil(b"output_text.delta")
        response_id = head.split(b'"id":"')[1].split(b'"')[0].decode()
        await act(f"{server.base_url}/responses/{response_id}")
        final = checks.check_response_stream(head + await reply.read()).response
    async with http.get(f"{server.base_url}/responses/{response_id}") as kept:
        assert checks.check_response(await kept.read()) == final
    return final


async def test_a_cancelled_run_ends_though_its_engine_does_not(
    stubborn: Running, http: aiohttp.ClientSession
) -> None:
    async def cancel(url: str) -> None:
        async with http.post(f"{url}/cancel") as reply:
            assert checks.check_response(await reply.read())["status"] == "cancelled"

    final = await stream_until(http, stubborn, cancel)
    assert final["status"] == "cancelled"
    assert final["output"][0]["content"][0]["text"] == "word"


async def test_shutting_down_does_not_wait_for_the_engine(
    stubborn: Running, http: aiohttp.ClientSession
) -> None:
    async def shut_down(url: str) -> None:
        stubborn.answers.shut_down()

    final = await stream_until(http, stubborn, shut_down)
    assert final["status"] == "failed"


async def test_a_client_that_leaves_gives_its_place_back_though_the_engine_does_not(
    stubborn: Running, http: aiohttp.ClientSession
) -> None:
    body = {"model": "o4-mini", "input": "hi", "stream": True}
    reply = await http.post(f"{stubborn.base_url}/responses", json=body)
    await reply.content.readuntil(b"output_text.delta")
    reply.close()
    async with asyncio.timeout(5):
        while stubborn.answers._finding.live or stubborn.answers._limiter.running:
            await asyncio.sleep(0.01)


def asked(**more: Any) -> Request:
    values = {"protocol": "responses", "model": "o4-mini", "store": True} | more
    return Request(input=(Message("msg_1", "user", (Text("hi"),)),), **values)


async def test_cancelling_what_is_done_but_unread_tells_how_it_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "CLOSE_WITHIN", 0.05)
    server = await serve(scripted(Say("all of it")))
    answer = await server.answers.open(asked(), "local")
    while server.engine.active or not answer._concluded:
        await asyncio.sleep(0.001)
    told = await server.answers.cancel(answer.run.id, "local")
    await answer.close()
    assert (told.status, told.output[0].text) == ("completed", "all of it")
    assert answer.run == told


async def test_what_is_under_way_cannot_be_continued_yet(
    serve: Serve, http: aiohttp.ClientSession
) -> None:
    server = await serve(scripted(Say("a"), Pause(60)))
    answer = await server.answers.open(asked(), "local")
    body = {"model": "o4-mini", "input": "more", "previous_response_id": answer.run.id}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        error = checks.check_error(await reply.read())["error"]
    assert (reply.status, error["param"], error["code"]) == (
        400,
        "previous_response_id",
        "previous_response_in_progress",
    )
    answer.cancel()
    async with aclosing(answer.batches()) as batches:
        async for _ in batches:
            pass
    # From the moment at which its end is told, it can; even before it has let everything go.
    task = await server.answers.preparing.task(
        Asked(asked(previous_id=answer.run.id), "local", 0.0)
    )
    assert [message.text for message in task.turn.messages] == ["hi", "a", "hi"]
    await answer.close()


async def test_what_is_deleted_can_neither_be_cancelled_nor_continued(serve: Serve) -> None:
    server = await serve(scripted(Say("a"), Pause(60)))
    answer = await server.answers.open(asked(), "local")
    await server.answers.delete(answer.run.id, "local")
    for act in (server.answers.cancel, server.answers.delete, server.answers.load):
        with pytest.raises(admitting.NotFound):
            await act(answer.run.id, "local")
    with pytest.raises(RequestError, match="not found"):
        await server.answers.preparing.task(Asked(asked(previous_id=answer.run.id), "local", 0.0))
    await answer.close()
    await at_rest(server)


@pytest.mark.parametrize(("stopping", "status"), [(False, 429), (True, 503)])
async def test_counting_is_work_like_any_other(
    serve: Serve, http: aiohttp.ClientSession, stopping: bool, status: int
) -> None:
    server = await serve(scripted(Say("a"), Pause(60)), max_requests=1)
    answer = await server.answers.open(asked(store=False), "local")
    if stopping:
        server.answers.shut_down()
    body = {"model": "o4-mini", "input": "how long is this?"}
    async with http.post(f"{server.base_url}/responses/input_tokens", json=body) as reply:
        checks.check_error(await reply.read())
    assert reply.status == status
    assert "retry-after" in reply.headers
    await answer.close()
    await at_rest(server)
