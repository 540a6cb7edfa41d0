"""Server-sent events over ASGI: chunks out, a watch on the client, signs of life.

It moves bytes and knows no protocol: what is in the chunks is the writers' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ouzel.core.errors import ShuttingDown

KEEP_ALIVE = b": keep-alive\n\n"


class EventStream(Response):
    """Streams chunks as they come.

    A client that does not read is waited for; the connection ends the wait (`connection.py`).

    Args:
        chunks: bytes of whole events; None becomes a comment that keeps proxies awake.
        gone: called once if the client goes away; it must make `chunks` come to its end. Without
            it nobody is told, and reading just stops.
        close: awaited when all is over, whatever happened.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes | None, None],
        gone: Callable[[], None] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._gone = gone
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(until_disconnect(receive))
        reading = asyncio.current_task()
        assert reading is not None  # noqa: S101  # an ASGI server runs us in one
        left = False

        def leave(task: asyncio.Task[None]) -> None:
            nonlocal left
            if task.cancelled():
                return
            if self._gone is not None:
                self._gone()
            else:
                left = True
                reading.cancel()

        watch.add_done_callback(leave)
        try:
            await self._send(send)
        except ShuttingDown:
            # The run goes on in the next process: the stream breaks off, as it does when a process
            # dies, so that nobody takes what came for all there is.
            return
        except asyncio.CancelledError:
            if not left or reading.uncancel():
                raise
        finally:
            watch.remove_done_callback(leave)
            watch.cancel()
            if self._close is not None:
                await self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                if chunk != b"":
                    body = KEEP_ALIVE if chunk is None else chunk
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has gone away. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
