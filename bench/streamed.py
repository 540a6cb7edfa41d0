"""Asks for one stream and tells when each piece of text came.

Bytes are noted with their time as they come and read only when the stream is over, so that
reading costs nothing while the clock runs. It speaks Responses and Chat Completions.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.load import Connection


class StreamBroken(RuntimeError):
    """A stream did not end as it should."""


@dataclass(frozen=True)
class Reading:
    """What a stream said, and when.

    Args:
        text: all of it.
        first, last: seconds from the request to the first and to the last piece of text.
        output_tokens, input_tokens, cached_tokens: as the server counted them.
        id: of the response or completion.
    """

    text: str
    first: float
    last: float
    output_tokens: int
    input_tokens: int
    cached_tokens: int
    id: str


class Caller:
    """Asks one server, each time on a new connection that stands before the clock starts.

    llama.cpp's server closes kept connections after a few seconds or a hundred requests, so
    keeping them would measure luck.

    Args:
        base_url: `http://HOST:PORT/v1`.
        key: bearer key, if the server asks for one.

    Raises ValueError if the URL is not such a one.
    """

    def __init__(self, base_url: str, key: str | None = None) -> None:
        url = urlsplit(base_url)
        if url.scheme != "http" or url.hostname is None:
            raise ValueError(f"{base_url} is not a URL such as http://127.0.0.1:8000/v1")
        self._host = url.hostname
        self._port = url.port or 80
        self._prefix = url.path.rstrip("/")
        self._key = key

    async def stream(self, path: str, body: Mapping[str, Any]) -> Reading:
        """Ask and read to the end.

        Raises:
            StreamBroken: the status is not 200, or the stream has no text or no end.
            OSError: the connection went away.
        """
        connection = await self._ask("POST", path, json.dumps({**body, "stream": True}).encode())
        pieces = _pieces(connection.pieces)
        began = connection.began
        if path.endswith("/responses"):
            return _of_responses(pieces, began)
        return _of_chat(pieces, began)

    async def whole(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for one JSON reply. Raises as `stream`."""
        connection = await self._ask("POST", path, json.dumps(body).encode())
        reply: dict[str, Any] = json.loads(connection.body)
        return reply

    async def get(self, path: str) -> dict[str, Any]:
        """Get one JSON object. Raises as `stream`."""
        connection = await self._ask("GET", path, b"")
        reply: dict[str, Any] = json.loads(connection.body)
        return reply

    async def _ask(self, method: str, path: str, data: bytes) -> _Timed:
        lines = [
            f"{method} {self._prefix}{path} HTTP/1.1",
            f"host: {self._host}:{self._port}",
            "content-type: application/json",
            f"content-length: {len(data)}",
        ]
        if self._key is not None:
            lines.append(f"authorization: Bearer {self._key}")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Timed, self._host, self._port)
        try:
            await connection.ask("\r\n".join([*lines, "", ""]).encode() + data)
        finally:
            connection.close()
        if connection.status != 200:
            raise StreamBroken(f"{path}: status {connection.status}: {connection.body[:300]!r}")
        return connection


class _Timed(Connection):
    """A connection that notes when each piece of a body came."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[float, bytes]] = []

    def on_body(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))
        super().on_body(data)


def _pieces(raw: list[tuple[float, bytes]]) -> list[tuple[float, bytes]]:
    """Data of each event with the time at which it was whole."""
    events: list[tuple[float, bytes]] = []
    rest = b""
    for at, data in raw:
        *whole, rest = (rest + data).split(b"\n\n")
        for block in whole:
            _, mark, value = block.partition(b"data: ")
            if mark:
                events.append((at, value))
    if rest:
        raise StreamBroken(f"the stream ends within an event: {rest[:100]!r}")
    return events


def _of_responses(events: list[tuple[float, bytes]], began: float) -> Reading:
    said: list[tuple[float, str]] = []
    final: dict[str, Any] = {}
    for at, data in events:
        event = json.loads(data)
        if event["type"] == "response.output_text.delta":
            said.append((at, event["delta"]))
        elif event["type"] in ("response.completed", "response.incomplete"):
            final = event["response"]
    if not final or not said:
        raise StreamBroken(f"the stream ended with {events[-1][1][:300]!r}" if events else "empty")
    usage = final["usage"]
    return Reading(
        "".join(text for _, text in said),
        said[0][0] - began,
        said[-1][0] - began,
        usage["output_tokens"],
        usage["input_tokens"],
        usage["input_tokens_details"]["cached_tokens"],
        final["id"],
    )


def _of_chat(events: list[tuple[float, bytes]], began: float) -> Reading:
    said: list[tuple[float, str]] = []
    usage: dict[str, Any] = {}
    name = ""
    if not events or events[-1][1] != b"[DONE]":
        raise StreamBroken("the stream does not end with [DONE]")
    for at, data in events[:-1]:
        chunk = json.loads(data)
        name = chunk["id"]
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                said.append((at, choice["delta"]["content"]))
    if not usage or not said:
        raise StreamBroken("the stream has no text or no usage")
    details = usage.get("prompt_tokens_details") or {}
    return Reading(
        "".join(text for _, text in said),
        said[0][0] - began,
        said[-1][0] - began,
        usage["completion_tokens"],
        usage["prompt_tokens"],
        details.get("cached_tokens", 0),
        name,
    )
