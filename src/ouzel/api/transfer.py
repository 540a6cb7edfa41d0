"""Bytes of files over HTTP: bodies as they arrive, and contents as clients take them.

In both directions at most a few pieces are in memory: what is slower, disk or client, sets the
pace. It knows neither forms nor endpoints, nor where files lie.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ouzel.api import failures, ranges, writing
from ouzel.api.endpoints import BodyTimeout, UnsupportedEncoding
from ouzel.api.read_errors import literal
from ouzel.api.sse import until_disconnect
from ouzel.core.errors import RequestError, StoreError, TooLarge
from ouzel.core.files import Content

STALL: Final = 60.0
"""Seconds of waiting for the client in which at least LEAST bytes must come. There is no limit for
the whole: half a gigabyte over a slow line takes hours."""

LEAST: Final = 16 * 1024
"""Bytes; so little in STALL seconds is no slow line, but a connection kept busy on purpose."""

PIECE: Final = 256 * 1024
"""Bytes of a content that are read and sent at a time."""

_MOMENT: Final = 2.0
"""Seconds; file systems that count in whole ones are the coarsest (two on FAT)."""

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")


async def arriving(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """A request's body, piece by piece, without end or pace of its own.

    Args:
        most: bytes that it may have.

    Raises:
        TooLarge: it has more, or says so beforehand.
        UnsupportedEncoding: it is compressed.
        BodyTimeout: it stalls; only time spent waiting for the client counts.
        RequestError: the client went away.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedEncoding(
            f"A body with content-encoding {literal(encoding)} is not read here; send it as it is.",
            code="unsupported_content_encoding",
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    size, recent, left = 0, 0, STALL
    async with aclosing(request.stream()) as pieces:
        while True:
            began = time.monotonic()
            piece = await _next_piece(pieces, left)
            if piece is None:
                return
            size += len(piece)
            if size > most:
                raise _too_large(most)
            left -= time.monotonic() - began
            recent += len(piece)
            if recent >= LEAST:
                recent, left = 0, STALL
            if piece:
                yield piece


async def _next_piece(pieces: AsyncGenerator[bytes, None], within: float) -> bytes | None:
    try:
        async with asyncio.timeout(within):
            return await anext(pieces, None)
    except TimeoutError as error:
        raise BodyTimeout(
            f"The request body stalled: less than {LEAST} bytes in {STALL:.0f} seconds.",
            code="request_timeout",
        ) from error
    except ClientDisconnect as error:
        raise RequestError("The client went away before its body was whole.") from error


def _too_large(most: int) -> TooLarge:
    return TooLarge(
        f"The request body is larger than the {most} bytes that are accepted here.",
        code="request_too_large",
    )


async def pieces_of(content: Content) -> AsyncGenerator[bytes, None]:
    """All of a content, from its first byte on. The caller closes the content."""
    at = 0
    while at < content.size:
        piece = await content.read(at, min(PIECE, content.size - at))
        if not piece:
            raise _shorter()
        at += len(piece)
        yield piece


def _shorter() -> StoreError:
    return StoreError("A file became shorter while it was read.")


def tag_of(file_id: str, content: Content, *, changes: bool) -> str:
    """A strong entity tag: another one as soon as a byte of the file may be another.

    Args:
        changes: the file may change under its id, as those in containers do. One that changed a
            moment ago gets a new tag each time: clocks of file systems are too coarse to tell
            two changes of one moment apart.
    """
    found = os.fstat(content.descriptor)
    facts = f"{file_id}/{content.size}"
    if changes:
        facts += f"/{found.st_ino}/{found.st_mtime_ns}"
        if abs(time.time() - found.st_mtime) < _MOMENT:
            facts += f"/{secrets.token_hex()}"
    return f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'


def download(
    request: Request, file_id: str, content: Content, *, changes: bool = False
) -> Response:
    """The answer to a GET or HEAD of a content, which is closed in the end, whatever happens.

    Honours `Range` with one range, `If-Range` and `If-None-Match`. What clients and models wrote
    is never shown as a page of this server: it is an attachment, in a sandbox, of no other type
    than is said.

    Args:
        changes: as for `tag_of`.
    """
    try:
        tag = tag_of(file_id, content, changes=changes)
        headers = {
            "etag": tag,
            "accept-ranges": "bytes",
            "cache-control": "private, no-cache",
            "content-disposition": _disposition(content.name),
            "content-security-policy": "sandbox; default-src 'none'",
            "x-content-type-options": "nosniff",
        }
        asked = request.headers
        if ranges.has_already(asked.get("if-none-match"), tag):
            content.close()
            return Response(status_code=304, headers=headers)
        span = None
        if request.method == "GET" and ranges.still_holds(asked.get("if-range"), tag):
            span = ranges.read_range(asked.get("range"), content.size)
        return _ContentResponse(content, span, headers, request.method == "HEAD")
    except ranges.Unsatisfiable:
        size = content.size
        content.close()
        return _unsatisfiable(size)
    except BaseException:
        content.close()
        raise


def _unsatisfiable(size: int) -> Response:
    told = f"The file has {size} bytes; the range that was asked for lies outside of it."
    body = failures.body(416, told, param="range", code="range_not_satisfiable")
    headers = {"content-range": f"bytes */{size}"}
    return Response(writing.encode(body), 416, headers, "application/json")


def _disposition(name: str) -> str:
    """To be kept as a file of this name; the plain form is for clients that know no other."""
    plain = re.sub(r"[^ !#-\[\]-~]|[\\/%;]", "_", name)[:200] or "file"
    exact = quote(name.encode("utf-8", "replace")[:2000], safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"


class _ContentResponse(Response):
    """Sends a content, or a span of it, as fast as the client takes it.

    Args:
        content: closed when all is over.
        head: only the headers are wanted.
    """

    def __init__(
        self, content: Content, span: ranges.Span | None, headers: dict[str, str], head: bool
    ) -> None:
        fits = _MEDIA_TYPE.fullmatch(content.media_type)
        kind = content.media_type if fits else "application/octet-stream"
        super().__init__(status_code=206 if span else 200, headers=headers)
        self._start = span.start if span else 0
        self._length = span.length if span else content.size
        # Set here, or a charset would be added to what may be no text at all.
        self.headers["content-type"] = kind
        self.headers["content-length"] = str(self._length)
        if span:
            self.headers["content-range"] = span.told(content.size)
        self._content = content
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Sending to a client that is gone raises nothing, so somebody has to look.
        watch = asyncio.create_task(until_disconnect(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            at, left = self._start, 0 if self._head else self._length
            while left and not watch.done():
                piece = await self._content.read(at, min(PIECE, left))
                if not piece:
                    raise _shorter()
                at, left = at + len(piece), left - len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if not left:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watch.cancel()
            self._content.close()
