"""The load generator: a process of its own that asks, checks every reply, and counts.

    python -m bench.load < plan.json > outcome.json

It runs closed loops: each client sends its next request when its reply is whole. It is built to
cost little, since it shares two cores with what it measures: requests are written once, replies
are parsed by httptools, and what it costs itself is part of the outcome. A reply that is wrong
does not count as a request and is told with its reason.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools
import msgspec

from bench.arithmetic import quantile
from bench.wire import Kind, fault

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `python -m bench` works."""
REPLY_WITHIN = 120.0
"""Seconds after which a reply counts as missing."""


@dataclass
class Target:
    """Where requests go and what comes back.

    Args:
        port: on loopback.
        path: of the endpoint.
        body: JSON of each request.
        kind: how replies are checked.
        text: the answer that each must hold.
        deltas: pieces in which a stream must bring it.
    """

    port: int
    path: str
    body: str
    kind: Kind
    text: str
    deltas: int = 0

    def request(self) -> bytes:
        """The bytes of one request."""
        body = self.body.encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass
class Plan:
    """What the generator shall do.

    Args:
        targets: with several, each client asks them in turn; a pair is one request to each.
        clients: how many at once, each on a connection of its own.
        seconds: how long is counted; 0 counts requests instead.
        requests: how many each client sends, where seconds is 0.
        warm_up: seconds that are not counted, before those that are.
    """

    targets: list[Target]
    clients: int
    seconds: float = 0.0
    requests: int = 0
    warm_up: float = 0.0


@dataclass
class Outcome:
    """What came of it.

    Args:
        right: replies that were whole and right, within the counted time.
        asked: all requests sent, warm-up included.
        seconds: the counted time.
        cpu: processor seconds of the generator over all it asked.
        latency: seconds from request to whole reply, for each target, in order of asking.
        first: seconds from request to the first byte, likewise.
        gap: longest silence within any reply, in seconds.
        broken: how many replies were wrong or missing.
        faults: why, the first few.
    """

    right: int = 0
    asked: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    latency: list[list[float]] = field(default_factory=list)
    first: list[list[float]] = field(default_factory=list)
    gap: float = 0.0
    broken: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Right replies a second."""
        return self.right / self.seconds if self.seconds else 0.0

    def at(self, share: float, target: int = 0) -> float:
        """This quantile of the latency, in seconds. Raises ValueError if nothing came back."""
        return quantile(self.latency[target], share)


class Connection(asyncio.Protocol):
    """One client's connection: one request at a time.

    Attributes:
        status, body: of the last reply.
        began, first, gap: when it was asked, when its first byte came, its longest silence.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.began = self.first = self.gap = 0.0
        self._last = 0.0
        self._pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[None] | None = None

    async def ask(self, request: bytes) -> None:
        """Send a request and wait for its whole reply.

        Raises:
            ConnectionError: the connection went away before that.
            TimeoutError: it took longer than REPLY_WITHIN.
        """
        if self._transport is None:
            raise ConnectionError("not connected")
        self._reply = asyncio.get_running_loop().create_future()
        self._pieces.clear()
        self.first = self.gap = 0.0
        self.began = time.perf_counter()
        self._transport.write(request)
        async with asyncio.timeout(REPLY_WITHIN):
            await self._reply

    def close(self) -> None:
        """Let the connection go."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep asyncio's promises without inheriting from its classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self.first:
            self.gap = max(self.gap, now - self._last)
        else:
            self.first = now
        self._last = now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"connection lost: {exc or 'closed by the server'}"))

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.body = b"".join(self._pieces)
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


async def connect(port: int) -> Connection:
    """A connection to loopback. Raises OSError."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(Connection, "127.0.0.1", port)
    return protocol


async def generate(plan: Plan) -> Outcome:
    """Carry the plan out."""
    outcome = Outcome(latency=[[] for _ in plan.targets], first=[[] for _ in plan.targets])
    cpu = time.process_time()
    began = time.perf_counter()
    start = began + plan.warm_up
    end = start + plan.seconds if plan.seconds else float("inf")
    async with asyncio.TaskGroup() as clients:
        for _ in range(plan.clients):
            clients.create_task(_client(plan, outcome, start, end))
    outcome.cpu = time.process_time() - cpu
    outcome.seconds = plan.seconds or time.perf_counter() - start
    return outcome


async def _client(plan: Plan, outcome: Outcome, start: float, end: float) -> None:
    requests = [target.request() for target in plan.targets]
    connections: list[Connection | None] = [None for _ in plan.targets]
    left = plan.requests
    while time.perf_counter() < end and (plan.seconds or left):
        left -= 1
        for number, target in enumerate(plan.targets):
            outcome.asked += 1
            try:
                connection = connections[number] or await connect(target.port)
                connections[number] = connection
                await connection.ask(requests[number])
                done = time.perf_counter()
                wrong = fault(
                    target.kind, connection.status, connection.body, target.text, target.deltas
                )
            except (OSError, TimeoutError) as error:
                if (lost := connections[number]) is not None:
                    lost.close()
                connections[number] = None
                wrong = f"{type(error).__name__}: {error}"
            if wrong is not None:
                outcome.broken += 1
                outcome.faults = [*outcome.faults, wrong][:5]
                # A server that refuses everything must not be asked in a tight circle.
                await asyncio.sleep(0.01)
            elif start <= done <= end:
                outcome.right += 1
                outcome.latency[number].append(done - connection.began)
                outcome.first[number].append(connection.first - connection.began)
                outcome.gap = max(outcome.gap, connection.gap)
    for open_one in connections:
        if open_one is not None:
            open_one.close()


def run(plan: Plan) -> Outcome:
    """Carry a plan out in a process of its own.

    Raises:
        RuntimeError: the generator itself failed; the message holds what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=msgspec.json.encode(plan),
        capture_output=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed:\n{done.stderr.decode(errors='replace')}")
    try:
        return msgspec.json.decode(done.stdout, type=Outcome)
    except msgspec.MsgspecError as error:
        said = f"{len(done.stdout)} bytes, and on its error output: {done.stderr[-1000:]!r}"
        raise RuntimeError(f"the load generator wrote no outcome ({error}): {said}") from error


def _main() -> None:
    import uvloop

    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(generate(plan))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    _main()
