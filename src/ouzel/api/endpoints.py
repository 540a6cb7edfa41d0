"""What the endpoints share: bodies in, JSON out, and a watch on the client meanwhile.

It knows no endpoint and no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ouzel.answer import Answer
from ouzel.api import failures, reading, writing
from ouzel.api.sse import until_disconnect
from ouzel.core.errors import RequestError, TooLarge
from ouzel.core.events import Failure

OWNER = "local"
"""With one bearer key, or none, everything belongs to the one who runs the server."""

_BODY_WITHIN = 60.0
"""Seconds in which a client must have sent its body."""

_BIG_BODY = 256 * 1024
"""Bytes from which a body is read in a thread: 25 MB of tiny parts take some seconds, in which
nobody else must wait."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Exchange:
    """How an endpoint reads a body.

    Args:
        max_body: bytes that it may have.
        keep_alive: seconds of silence after which a stream gives a sign of life.
    """

    max_body: int
    keep_alive: float

    async def read(self, request: Request, reader: Callable[[dict[str, Any]], T]) -> T:
        """What `reader` makes of the JSON object in the body.

        Raises:
            TooLarge: it has more bytes than allowed.
            RequestError: it did not come in time, is no JSON object, or is not to the reader's
                liking.
        """
        raw = await self._body(request)
        if len(raw) <= _BIG_BODY:
            return reader(reading.decode_body(raw))
        return await asyncio.to_thread(lambda: reader(reading.decode_body(raw)))

    async def _body(self, request: Request) -> bytes:
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self.max_body:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_WITHIN):
                async for piece in request.stream():
                    size += len(piece)
                    if size > self.max_body:
                        raise self._too_large()
                    pieces.append(piece)
        except TimeoutError as error:
            raise RequestError(
                f"The request body did not arrive within {_BODY_WITHIN:.0f} seconds.",
                code="request_timeout",
            ) from error
        except ClientDisconnect as error:
            raise RequestError("The client went away before its body was whole.") from error
        return b"".join(pieces)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The request body is larger than the {self.max_body} bytes that this server accepts "
            "(setting max_body_mb).",
            code="request_too_large",
        )


@asynccontextmanager
async def watched(request: Request, answers: Collection[Answer]) -> AsyncGenerator[None, None]:
    """While inside, a client that goes away cancels the answers."""

    def gone(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            for answer in answers:
                answer.cancel()

    watch = asyncio.create_task(until_disconnect(request.receive))
    watch.add_done_callback(gone)
    try:
        yield
    finally:
        watch.cancel()


def as_json(body: dict[str, Any], status: int = 200) -> Response:
    """A JSON reply."""
    return Response(writing.encode(body), status, media_type="application/json")


def failed(failure: Failure) -> Response:
    """The error reply for a run that failed before anything of it was sent."""
    status, body, headers = failures.of_failure(failure)
    return Response(writing.encode(body), status, headers, "application/json")


def only_query(request: Request, *known: str) -> dict[str, str]:
    """The query's values by name.

    Raises:
        RequestError: there is a name that this endpoint does not know.
    """
    for name in request.query_params:
        if name.removesuffix("[]") not in known:
            raise RequestError(
                f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter"
            )
    return dict(request.query_params)
