"""HTTP to an engine's server: connections, deadlines, and every failure as one of our errors.

One `Client` is one server and its connection pool. `call` is a question with an answer that is
read whole; `exchange` starts a streamed one. It knows URLs, headers and time, not what the JSON
means and not when to try again.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import ssl
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import aiohttp
import msgspec
import yarl

from ouzel.core.errors import EngineDied, EngineError, OuzelError
from ouzel.engines.upstream_exchange import NOTHING, Exchange, Timeouts
from ouzel.engines.upstream_failures import Overdue, Severed, Unreachable, read_error

__all__ = ["Client", "Reply", "Timeouts"]

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept: llama-server and uvicorn (vLLM, SGLang) close theirs
after 5, and a request sent into a connection that is being closed is lost."""

MAX_REPLY: Final = 64 * 2**20
"""Bytes that the answer to a `call` may have: the tokens of a very long prompt, as numbers."""

MAX_ERROR: Final = 64 * 2**10
"""Bytes of an error body that are read."""

LARGE: Final = 2**20
"""Bytes of a request body from which aiohttp wants it in pieces."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is read whole."""

    status: int
    body: bytes
    retry_after: float | None = None

    def json(self) -> object:
        """The body, or None where it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (ValueError, RecursionError):
            return None


class Client:
    """One server.

    Args:
        url: its address, with or without `/v1` at the end.
        key: bearer key, None where it wants none.
        timeouts: see there.

    Raises:
        EngineError: the address is not one.
    """

    def __init__(self, url: str, key: str | None, timeouts: Timeouts) -> None:
        self.root = _root(url)
        self.secret = key
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._exchanges: set[Exchange] = set()
        self._chat = self.url("/v1/chat/completions")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "ouzel"}
        if key is not None:
            if not key.isascii() or not key.isprintable():
                raise EngineError("engine_key holds characters that no HTTP header can carry.")
            self._headers["Authorization"] = f"Bearer {key}"

    def url(self, path: str) -> yarl.URL:
        """The address of a path on this server, a query behind it included; `/v1/…` is the OpenAI
        side of it."""
        path, _, query = path.partition("?")
        url = self.root.with_path(self.root.path.rstrip("/") + path)
        return url.with_query(query) if query else url

    def open(self) -> None:
        """Take requests again after `close`. A new client needs no opening."""
        self._closed = False

    async def close(self) -> None:
        """Drop every connection; who still reads is told. May be called twice."""
        self._closed = True
        session, self._session = self._session, None
        for exchange in list(self._exchanges):
            exchange.close()  # aiohttp would leave a reader of the body waiting for ever
        if session is not None:
            await session.close()

    async def call(self, path: str, body: object | None = None, *, within: float) -> Reply:
        """Ask and read the whole answer, whatever its status.

        Args:
            path: as for `url`.
            body: sent as JSON with POST; None asks with GET.
            within: seconds for all of it.

        Raises:
            Unreachable: no connection.
            Severed: the connection broke before the answer was whole.
            Overdue: it took too long.
            EngineDied: the answer is no HTTP, or too long.
        """
        url = self.url(path)
        try:
            async with asyncio.timeout(within), await self._send(url, body) as response:
                read = await _read(response, MAX_REPLY)
                return Reply(response.status, read, _retry_after(response))
        except aiohttp.ClientError as error:  # first: some of them are time-outs too
            raise self._failure(error) from None
        except TimeoutError:
            raise Overdue(f"The engine did not answer {path} within {within:g} s.") from None
        except OSError as error:
            raise self._failure(error) from None

    async def exchange(self, body: dict[str, object]) -> Exchange:
        """Start a streamed answer.

        Args:
            body: the Chat Completions request.

        Raises:
            OuzelError: as `call`, and as the server's status says.
        """
        within = self._timeouts.first_token
        deadline = asyncio.get_running_loop().time() + within
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._send(self._chat, body)
                if response.status != 200 or not _streams(response):
                    raise await self._refusal(response)
        except aiohttp.ClientError as error:
            raise self._failure(error) from None
        except TimeoutError:
            raise Overdue(NOTHING.format(within)) from None
        except OSError as error:
            raise self._failure(error) from None
        return Exchange(response, deadline, self._timeouts, self._exchanges)

    async def _send(self, url: yarl.URL, body: object | None) -> aiohttp.ClientResponse:
        """Up to the response's headers.

        A kept connection may have been closed from the other side while nobody looked:
        llama-server closes its own after every stream and announces nothing. A request that was
        lost in one is sent again at once; each time takes a connection out of the pool, so that
        it ends with a new one.
        """
        data = None if body is None else msgspec.json.encode(body)
        while True:
            if self._closed:
                raise Severed("The connection to the engine was closed.")
            session = self._open_session()
            kept = _Kept()
            try:
                if data is None:
                    return await session.get(url, allow_redirects=False, trace_request_ctx=kept)
                return await session.post(
                    url,
                    data=data if len(data) < LARGE else io.BytesIO(data),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                    trace_request_ctx=kept,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not kept.was_used:
                    raise

    def _open_session(self) -> aiohttp.ClientSession:
        """The pool; it needs a running event loop, and so is made on first use."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
                # A proxy from the environment is not asked for an engine on this machine.
                trust_env=not _is_loopback(self.root.host or ""),
                trace_configs=[_notice_kept()],
            )
        return self._session

    async def _refusal(self, response: aiohttp.ClientResponse) -> OuzelError:
        """Why there is no stream."""
        async with response:
            body = await _read(response, MAX_ERROR, cut=True)
        status = response.status
        if status != 200:
            after = _retry_after(response)
            return read_error(status, body, retry_after=after, secret=self.secret)
        # Some servers report an error with status 200; its code is in the body.
        found = Reply(200, body).json()
        if isinstance(found, dict) and found.get("error") is not None:
            inner = found["error"]
            code = inner.get("code") if isinstance(inner, dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            return read_error(status, body, secret=self.secret)
        return EngineDied(
            f"The engine answered with '{response.content_type}' instead of a stream: "
            "is engine_url the address of a Chat Completions server?"
        )

    def _failure(self, error: BaseException) -> EngineError:
        """What a broken connection means. The cause is named, never chained: aiohttp's errors
        carry the request's headers, and so the key."""
        where = f"the engine at {self.root.origin()}"
        match error:
            case aiohttp.ClientConnectorCertificateError():
                why = error.certificate_error
                reason = getattr(why, "verify_message", None) or type(why).__name__
                return Unreachable(
                    f"The TLS certificate of {where} is not trusted ({reason}). Let SSL_CERT_FILE "
                    "name the authority's certificate, or use http:// on a trusted network.",
                    passing=False,
                )
            case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
                return Unreachable(
                    f"TLS with {where} failed ({type(error).__name__}): does it speak https?",
                    passing=False,
                )
            case aiohttp.ClientConnectorDNSError():
                return Unreachable(f"The host of {where} has no address: check engine_url.")
            case aiohttp.ConnectionTimeoutError():
                after = self._timeouts.connect
                return Unreachable(f"No connection to {where} within {after:g} s.")
            case aiohttp.ClientConnectorError():
                reason = error.os_error.strerror or type(error.os_error).__name__
                return Unreachable(f"No connection to {where}: {reason}.")
            case aiohttp.ClientHttpProxyError():
                return Unreachable(f"The proxy refused the way to {where}: HTTP {error.status}.")
            case aiohttp.ClientResponseError():
                return EngineDied(f"What {where} answered is not HTTP.")
        return Severed(f"The connection to {where} broke ({type(error).__name__}).")


class _Kept:
    """Whether a request went into a connection that was kept from an earlier one."""

    was_used = False


def _notice_kept() -> aiohttp.TraceConfig:
    async def note(_session: object, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.was_used = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


def _root(url: str) -> yarl.URL:
    try:
        root = yarl.URL(url.strip())
        port = root.port
    except ValueError:
        raise EngineError("engine_url is not an address.") from None
    if root.scheme not in ("http", "https") or not root.host or not port:
        raise EngineError("engine_url must look like http://host:port or http://host:port/v1.")
    if root.user is not None or root.password is not None:
        raise EngineError("engine_url holds a user or password: put the key into engine_key.")
    path = root.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return root.with_path(path).with_query(None).with_fragment(None)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _streams(response: aiohttp.ClientResponse) -> bool:
    """A server that names no type gets the benefit of the doubt."""
    stated = response.headers.get("Content-Type")
    return stated is None or response.content_type == "text/event-stream"


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds from the header; the form with a date is not read."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= 86400 else None


async def _read(response: aiohttp.ClientResponse, limit: int, *, cut: bool = False) -> bytes:
    """The body up to a limit; what is longer is cut or an error."""
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            if cut:
                break
            raise EngineDied(f"The engine's answer is longer than {limit} bytes.")
    return b"".join(pieces)[:limit]
