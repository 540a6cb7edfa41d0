"""The Responses API over a WebSocket: one turn after another on one connection.

A message asks for a turn; its events come back one a frame, the same as in a stream over HTTP, and
its terminal event ends the turn. Every message gets its answer in the order in which it came, also
one that is refused. What a turn with `store: false` leaves behind is kept here, in memory, until
the next one takes its place, so that a client can continue from it (`docs/websocket.md`).

Frames, bounds on bytes and slow clients are `websocket_connection.py`'s business, reading messages
is `read_websocket.py`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from ouzel.answer import Answer, Answers
from ouzel.api import failures, read_query, read_websocket, write_responses, writing
from ouzel.api.endpoints import OWNER, Exchange, answer_within, query
from ouzel.api.envelope import note
from ouzel.api.metrics import Metrics
from ouzel.api.websocket_connection import SEND, STOPPING
from ouzel.core.errors import RequestError, TooManyRequests
from ouzel.core.items import Item

MOST_WAITING = 64
"""Messages that wait for the turn in flight; together they have no more bytes than one may have."""

LIFETIME = 60 * 60.0
"""Seconds after which a connection takes no more turns, as Open Responses has it."""

LAST_TURN_WITHIN = 60.0
"""Seconds that a turn gets to come to its end when the connection's time is over."""


class ResponsesSocket:
    """GET /v1/responses with an upgrade. An ASGI application.

    Args:
        answers: answers.
        exchange: how messages are read, and how many bytes may wait.
        metrics: is told of connections and turns.
    """

    def __init__(self, answers: Answers, exchange: Exchange, metrics: Metrics) -> None:
        self._answers = answers
        self._exchange = exchange
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handshake = HTTPConnection(scope)
        read_query.read_nothing(query(handshake))
        within = answer_within(handshake)
        await send({"type": "websocket.accept"})
        with self._metrics.socket():
            session = _Session(self._answers, self._exchange, self._metrics, within, scope, send)
            await session.serve(receive)


