"""HTTP to an engine's server: connections, deadlines, and every failure as one of our errors.

One `Client` is one server and its connection pool. `call` is a small question with a small
answer; `exchange` is a streamed one. It knows URLs, headers and time, not what the JSON means and
not when to try again.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec
import yarl

from ouzel.core.errors import EngineDied, EngineError, OuzelError
from ouzel.engines.upstream_failures import Overdue, Severed, Unreachable, read_error

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept: llama-server and uvicorn (vLLM, SGLang) close theirs
after 5, and a request sent into a connection that is being closed is lost."""

MAX_REPLY: Final = 64 * 2**20
"""Bytes that the answer to a `call` may have: the tokens of a very long prompt, as numbers."""

MAX_ERROR: Final = 64 * 2**10
"""Bytes of an error body that are read."""

LARGE: Final = 2**20
"""Bytes of a request body from which aiohttp wants it in pieces."""

_BROKEN = (aiohttp.ClientError, OSError)
_NOTHING: Final = "The engine said nothing within {:g} s (first_token_timeout)."


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an engine's server may take, in seconds.

    Args:
        connect: to accept a connection, name look-up and TLS included.
        first_token: from the request to the first piece of the answer.
        idle: from one piece to the next.
    """

    connect: float = 5.0
    first_token: float = 600.0
    idle: float = 120.0


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
        self._chat = self.url("/v1/chat/completions")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "ouzel"}
        if key is not None:
            if not key.isascii() or not key.isprintable():
                raise EngineError("engine_key holds characters that no HTTP header can carry.")
            self._headers["Authorization"] = f"Bearer {key}"

    def url(self, path: str) -> yarl.URL:
        """The address of a path on this server; `/v1/…` is the OpenAI side of it."""
        return self.root.with_path(self.root.path.rstrip("/") + path)

    async def close(self) -> None:
        """Drop every connection. May be called twice."""
        session, self._session = self._session, None
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
            raise Overdue(_NOTHING.format(within)) from None
        except OSError as error:
            raise self._failure(error) from None
        return Exchange(response, deadline, self._timeouts)

    async def _send(self, url: yarl.URL, body: object | None) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._connect()
        if body is None:
            return await self._session.get(url, allow_redirects=False)
        data = msgspec.json.encode(body)
        return await self._session.post(
            url,
            data=data if len(data) < LARGE else io.BytesIO(data),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        )

    def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
            # A proxy from the environment is not asked for an engine on this machine.
            trust_env=not _is_loopback(self.root.host or ""),
        )

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


class Exchange:
    """One streamed answer, being read.

    One timer watches over it and is moved only when it fires, so that a piece costs no timer: it
    looks whether somebody still waits for a piece that was due. Leave it with `close`, always.
    """

    __slots__ = (
        "_content",
        "_deadline",
        "_expired",
        "_limit",
        "_loop",
        "_moved",
        "_reading",
        "_response",
        "_timeouts",
        "_timer",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, deadline: float, timeouts: Timeouts
    ) -> None:
        self._response = response
        self._content = response.content
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._timer = self._loop.call_at(deadline, self._look)
        self._limit = timeouts.first_token
        self._reading = False
        self._moved = False
        self._expired = False

    async def read(self) -> bytes:
        """The next bytes, `b""` at the end.

        Raises:
            Severed: the connection broke.
            Overdue: nothing useful came in `first_token` seconds.
            EngineDied: nothing useful came for `idle` seconds.
        """
        self._reading = True
        try:
            return await self._content.readany()
        except _BROKEN as error:
            raise self._failure(error) from None
        finally:
            self._reading = False

    def moved(self, limit: float | None = None) -> None:
        """Something useful came: the next has `limit` seconds from now, `idle` by default."""
        self._moved = True
        self._limit = self._timeouts.idle if limit is None else limit
        self._deadline = self._loop.time() + self._limit
        if self._deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._look)

    async def drain(self, within: float) -> None:
        """Read on to the end, so that the connection can be used again.

        Where the end does not come within so many seconds, `close` will close the connection.
        """
        if self._content.at_eof():
            return
        try:
            async with asyncio.timeout(within):
                while await self._content.readany():
                    pass
        except (TimeoutError, *_BROKEN):
            self._response.close()

    def close(self) -> None:
        """Let go: at once, and closing the connection unless the answer was read to its end."""
        self._timer.cancel()
        self._response.close()

    def _look(self) -> None:
        now = self._loop.time()
        if not self._reading:  # the reader is busy elsewhere; its wait has not begun
            self._timer = self._loop.call_at(now + self._limit, self._look)
        elif now < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self._expired = True
            self._response.close()  # wakes the reader

    def _failure(self, error: BaseException) -> EngineError:
        if not self._expired:
            return Severed(f"The connection to the engine broke ({type(error).__name__}).")
        if self._moved:
            return EngineDied(f"The engine fell silent for {self._limit:g} s in mid-answer.")
        return Overdue(_NOTHING.format(self._limit))


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
