"""What the hostile tests share: a server in a thread of its own, and a client without manners.

The client writes bytes, whatever they are, and reads one answer. Nothing in between mends or
refuses what is sent, as every HTTP library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop

from harness import Running, serving
from ouzel.core.contracts import Engine
from wire import checks

T = TypeVar("T")


class Background:
    """A server under test whose event loop runs beside the test.

    Attributes:
        running: the server.
        port: where it listens.
    """

    def __init__(self, engine: Engine, home: Path, **more: Any) -> None:
        self._started: Future[Running] = Future()
        self._stop = threading.Event()
        self._engine, self._home, self._more = engine, home, more
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.running = self._started.result(30)
        self.port = int(self.running.url.rpartition(":")[2])

    def _run(self) -> None:
        # The same event loop as `ouzel serve` runs on.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        try:
            async with serving(self._engine, self._home, **self._more) as running:
                self._started.set_result(running)
                await self._ended.wait()
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            raise

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine in the server's own loop."""

        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def stop(self) -> None:
        """Stop, and wait until nothing of it runs."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def at_rest(self) -> None:
        """Wait until nothing runs, and fail if something stays. Idle connections may stay."""
        self.call(lambda: at_rest(self.running))


@contextlib.contextmanager
def background(engine: Engine, home: Path, **more: Any) -> Iterator[Background]:
    """Serve in a thread until the block ends."""
    server = Background(engine, home, **more)
    try:
        yield server
    finally:
        server.stop()


async def at_rest(running: Running, within: float = 15.0) -> None:
    """Wait until no run, no admission, no engine turn and no task of an answer is left."""

    def left() -> dict[str, Any]:
        tasks = [str(task.get_coro()) for task in asyncio.all_tasks() if _ours(task)]
        found = {
            "live": len(running.answers._finding.live),
            "admitted": running.answers._limiter.running,
            "turns": running.engine.active,
            "tasks": tasks,
        }
        return {name: value for name, value in found.items() if value}

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while left():
                await asyncio.sleep(0.01)
                gc.collect(0)
    still = left()
    assert still == {}, still


def _ours(task: asyncio.Task[Any]) -> bool:
    """Whether a task belongs to an answer, an endpoint or a stream; handing out the lines of
    batches goes on for as long as the server."""
    code = getattr(task.get_coro(), "cr_code", None) or getattr(task.get_coro(), "ag_code", None)
    if code is None or code.co_qualname == "BatchRunner._hand_out":
        return False
    name = code.co_filename
    return "/ouzel/" in name or name.endswith("httptools_impl.py")


@dataclass(frozen=True)
class Reply:
    """One answer.

    Args:
        headers: names in lower case.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(port: int, *, receive: int | None = None) -> socket.socket:
    """A connection to the server, with a receive buffer of about so many bytes if asked for."""
    client = socket.socket()
    if receive is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    client.settimeout(30)
    client.connect(("127.0.0.1", port))
    return client


def read_reply(client: socket.socket, method: str = "POST") -> Reply:
    """The next answer on a connection, however it is framed."""
    response = http.client.HTTPResponse(client, method=method)
    response.begin()
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, body)


def exchange(port: int, data: bytes, method: str = "POST") -> Reply:
    """Send bytes on a new connection and read one answer."""
    with connect(port) as client:
        # The server may answer and close before it has taken everything.
        with contextlib.suppress(ConnectionError):
            client.sendall(data)
        return read_reply(client, method)


def reset(client: socket.socket) -> None:
    """Break a connection off, unsent and unread data included."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def request(
    path: str,
    body: bytes | dict[str, Any] | list[Any] | None = None,
    *headers: str,
    method: str = "POST",
    version: str = "1.1",
) -> bytes:
    """A request, as well-formed as its arguments."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/{version}", "host: localhost", *headers]
    if body is not None and not any(line.lower().startswith("content-length") for line in headers):
        lines.append(f"content-length: {len(raw)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + raw


class Bad(NamedTuple):
    """A request and the error that answers it."""

    name: str
    data: bytes
    code: str
    param: str | None = None
    status: int = 400


def refuse(server: Background, bad: Bad, method: str = "POST") -> None:
    """Send it and check every part of the error."""
    reply = exchange(server.port, bad.data, method)
    found = checks.check_error(reply.body)["error"]
    assert (reply.status, found["param"], found["code"]) == (bad.status, bad.param, bad.code), found
    assert reply.headers["x-request-id"].startswith("req_")
    assert int(reply.headers["openai-processing-ms"]) >= 0
    assert reply.headers["content-type"] == "application/json"
    assert len(reply.body) < 2000, "an error that repeats what it was sent"
