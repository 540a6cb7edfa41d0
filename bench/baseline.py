"""What Ouzel is compared with: a bare Starlette server that sends canned replies.

    python -m bench.baseline PORT < replies.json

It reads the request's body and looks at nothing in it. Same event loop, HTTP parser and
settings of uvicorn as Ouzel, so that what differs is Ouzel.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Canned:
    """One reply.

    Args:
        path: where it is asked for.
        chunks: its body; more than one, or a delay, makes it a stream.
        delay: seconds before each chunk.
        media_type: of the reply.
    """

    path: str
    chunks: list[str]
    delay: float = 0.0
    media_type: str = "application/json"

    async def reply(self, request: Request) -> Response:
        """Answer, whatever was asked."""
        await request.body()
        if self.media_type == "application/json":
            return Response(self.chunks[0], media_type=self.media_type)
        return StreamingResponse(self._stream(), media_type=self.media_type)

    async def _stream(self) -> AsyncIterator[str]:
        for chunk in self.chunks:
            if self.delay:
                await asyncio.sleep(self.delay)
            yield chunk


def main() -> None:
    """Serve until killed."""
    replies = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Canned])
    routes = [Route(canned.path, canned.reply, methods=["POST"]) for canned in replies]
    routes.append(Route("/ready", lambda _: Response("ready")))
    uvicorn.run(
        Starlette(routes=routes),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
