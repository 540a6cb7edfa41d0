"""What every HTTP exchange gets: an id, a clock, a guard, and an answer to any exception.

Pure ASGI, since a layer that wraps responses would hold back streams. It knows no endpoint.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from ouzel.api import failures, writing
from ouzel.api.metrics import Metrics
from ouzel.api.read_errors import literal
from ouzel.core.errors import OuzelError, RequestError, Unauthorized
from ouzel.core.items import new_id

_log = logging.getLogger(__name__)
_OPEN_PATHS = frozenset({"/health", "/ready"})
_ONCE = (b"authorization", b"content-encoding", b"content-type", b"host", b"origin")
"""Headers of which a second one would be obeyed by nobody, or by somebody else."""


class Forbidden(RequestError):
    """The request comes from a web page, or under a host name, that has no business here."""

    status = 403


class Envelope:
    """Wraps the routes.

    Args:
        app: the routes.
        key: the bearer key that `/v1` and `/metrics` ask for; None asks for nothing.
        metrics: is told of every exchange.
    """

    def __init__(self, app: ASGIApp, key: str | None, metrics: Metrics) -> None:
        self._app = app
        self._key = key.encode() if key else None
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._handshake(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = new_id("req")
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message, request_id, began)
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            self._guard(scope)
            await self._app(scope, receive, sending)
        except Exception as error:
            note(error, request_id)
            if status:
                raise
            await _answer(error, request_id, sending)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "unmatched")
            self._metrics.exchange(
                scope["method"], path, status or 499, time.perf_counter() - began
            )

    async def _handshake(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same for a WebSocket: until it is open, an error is an HTTP answer as any other."""
        began = time.perf_counter()
        request_id = new_id("req")
        opened = False

        async def sending(message: Message) -> None:
            nonlocal opened
            kind = message["type"]
            if kind.startswith("http.response."):
                message["type"] = f"websocket.{kind}"
            if kind in ("websocket.accept", "http.response.start"):
                message["headers"] = _with_ours(message, request_id, began)
                opened = kind == "websocket.accept"
                path = getattr(scope.get("route"), "path", "unmatched")
                status = 101 if opened else message["status"]
                self._metrics.exchange("GET", path, status, time.perf_counter() - began)
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            self._guard(scope)
            await self._app(scope, receive, sending)
        except ClientDisconnected:
            pass
        except Exception as error:
            note(error, request_id)
            if opened:
                await send({"type": "websocket.close", "code": 1011})
            else:
                await _answer(error, request_id, sending)

    def _guard(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            _check_once([name for name, _ in scope["headers"]])
        if self._key is None:
            _check_local(headers)
            return
        if scope["path"] in _OPEN_PATHS:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise Unauthorized(
                "You didn't provide an API key. Send it in the Authorization header: "
                "Authorization: Bearer YOUR_KEY.",
                code="missing_api_key",
            )
        if not hmac.compare_digest(token.strip(), self._key):
            raise Unauthorized("Incorrect API key provided.", code="invalid_api_key")


def _with_ours(message: Message, request_id: str, began: float) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, and those that every answer has."""
    elapsed = int((time.perf_counter() - began) * 1000)
    return [
        *message.get("headers", ()),
        (b"x-request-id", request_id.encode()),
        (b"openai-processing-ms", str(elapsed).encode()),
        (b"openai-version", b"2020-10-01"),
    ]


def note(error: Exception, request_id: str) -> None:
    """Log what went wrong, unless it is the client's own doing."""
    if not isinstance(error, OuzelError | HTTPException):
        _log.error("request %s failed", request_id, exc_info=error)
    elif not isinstance(error, RequestError | HTTPException):
        _log.warning("request %s: %s", request_id, _on_one_line(error.message))


def _on_one_line(text: str) -> str:
    """The text as one line of the log; an engine or a driver may have its say in it."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _check_once(names: list[bytes]) -> None:
    for name in _ONCE:
        if names.count(name) > 1:
            raise RequestError(
                f"The header '{name.decode()}' was sent more than once.", code="duplicate_header"
            )


def _check_local(headers: dict[bytes, bytes]) -> None:
    """Without a key only this machine's own programs may ask: not a page from elsewhere.

    A browser names the page's origin, and a rebound DNS name shows in the host header.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if host and not _is_loopback(host):
        raise Forbidden(
            f"Host {literal(host)} is not this machine; set an API key to serve other names.",
            code="forbidden_host",
        )
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and not _is_loopback(origin.partition("://")[2]):
        raise Forbidden(
            "Requests from web pages of other sites need an API key.", code="forbidden_origin"
        )


def _is_loopback(authority: str) -> bool:
    name = authority.rsplit("@", 1)[-1]
    if name.startswith("["):
        name, _, port = name[1:].partition("]")
        if port and not port.startswith(":"):
            return False
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


async def _answer(
    error: Exception, request_id: str, send: Callable[[Message], Awaitable[None]]
) -> None:
    status, body, headers = failures.error_body(error, request_id)
    await send_json(send, status, body, headers)


async def send_json(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    body: dict[str, Any],
    headers: dict[str, str] | None = None,
) -> None:
    """Answer with a JSON body."""
    data = writing.encode(body)
    lines = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    lines.extend((name.encode(), value.encode()) for name, value in (headers or {}).items())
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": data})
