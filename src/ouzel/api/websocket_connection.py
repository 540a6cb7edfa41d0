"""One client's WebSocket: what uvicorn's implementation leaves open, closed.

The `websockets` library parses and frames, uvicorn makes ASGI of it. Added here is what
`connection.py` adds to HTTP: bounds and deadlines for what a client may keep us waiting with (a
message that does not end, events that are not read), errors of the handshake in the form of all
other errors, and a shutdown that leaves a turn its last event. Two messages of our own go between
this file and `websocket.py`: SEND and STOPPING. It knows nothing of turns.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from ouzel.api import connection

SEND = "ouzel.send"
"""Sent by the application: several text frames, written at once."""

STOPPING = "ouzel.stopping"
"""Received by the application: the server is stopping; it closes the socket when it is ready."""

MESSAGE_WITHIN = 60.0
"""Seconds in which a message must be whole, once it has begun."""

_FAREWELL = 1.0
"""Seconds that a client gets to answer the last frame of a server that is stopping."""


def uvicorn_options(most: int) -> dict[str, Any]:
    """What uvicorn has to be told to serve WebSockets with this class.

    Args:
        most: bytes that a message may have.
    """
    return {
        "ws": SocketConnection,
        "ws_max_size": most,
        # Deltas are short; what it saves is not worth what a bomb costs.
        "ws_per_message_deflate": False,
        # A sign of life only: a client that is busy with its tools may not answer for minutes.
        "ws_ping_timeout": None,
    }


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket, from the handshake that `Connection` hands over to its last byte."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        # The library would log headers and frames, and so keys and prompts.
        self.conn.debug = False
        self._rest = bytearray()
        self._pongs = b""
        self._unfinished: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # The connection.

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._unfinished, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:
            # HTTP's parser took this head and the library's does not: too many headers, say.
            self._refuse("This handshake is not one that can be read here.")
        elif not self.close_sent:
            self._await_message()

    def shutdown(self) -> None:
        """The server is stopping. Uvicorn would cut the turn off; the session is told instead."""
        if self.close_sent or not self.handshake_complete:
            super().shutdown()
            return
        self.stop_keepalive()
        self.close_timeout = _FAREWELL
        self.queue.put_nowait(cast("Any", {"type": STOPPING}))

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._await_reading()

    # What the library hears.

    def handle_connect(self, event: Request) -> None:
        if self.conn.accept(event).status_code != 101:
            self.handshake_initiated = True
            self._refuse("This is not a valid WebSocket handshake (version 13).")
            return
        super().handle_connect(event)

    def _refuse(self, message: str) -> None:
        self.handshake_complete = self.close_sent = True
        self.transport.write(connection.error_answer(400, message, "invalid_websocket"))
        self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        # Joined at once: a list would hold an entry for each of any number of empty pieces.
        self._rest += event.data
        if event.fin:
            self.frames.append(bytes(self._rest))
            self._rest = bytearray()
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                self.frames = [b"".join(self.frames)]
                self.frames[0].decode()
            except UnicodeDecodeError:
                self._fail(1007, "The message is not valid UTF-8.")
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        # All that one read has brought are answered with the first of them.
        pongs = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pongs)
        elif pongs:
            # Only the last ping of all has to be answered; they must not pile up.
            self._pongs = pongs

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._await_reading()

    def handle_parser_exception(self) -> None:
        if self.conn.close_sent is None:
            self._refuse("What came before the handshake's end is no WebSocket frame.")
            return
        super().handle_parser_exception()
        self._await_reading()

    def _fail(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    # What the application sends.

    async def send(self, message: Any) -> None:
        """See ASGI; SEND has `texts`. Raises ClientDisconnected where nobody is there any more."""
        if message["type"] == SEND:
            await self.writable.wait()
        if self.close_sent and message["type"] == "websocket.close":
            return
        if self.close_sent or self.disconnected:
            raise ClientDisconnected
        if message["type"] == SEND:
            try:
                for text in message["texts"]:
                    self.conn.send_text(text)
            except InvalidState as error:
                raise ClientDisconnected from error
            self.transport.write(b"".join(self.conn.data_to_send()))
        else:
            await super().send(message)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(connection.READ_WITHIN, self._not_read)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.transport.is_closing():
            return
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self._pongs:
            self.transport.write(self._pongs)
            self._pongs = b""

    # Deadlines.

    def _await_message(self) -> None:
        """Watch the clock from the first byte of a message to its last."""
        begun = self.conn.current_size is not None or bool(self.conn.reader.buffer)
        if begun and self._unfinished is None:
            self._unfinished = self.loop.call_later(MESSAGE_WITHIN, self._not_finished)
        elif not begun and self._unfinished is not None:
            self._unfinished.cancel()
            self._unfinished = None

    def _not_finished(self) -> None:
        self._unfinished = None
        if not self.close_sent and not self.transport.is_closing():
            self._fail(1008, f"A message did not arrive within {MESSAGE_WITHIN:.0f} seconds.")

    def _await_reading(self) -> None:
        """The end is written; it goes out, or its time runs out."""
        if self._unread is None and self.transport.get_write_buffer_size():
            self._unread = self.loop.call_later(connection.READ_WITHIN, self._not_read)

    def _not_read(self) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()
