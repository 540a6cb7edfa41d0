"""A model that waits where a test wants it to, and readers that take streams down byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp

from harness import Running
from ouzel.core.turns import EngineDelta, Halt, TextDelta, ThinkingDelta, Turn
from ouzel.engines.scripted import Reply, Say, Script, ScriptedEngine, Think

GATE = "GATE"
"""The word before which the model waits until it is let go."""

WORDS = " ".join(f"word{n}" for n in range(20))
SCRIPT = Script(
    (
        Reply((Say(f"{WORDS} {GATE} {WORDS}."),), match="gated"),
        Reply((Think(f"well {GATE} then"), Say("{input}.")), match="ponder"),
        Reply((Say(" ".join(["line"] * 40_000)), Say(".")), match="flood"),
        Reply((Say(f"{GATE} {'x' * 20_000}"),), match="swell"),
        Reply((Say("You said: {input}"),)),
    ),
    context_window=100_000,
)


class Gated(ScriptedEngine):
    """Plays a script, and stops before each `GATE` until it is let go.

    Attributes:
        gate: set, it lets everybody go.
        waiting: turns that stand before a gate now.
    """

    def __init__(self, script: Script = SCRIPT) -> None:
        super().__init__(script)
        self.gate = asyncio.Event()
        self.waiting = 0
        self._came = asyncio.Event()

    async def stream(
        self, turn: Turn, halt: Halt | None = None
    ) -> AsyncGenerator[EngineDelta, None]:
        """As the script says."""
        async with aclosing(super().stream(turn, halt)) as deltas:
            async for delta in deltas:
                if isinstance(delta, TextDelta | ThinkingDelta) and delta.text.strip() == GATE:
                    self.waiting += 1
                    self._came.set()
                    try:
                        await self.gate.wait()
                    finally:
                        self.waiting -= 1
                yield delta

    async def stands(self, count: int = 1) -> None:
        """Return when so many turns stand before a gate."""
        async with asyncio.timeout(30):
            while self.waiting < count:
                self._came.clear()
                await self._came.wait()


class Stream:
    """One reader of one stream.

    Attributes:
        blocks: the bytes of each event so far, comments left out.
        ended: the stream has come to its end.
    """

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self._reply = reply
        self._rest = b""
        self.blocks: list[bytes] = []
        self.ended = False

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was read, parsed."""
        return [json.loads(block.partition(b"data: ")[2]) for block in self.blocks]

    @property
    def id(self) -> str:
        """Of the response, told by the first event of all."""
        return str(self.events[0]["response"]["id"])

    async def next(self) -> bytes:
        """The next event; nothing at the end."""
        count = len(self.blocks)
        while len(self.blocks) == count and not self.ended:
            data = await self._reply.content.readany()
            self.ended = not data
            *whole, self._rest = (self._rest + data).split(b"\n\n")
            # One after the other, even where many came at once.
            self.blocks += [block + b"\n\n" for block in whole if not block.startswith(b":")]
        return b"".join(self.blocks[count:])

    async def until(self, mark: bytes) -> None:
        """Read up to an event with this in it."""
        async with asyncio.timeout(30):
            while not any(mark in block for block in self.blocks):
                assert await self.next(), f"it ended without {mark!r}: {self.blocks[-1:]}"

    async def all(self) -> bytes:
        """Read to the end; everything, from this reader's first event to the last."""
        async with asyncio.timeout(60):
            while not self.ended:
                await self.next()
        assert self._rest == b""
        return b"".join(self.blocks)


@asynccontextmanager
async def created(
    http: aiohttp.ClientSession, server: Running, text: str, **more: Any
) -> AsyncIterator[Stream]:
    """A new response, streamed."""
    body = {"model": "o4-mini", "input": text, "stream": True, **more}
    async with http.post(f"{server.base_url}/responses", json=body) as reply:
        assert reply.status == 200, await reply.text()
        yield Stream(reply)


@asynccontextmanager
async def resumed(
    http: aiohttp.ClientSession, server: Running, response_id: str, after: int | None = None
) -> AsyncIterator[Stream]:
    """A stored response, streamed again from the event after that one on."""
    url = f"{server.base_url}/responses/{response_id}?stream=true"
    url += "" if after is None else f"&starting_after={after}"
    async with http.get(url) as reply:
        assert reply.status == 200, await reply.text()
        assert reply.content_type == "text/event-stream"
        yield Stream(reply)


async def told(
    http: aiohttp.ClientSession, server: Running, path: str, method: str = "GET", **more: Any
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a reply."""
    async with http.request(method, f"{server.base_url}/responses{path}", **more) as reply:
        return reply.status, json.loads(await reply.read())


async def status_of(http: aiohttp.ClientSession, server: Running, response_id: str) -> str:
    """What a response's status is now."""
    status, body = await told(http, server, f"/{response_id}")
    assert status == 200, body
    return str(body["status"])


async def ask(
    http: aiohttp.ClientSession, server: Running, text: str, **more: Any
) -> tuple[int, dict[str, Any]]:
    """A new background response, not streamed."""
    body = {"model": "o4-mini", "input": text, "background": True, **more}
    return await told(http, server, "", "POST", json=body)


async def becomes(
    http: aiohttp.ClientSession, server: Running, response_id: str, status: str
) -> dict[str, Any]:
    """Ask for a response until it is like that."""
    async with asyncio.timeout(30):
        while True:
            code, body = await told(http, server, f"/{response_id}")
            assert code == 200, body
            if body["status"] == status:
                return body
            await asyncio.sleep(0.01)