@dataclass(slots=True)
class _Message:
    """One message that waits.

    Args:
        raw: its bytes; None if it was none of text.
        refused: messages that came after it and found no room.
    """

    raw: bytes | None
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A response that can be continued on this connection, and all that was said up to its end."""

    id: str
    items: tuple[Item, ...]


class _Session:
    """One connection, from its first message to its last."""

    def __init__(
        self,
        answers: Answers,
        exchange: Exchange,
        metrics: Metrics,
        within: float | None,
        scope: Scope,
        send: Send,
    ) -> None:
        self._answers = answers
        self._exchange = exchange
        self._metrics = metrics
        self._reader = partial(read_websocket.read, hosted=answers.hosted, answer_within=within)
        self._request_id: str = scope["state"]["request_id"]
        self._send = send
        self._waiting: deque[_Message] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._end: Literal["gone", "stopping", "expired"] | None = None
        self._answer: Answer | None = None
        self._kept: _Kept | None = None

    async def serve(self, receive: Receive) -> None:
        """Take turns until the client goes, the server stops, or the time is over."""
        loop = asyncio.get_running_loop()
        listening = asyncio.create_task(self._listen(receive))
        timers = (
            loop.call_later(LIFETIME, self._finish, "expired"),
            loop.call_later(LIFETIME + LAST_TURN_WITHIN, self._cancel),
        )
        try:
            while (message := await self._next()) is not None:
                await self._take(message)
            await self._leave()
        except ClientDisconnected:
            pass
        finally:
            for timer in timers:
                timer.cancel()
            listening.cancel()
            await asyncio.wait({listening})

    # What comes in.

    async def _listen(self, receive: Receive) -> None:
        while True:
            message = await receive()
            kind = message["type"]
            if kind == "websocket.receive":
                text = message.get("text")
                self._put(None if text is None else text.encode())
            elif kind == STOPPING:
                self._finish("stopping")
                return
            elif kind == "websocket.disconnect":
                self._finish("gone")
                self._cancel()
                return

    def _put(self, raw: bytes | None) -> None:
        size = len(raw or b"")
        full = len(self._waiting) >= MOST_WAITING or self._bytes + size > self._exchange.max_body
        if self._waiting and full:
            self._waiting[-1].refused += 1
            return
        self._bytes += size
        self._waiting.append(_Message(raw))
        self._wake.set()

    def _finish(self, why: Literal["gone", "stopping", "expired"]) -> None:
        self._end = self._end or why
        self._wake.set()

    def _cancel(self) -> None:
        if self._answer is not None:
            self._answer.cancel()

    async def _next(self) -> _Message | None:
        """The next message. What waits when the server stops is still answered: it is told so."""
        while not self._waiting and self._end is None:
            self._wake.clear()
            await self._wake.wait()
        if self._end in ("gone", "expired") or not self._waiting:
            return None
        message = self._waiting.popleft()
        self._bytes -= len(message.raw or b"")
        return message

    # Turns.

    async def _take(self, message: _Message) -> None:
        """Answer a message, and those that found no room behind it."""
        try:
            turn = await self._read(message.raw)
        except RequestError as error:
            await self._tell(error)
        else:
            await self._turn(turn)
        for _ in range(message.refused):
            told = f"At most {MOST_WAITING} messages wait for the response in flight; send fewer."
            await self._tell(TooManyRequests(told))

    async def _read(self, raw: bytes | None) -> read_websocket.TurnMessage:
        if raw is None:
            raise RequestError(
                "Invalid message: expected a text frame with a JSON object, but got a binary one.",
                code="invalid_type",
            )
        return await self._exchange.parse(raw, self._reader)

    async def _turn(self, turn: read_websocket.TurnMessage) -> None:
        try:
            answer, known = await self._open(turn)
        except Exception as error:
            self._evict(turn.previous_id)
            await self._tell(error)
            return
        self._answer = answer
        try:
            if self._end == "gone":
                answer.cancel()
            await self._stream(answer)
        finally:
            self._answer = None
            await answer.close()
            self._metrics.turn(answer.run.status)
        if answer.run.status == "failed":
            self._evict(turn.previous_id)
        elif known or not answer.run.request.store:
            said = (*answer.history, *answer.run.request.input, *answer.run.output)
            self._kept = _Kept(answer.run.id, said)

    async def _open(self, turn: read_websocket.TurnMessage) -> tuple[Answer, bool]:
        """The answer to a turn, and whether it continues what is known here only."""
        if isinstance(turn.asked, RequestError):
            raise turn.asked
        kept = self._kept if self._kept and self._kept.id == turn.previous_id else None
        before = None if kept is None else kept.items
        return await self._answers.open(turn.asked, OWNER, before=before), kept is not None

    def _evict(self, previous_id: str | None) -> None:
        """Forget what a failed turn wanted to continue."""
        if self._kept is not None and self._kept.id == previous_id:
            self._kept = None

    # What goes out.

    async def _stream(self, answer: Answer) -> None:
        stream = write_responses.ResponseStream(answer.run)
        async with aclosing(answer.batches()) as batches:
            async for events in batches:
                if frames := _frames(stream.write(events)):
                    await self._send({"type": SEND, "texts": frames})

    async def _tell(self, error: Exception) -> None:
        """An error for a turn that has no response."""
        note(error, self._request_id)
        self._metrics.turn("refused")
        status, body, headers = failures.error_body(error, self._request_id)
        told: dict[str, Any] = body["error"]
        told["code"] = told["code"] or told["type"]
        if headers:
            told["headers"] = headers
        frame = writing.encode({"type": "error", "status": status, "error": told})
        await self._send({"type": SEND, "texts": [frame]})

    async def _leave(self) -> None:
        """Close the connection, and say why."""
        if self._end == "expired":
            told = (
                f"This connection has been open for {LIFETIME / 60:.0f} minutes, which is the "
                "limit. Open a new one to go on."
            )
            await self._tell(RequestError(told, code="websocket_connection_limit_reached"))
            await self._send({"type": "websocket.close", "code": 1001, "reason": "time is over"})
        elif self._end == "stopping":
            await self._send({"type": "websocket.close", "code": 1012, "reason": "server stops"})


def _frames(sse: bytes) -> list[bytes]:
    """The events of a stream, without what makes server-sent events of them."""
    return [block.partition(b"\ndata: ")[2] for block in sse.split(b"\n\n")[:-1]]
