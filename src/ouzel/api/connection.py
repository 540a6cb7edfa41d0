"""One client's connection: what uvicorn's HTTP/1.1 leaves open, closed.

Uvicorn parses and frames. Added here are a bound and a deadline for everything that a client may
keep us waiting with (a head that never ends, an answer that is never read), errors of HTTP itself
in the form of all other errors, and care for the clients that uvicorn forgets: those that speak
HTTP/1.0, those that offer an upgrade, and those that leave while a pipelined request waits. A
WebSocket's handshake is handed over (`websocket_connection.py`).

It builds on uvicorn's `HttpToolsProtocol`. It knows no route and no endpoint.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from ouzel.api import failures, writing
from ouzel.core.items import new_id

MOST_HEAD = 64 * 1024
"""Bytes that a request line with its headers may have, give or take one read."""

HEAD_WITHIN = 30.0
"""Seconds in which a client must have sent the next request's head, once it connected or began.
The rest of a body that nobody wants any more must have come by then, too."""

READ_WITHIN = 120.0
"""Seconds in which a client must have read some of what waits for it; otherwise it is gone."""


class Connection(HttpToolsProtocol):
    """A connection, from its first byte to its last."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._in_head = False
        self._head_bytes = 0
        self._served: RequestResponseCycle | None = None
        self._unasked: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_deadlines()
        served = self._served
        # Uvicorn tells the request that came last, which may be one that still waits its turn.
        if served is not None and not served.response_complete:
            served.disconnected = True
            served.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._is_handshake():
                self._hand_over(rest)
            else:
                self._stay(rest)
            return
        except httptools.HttpParserError:
            self.send_400_response("This is not a valid HTTP/1.1 request.")
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD:
                told = f"The request line and headers have more than {MOST_HEAD} bytes."
                self._refuse(431, told, "headers_too_large")
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(400, msg, "invalid_http")

    def _refuse(self, status: int, message: str, code: str) -> None:
        if self.transport.is_closing():
            return
        served = self._served
        if served is None or not served.response_started or served.response_complete:
            self.transport.write(error_answer(status, message, code))
        # An error in the midst of an answer would be taken for a part of it.
        self.transport.close()

    def _is_handshake(self) -> bool:
        """Whether this asks for a WebSocket, in its turn, and brings no body."""
        headers = dict(self.headers)
        return (
            self.ws_protocol_class is not None
            and self.scope["method"] == "GET"
            and self.parser.get_http_version() == "1.1"
            and headers.get(b"upgrade", b"").lower() == b"websocket"
            and b"sec-websocket-key" in headers
            and b"transfer-encoding" not in headers
            and headers.get(b"content-length", b"0") == b"0"
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.get_write_buffer_size()
        )

    def _hand_over(self, rest: bytes) -> None:
        """From here on the connection is a WebSocket's."""
        self._end_deadlines()
        self.handle_websocket_upgrade()
        heir = self.transport.get_protocol()
        if rest and isinstance(heir, asyncio.Protocol):
            heir.data_received(rest)

    def _stay(self, rest: bytes) -> None:
        """Take a request that offers an upgrade for what it is without the offer, as HTTP allows.

        The parser skips the body of such a request (the JDK's client and `curl --http2` send
        them), so the request is read again.
        """
        method = self.scope["method"].encode()
        if method == b"CONNECT":
            self.send_400_response("This server is no proxy.")
            return
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self.url, b"".join(lines))
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body looks like a header, too; it is none that counts.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise httptools.HttpParserError("the parser takes 0.9 and 2.0, too")
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    # Requests and their answers.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        if self._unasked is not None:
            self._unasked.cancel()
            self._unasked = None
        if cycle.scope["http_version"] == "1.0":
            app = _unchunked(app, cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._await_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # Deadlines.

    def _end_deadlines(self) -> None:
        for timer in (self._unasked, self._unread):
            if timer is not None:
                timer.cancel()

    def _await_head(self) -> None:
        if self._unasked is None and not self.transport.is_closing():
            self._unasked = self.loop.call_later(HEAD_WITHIN, self._not_asked)

    def _not_asked(self) -> None:
        self._unasked = None
        if self.cycle is None or self.cycle.response_complete:
            if self._in_head:
                told = f"The request's headers did not arrive within {HEAD_WITHIN:.0f} seconds."
                self._refuse(408, told, "request_timeout")
            else:
                self.transport.close()

    def _await_reading(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(READ_WITHIN, self._not_read)

    def _not_read(self) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()


def error_answer(status: int, message: str, code: str) -> bytes:
    """A whole answer, for a request that no endpoint will ever see."""
    body = writing.encode(failures.body(status, message, code=code))
    headers = (
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + new_id("req").encode(),
        b"openai-processing-ms: 0",
        b"connection: close",
    )
    return STATUS_LINE[status] + b"\r\n".join(headers) + b"\r\n\r\n" + body


def _unchunked(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Answers HTTP/1.0 without chunks, which it does not know: the connection's end is the end."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        open_ended = False

        async def sending(message: Message) -> None:
            nonlocal open_ended
            if message["type"] == "http.response.start":
                open_ended = all(name != b"content-length" for name, _ in message["headers"])
                if open_ended:
                    cycle.chunked_encoding = False
            elif open_ended:
                # Uvicorn holds a body without chunks against a length; here each piece is its own.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, sending)

    return answer
