"""Speaks the public HTTP API as any client would: models, and streamed Responses.

It knows the wire and nothing of terminals or of how the server is made. Every failure is a
`Failed` whose message says what to do.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ouzel.cli.output import Failed
from ouzel.config import Settings

CONNECT_WITHIN = 5.0
"""Seconds for the connection; the server is near."""
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask.

    Args:
        url: base URL, `/v1` included, without a slash at its end.
        key: bearer key, if the server wants one.
        silence: longest pause between two signs of life, in seconds.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    silence: float = 660.0


def find_server(settings: Settings, url: str | None, key: str | None) -> Server:
    """The server that was named, or the one that these settings would start.

    The settings' own key goes only to the settings' own address: it is no one else's business.
    """
    silence = settings.first_token_timeout + 60
    if url is not None:
        base = url.rstrip("/")
        if not base.startswith(("http://", "https://")):
            raise Failed(f"{url} is not a URL such as http://127.0.0.1:8321/v1.")
        return Server(base if base.endswith("/v1") else f"{base}/v1", key, silence)
    return Server(f"{settings.local_url}/v1", key or settings.api_key, silence)


class Client:
    """A session with one server; an asynchronous context manager."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        headers = {"authorization": f"Bearer {self._server.key}"} if self._server.key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_WITHIN, sock_read=self._server.silence
            ),
        )
        return self

    async def __aexit__(self, *what: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def models(self) -> list[str]:
        """Names of the served models, at least one, the server's own first. Raises Failed."""
        async with aclosing(self._ask("GET", "/models")) as answers:
            async for response in answers:
                listed = await _json(response)
                try:
                    names = [str(model["id"]) for model in listed["data"]]
                except (KeyError, TypeError):
                    raise self._no_ouzel(response.status) from None
                if not names:
                    raise Failed(f"{self._server.url} serves no model.")
                return names
        raise AssertionError("a request yields its response once")

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Create a Response and yield its events, the last of them a terminal one.

        Closing the generator closes the connection, which stops the run.

        Raises:
            Failed: the server is not there, refuses, or breaks off.
        """
        async with aclosing(self._ask("POST", "/responses", {**body, "stream": True})) as answers:
            async for response in answers:
                try:
                    async for event in read_events(response.content.iter_any()):
                        yield event
                        if event.get("type") in TERMINAL:
                            return
                except (aiohttp.ClientError, ConnectionError) as error:
                    raise Failed(f"The connection broke off: {error}.") from error
                raise Failed("The server broke off in the middle of the answer.")

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Yield the response, once, its status 200; it is released when the generator closes."""
        if self._session is None:
            raise RuntimeError("use the client as a context manager")
        url = self._server.url + path
        try:
            async with self._session.request(method, url, json=body) as response:
                if response.status != 200:
                    raise await self._refused(response)
                yield response
        except aiohttp.ClientConnectorError as error:
            raise Failed(
                f"No server answers at {self._server.url}. Start one in another terminal: "
                "ouzel serve"
            ) from error
        except TimeoutError as error:
            raise Failed(f"{self._server.url} did not answer in time.") from error
        except aiohttp.InvalidURL as error:
            raise Failed(f"{self._server.url} is not a URL.") from error
        except aiohttp.ClientError as error:
            raise Failed(f"{self._server.url} does not speak HTTP as it should: {error}") from error

    async def _refused(self, response: aiohttp.ClientResponse) -> Failed:
        found = await _json(response)
        error = found.get("error") if isinstance(found, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        if not isinstance(message, str):
            return self._no_ouzel(response.status)
        if response.status == 401:
            message += " Give it with --key, or set OUZEL_API_KEY."
        return Failed(message)

    def _no_ouzel(self, status: int) -> Failed:
        return Failed(
            f"{self._server.url} answered {status}, but not as an OpenAI-compatible server does."
        )


async def _json(response: aiohttp.ClientResponse) -> Any:
    try:
        return json.loads(await response.read())
    except ValueError:
        return None


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """Parse server-sent events, as the WHATWG HTML standard describes them, whose data is JSON.

    Raises:
        Failed: data is not a JSON object, or not UTF-8.
    """
    lines = _Lines()
    data: list[str] = []
    async for chunk in chunks:
        for line in lines.feed(chunk):
            if line:
                name, _, value = line.partition(":")
                if name == "data":
                    data.append(value.removeprefix(" "))
            elif data:
                text, data = "\n".join(data), []
                if text != "[DONE]":
                    yield _object(text)


def _object(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Failed("The server sent an event that is not a JSON object.")
    return event


class _Lines:
    """Splits a stream of bytes at LF, CR and CRLF, wherever the chunks end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._rest: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        try:
            text = self._decoder.decode(chunk)
        except UnicodeDecodeError:
            raise Failed("The server sent text that is not UTF-8.") from None
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        if text:
            self._after_cr = text.endswith("\r")
        *whole, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in whole:
            yield "".join((*self._rest, line))
            self._rest.clear()
        self._rest.append(rest)
