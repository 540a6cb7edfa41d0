"""A client for WebSocket mode that holds every frame against the format.

A turn's events are checked as `wire.checks` checks a stream over HTTP, an error against the types
of the official SDK and of Open Responses.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import openresponses_types
from openai.types.responses.responses_server_event import ResponseWsError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from harness import Running
from ouzel.engines.scripted import Fail, Pause, Reply, Say, Script, ScriptedEngine
from wire import checks

MODEL = "o4-mini"


@dataclass(frozen=True)
class Turn:
    """What came back for one message.

    Args:
        events: the events' data, in order; the error alone if the turn was refused.
        response: the response at its end.
        error: why it was refused.
        status: of the error.
    """

    events: list[dict[str, Any]]
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    status: int = 0

    @property
    def text(self) -> str:
        """All text of the answer."""
        assert self.response is not None, self.error
        return "".join(
            part["text"]
            for item in self.response["output"]
            if item["type"] == "message"
            for part in item["content"]
        )

    @property
    def id(self) -> str:
        """The response's id."""
        assert self.response is not None, self.error
        return self.response["id"]

    @property
    def code(self) -> str | None:
        """The error's code."""
        return None if self.error is None else self.error["code"]


class Socket:
    """An open WebSocket; `raw` is the library's own."""

    def __init__(self, raw: ClientConnection) -> None:
        self.raw = raw

    async def ask(self, **body: Any) -> None:
        """Send a message that asks for a turn."""
        await self.raw.send(json.dumps({"type": "response.create", "model": MODEL, **body}))

    async def turn(self, **body: Any) -> Turn:
        """Ask for a turn and read it to its end."""
        await self.ask(**body)
        return await self.read()

    async def read(self) -> Turn:
        """The next turn, or the next error."""
        events: list[dict[str, Any]] = []
        while True:
            event = await self.event()
            events.append(event)
            if event["type"] == "error":
                assert len(events) == 1, "an error in the middle of a turn"
                return Turn(events, error=check_error(event), status=event["status"])
            if event["type"] in checks.TERMINAL:
                return Turn(events, check_turn(events))

    async def event(self) -> dict[str, Any]:
        """The next frame: text, one JSON object and nothing else."""
        frame = await self.raw.recv()
        assert isinstance(frame, str), "a binary frame"
        event = json.loads(frame)
        assert isinstance(event, dict)
        return event


def check_turn(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The events of a whole turn; the response at its end."""
    blocks = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events]
    return checks.check_response_stream("".join(blocks).encode()).response


def check_error(event: dict[str, Any]) -> dict[str, Any]:
    """The error frame; the error in it. When to come again is ours to add."""
    error = dict(event["error"])
    headers = error.pop("headers", {})
    assert set(headers) <= {"retry-after", "retry-after-ms"}, headers
    assert 400 <= event["status"] < 600, event["status"]
    assert isinstance(error["code"], str), "Open Responses asks for a code"
    checks.check_error({"error": error})
    ResponseWsError.model_validate_json(json.dumps(event), strict=True, extra="forbid")
    plain = json.dumps({**event, "error": error})
    openresponses_types.WebSocketErrorEvent.model_validate_json(plain, strict=True, extra="forbid")
    return error


def playing() -> ScriptedEngine:
    """Hangs, fails or echoes, as it is asked."""
    return ScriptedEngine(
        Script(
            (
                Reply((Say("one two"), Pause(60), Say("never")), match="^hang"),
                Reply((Say("one two"), Pause(0.3), Say(" three")), match="^pause"),
                Reply((Say("word " * 5000, delay=0.01),), match="^long"),
                Reply((Say("half of"), Fail("broken")), match="^fail"),
                Reply((Say("You said: {input}"),)),
            )
        )
    )


@asynccontextmanager
async def socket(server: Running, key: str | None = None, **more: Any) -> AsyncIterator[Socket]:
    """A WebSocket to the server until the block ends."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    url = f"{server.base_url.replace('http', 'ws', 1)}/responses"
    options = {"additional_headers": headers, "max_size": None, "proxy": None} | more
    async with connect(url, **options) as raw:
        yield Socket(raw)


async def closed(raw: ClientConnection) -> int:
    """Wait until the server has closed; the code. What still comes is passed over."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await raw.recv()
    assert raw.close_code is not None
    return raw.close_code
