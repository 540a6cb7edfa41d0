"""What the endpoints share: bodies in, JSON out, and a watch on the client meanwhile.

It knows no endpoint and no protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from ouzel.api import failures, read_headers, read_query, reading, writing
from ouzel.api.read_errors import literal, unknown
from ouzel.api.sse import until_disconnect
from ouzel.core.errors import NotFound, RequestError, TooLarge
from ouzel.core.events import Failure

OWNER = "local"
"""With one bearer key, or none, everything belongs to the one who runs the server."""

_BODY_WITHIN = 60.0
"""Seconds in which a client must have sent its body."""

_BIG_BODY = 256 * 1024
"""Bytes from which a body is read in a thread: 25 MB of tiny parts take some seconds, in which
nobody else must wait."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
"""What an id may look like that is looked up and logged."""

T = TypeVar("T")


class BodyTimeout(RequestError):
    """The body did not come in time."""

    status = 408


class UnsupportedEncoding(RequestError):
    """The body is compressed."""

    status = 415


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
            BodyTimeout: it did not come in time.
            UnsupportedEncoding: it is compressed.
            RequestError: the query is not empty, the body is no JSON object, or is not to the
                reader's liking.
        """
        read_query.read_nothing(query(request))
        return await self.read_body(request, reader)

    async def read_body(self, request: Request, reader: Callable[[dict[str, Any]], T]) -> T:
        """The same where the query is the caller's to read. Raises as `read`."""
        return await self.parse(await self._body(request), reader)

    async def parse(self, raw: bytes, reader: Callable[[dict[str, Any]], T]) -> T:
        """What `reader` makes of a JSON object. Raises RequestError as `read`."""
        if len(raw) <= _BIG_BODY:
            return reader(reading.decode_body(raw))
        return await asyncio.to_thread(lambda: reader(reading.decode_body(raw)))

    async def nothing(self, request: Request) -> None:
        """Take a body with nothing in it: no byte, or an empty object. Raises as `read`."""
        read_query.read_nothing(query(request))
        raw = await self._body(request)
        if raw.strip():
            for name in reading.decode_body(raw):
                raise unknown((name,))

    async def _body(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise UnsupportedEncoding(
                f"A body with content-encoding {literal(encoding)} is not read here; send it as "
                "it is.",
                code="unsupported_content_encoding",
            )
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
            raise BodyTimeout(
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


class Cancels(Protocol):
    """An answer, or a task."""

    def cancel(self) -> object:
        """Stop it."""
        ...


@asynccontextmanager
async def watched(request: Request, answers: Collection[Cancels]) -> AsyncGenerator[None, None]:
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


def query(request: HTTPConnection) -> list[tuple[str, str]]:
    """The query's decoded names and values, in order."""
    pairs: list[tuple[str, str]] = request.query_params.multi_items()
    return pairs


def answer_within(request: HTTPConnection) -> float | None:
    """The seconds that the client's header gives the answer. Raises RequestError."""
    return read_headers.answer_within(request.headers.getlist(read_headers.ANSWER_WITHIN))


def path_id(request: Request, kind: str) -> str:
    """The id in the path.

    Raises:
        NotFound: nothing can have such an id; `kind` says what was looked for.
    """
    found: str = request.path_params["id"]
    if not _ID.fullmatch(found):
        raise NotFound(f"{kind} with id {literal(found)} not found.", code="not_found")
    return found
