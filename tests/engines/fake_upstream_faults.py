"""Ways in which a fake upstream misbehaves, and what tests of the upstream engine share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from fake_upstream import FakeUpstream, Fault, open_stream

from ouzel.core.errors import OuzelError
from ouzel.core.turns import EngineDelta, TextDelta, Turn, TurnMessage
from ouzel.engines.upstream import Timeouts, UpstreamEngine

HELLO = Turn((TurnMessage("user", "Say something please"),))
ALL: Any = frozenset({"logprobs", "logit_bias", "seed", "stop", "penalties"})
QUICK = Timeouts(connect=2.0, first_token=0.4, idle=0.4)


@asynccontextmanager
async def engine_for(fake: FakeUpstream, **how: Any) -> AsyncIterator[UpstreamEngine]:
    """A started engine for a fake server; nothing of starting is left in `asked`."""
    how = {"key": fake.key, "model": None, "capabilities": ALL} | how
    engine = UpstreamEngine(fake.url, **how)
    await engine.start()
    fake.asked.clear()
    try:
        yield engine
    finally:
        await engine.stop()


async def take(engine: UpstreamEngine, turn: Turn = HELLO) -> list[EngineDelta]:
    """The whole turn; what came before an error is in the error's notes."""
    deltas: list[EngineDelta] = []
    try:
        async for delta in engine.stream(turn):
            deltas.append(delta)
    except OuzelError as error:
        error.add_note(words(deltas))
        raise
    return deltas


def words(deltas: list[EngineDelta]) -> str:
    return "".join(d.text for d in deltas if isinstance(d, TextDelta))


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait for something that another party does."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def status(code: int, body: Any = None, **headers: str) -> Fault:
    """Answer with this status and body."""

    async def play(fake: FakeUpstream, request: web.Request, asked: Any) -> web.StreamResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return web.Response(status=code, body=body, headers=names)
        return web.json_response(body, status=code, headers=names)

    return play


def raw(*pieces: bytes | float, content_type: str = "text/event-stream") -> Fault:
    """Send these bytes as they are, pausing where a number of seconds stands, then end."""

    async def play(fake: FakeUpstream, request: web.Request, asked: Any) -> web.StreamResponse:
        response = await open_stream(request, content_type)
        for piece in pieces:
            if isinstance(piece, bytes):
                await response.write(piece)
            else:
                await asyncio.sleep(piece)
        await response.write_eof()
        return response

    return play


def slow_headers(seconds: float) -> Fault:
    """Say nothing at all for a while, then behave."""

    async def play(fake: FakeUpstream, request: web.Request, asked: Any) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await fake.answer(request, asked)

    return play


def reset(after: int | None = None) -> Fault:
    """Break the connection: before the headers, or after so many events."""

    async def play(fake: FakeUpstream, request: web.Request, asked: Any) -> web.StreamResponse:
        assert request.transport is not None
        if after is None:
            request.transport.abort()
            return web.Response()
        response = await open_stream(request)
        words, reason = fake.said(asked)
        for line in fake.lines(asked, words, reason)[:after]:
            await response.write(line)
        await asyncio.sleep(0.05)  # let them arrive: a reset may overtake what is on its way
        request.transport.abort()
        return response

    return play


def only(events: int, then: float = 0.0) -> Fault:
    """Send so many events, wait, and end the response properly."""

    async def play(fake: FakeUpstream, request: web.Request, asked: Any) -> web.StreamResponse:
        response = await open_stream(request)
        words, reason = fake.said(asked)
        for line in fake.lines(asked, words, reason)[:events]:
            await response.write(line)
        await asyncio.sleep(then)
        await response.write_eof()
        return response

    return play
