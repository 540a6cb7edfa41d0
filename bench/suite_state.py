"""What it costs to keep every event, to read a stream again, and to have a client that is slow.

All of it over the scripted engine. Streams that are stored are measured in turn with the same
streams that are not; times to the first event are those of a client that was cut off and comes
back, while the response still runs, after it has ended, and after a restart of the server.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.arithmetic import Aim, Row, median, quantile, ratios
from bench.load import Plan
from bench.processes import Served, on_cores, ouzel
from bench.scripted import BURST, Ask, Reply, write_script
from bench.streamed import Caller
from bench.suite import Bench, Broken, Loaded, load, whole

CORES = 2
CONTEXT = 200_000
FRAME = 8
"""Events of a stream of one message beside its deltas."""

FLOOD = Reply("flood", 3000)
FLOW = Reply("flow", 1000, 0.001)
HELD = Reply("held", 4993, pause=86_400)
"""A response that has said all of its 5,000 events but the last ones, and does not end."""
ENDED = Reply("ended", 4992, 0.001)
"""5,000 events that were stored as they came, one or a few at a time."""
TORRENT = Reply("torrent", 30_000)
"""More than fits between the server and a client that does not read."""

RESUME_WITHIN = 30.0
"""Milliseconds to the first event of a stream of 5,000 that is read again."""


@dataclass(frozen=True)
class _Load:
    name: str
    reply: Reply
    clients: int
    each: int


# Paced ones with time to spare, and so many that the server is the limit.
_LOADS = (
    _Load("deltas at once", FLOOD, 8, 4),
    _Load("deltas 1 ms apart", FLOW, 48, 2),
    _Load("deltas 1 ms apart", FLOW, 160, 1),
)


def measure(bench: Bench) -> list[Row]:
    """Rows for the log's cost, for reading again, and for what a slow reader costs others.

    Raises:
        Broken: a reply was wrong.
        ServerFailed: a server did not come up.
    """
    with ExitStack() as stack:
        stack.enter_context(on_cores(CORES))
        replies = (FLOOD, FLOW, HELD, ENDED, TORRENT, BURST)
        script = write_script(bench.scratch / "bench.toml", replies, CONTEXT)
        home = bench.scratch / "home"
        with _server(home, script) as served:
            rows = [_log_cost(bench, each, served) for each in _LOADS]
            rows += _slow_reader(bench, served)
        return rows + _resuming(bench, bench.scratch / "again", script)


@contextmanager
def _server(home: Path, script: Path) -> Iterator[Served]:
    with ouzel(home, "--script", str(script), "--answer-within", "0") as served:
        yield served


def _log_cost(bench: Bench, what: _Load, served: Served) -> Row:
    rounds = 2 if bench.quick else 7
    plain: list[Loaded] = []
    stored: list[Loaded] = []
    for number in range(rounds):
        bench.tell(f"{what.name}: pair {number + 1} of {rounds}")
        # Each comes first as often as the other.
        order = [(plain, False), (stored, True)][:: 1 if number % 2 else -1]
        for kept, store in order:
            ask = Ask("stream", what.reply, store=store)
            each = 1 if bench.quick else what.each
            plan = Plan([ask.target(served)], what.clients, requests=each)
            kept.append(whole(load(served, plan), what.name))
    events = what.reply.words + FRAME
    mine, theirs = ([each.outcome.rate * events for each in kept] for kept in (stored, plain))
    shares = ratios(mine, theirs)
    cpu = [median([each.server_ms for each in kept]) * 1000 / events for kept in (stored, plain)]
    return Row(
        f"Events of {what.clients} stored streams of {what.reply.words} {what.name}, share of "
        "`store: false`",
        median(shares),
        "",
        Aim(">=", 0.95),
        note=f"{rounds} pairs, {min(shares):.3f} to {max(shares):.3f}, quartiles "
        f"{quantile(shares, 0.25):.3f} and {quantile(shares, 0.75):.3f}; {median(mine):,.0f} and "
        f"{median(theirs):,.0f} events/s; server {cpu[0]:.1f} and {cpu[1]:.1f} µs CPU an event; "
        f"neighbours {median([each.neighbours for each in stored + plain]):.1f} cores",
        samples=tuple(shares),
    )


# Reading again.


def _resuming(bench: Bench, home: Path, script: Path) -> list[Row]:
    times = 20 if bench.quick else 200
    rows: list[Row] = []
    with _server(home, script) as served:
        bench.tell("reading again")
        ended = _made(served, Ask("plain", ENDED, store=True))
        with _running(served, HELD) as held:
            rows += _first_events(bench, served, held, "while it runs", times)
        rows += _first_events(bench, served, ended, "after its end", times)
    with _server(home, script) as served:
        rows += _first_events(bench, served, ended, "after a restart", times)
    return rows


def _first_events(
    bench: Bench, served: Served, response_id: str, when: str, times: int
) -> list[Row]:
    rows = []
    for after in (4990, 0):
        bench.tell(f"reading again {when}, after event {after}")
        taken = asyncio.run(_again(served, response_id, after, times))
        rows.append(
            Row(
                f"Stream of 5,000 events read again {when}, after event {after}: first event",
                median(taken),
                "ms",
                Aim("<=", RESUME_WITHIN),
                note=f"{times} times, 99th percentile {quantile(taken, 0.99):.1f}, most "
                f"{max(taken):.1f}",
                samples=tuple(taken),
            )
        )
    return rows


async def _again(served: Served, response_id: str, after: int, times: int) -> list[float]:
    """Milliseconds to the first event, each time on a connection that stands already."""
    path = f"/v1/responses/{response_id}?stream=true&starting_after={after}"
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    taken: list[float] = []
    for _ in range(times):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=2**20)
        try:
            began = time.perf_counter()
            writer.write(request)
            async with asyncio.timeout(30):
                await reader.readuntil(b"data: ")
                taken.append((time.perf_counter() - began) * 1000)
                event = json.loads(await reader.readuntil(b"\n\n"))
        finally:
            writer.close()
        if event["sequence_number"] != after + 1:
            raise Broken(f"after event {after} came {event['sequence_number']}")
    return taken


def _made(served: Served, ask: Ask) -> str:
    """The id of a response that has ended and has 5,000 events."""
    made = asyncio.run(Caller(f"{served.url}/v1").whole("/responses", json.loads(ask.body)))
    return str(made["id"])


@contextmanager
def _running(served: Served, reply: Reply) -> Iterator[str]:
    """The id of a stored stream that has said all it has to say, and goes on; read meanwhile."""
    stream = _Reader(served, Ask("stream", reply, store=True), lambda: None)
    with stream:
        stream.wait_for(b'"sequence_number":4990,')
        yield stream.response_id


# A client that hardly reads.


def _slow_reader(bench: Bench, served: Served) -> list[Row]:
    rounds, seconds = (2, 1.0) if bench.quick else (7, 3.0)
    ask = Ask("stream", BURST, store=True)
    plan = Plan([ask.target(served)], 16, seconds=seconds, warm_up=0.5)
    alone: list[float] = []
    beside: list[float] = []
    for number in range(rounds):
        bench.tell(f"beside a slow reader: pair {number + 1} of {rounds}")
        alone.append(whole(load(served, plan), "alone").outcome.rate)
        with _Reader(served, Ask("stream", TORRENT, store=True), lambda: time.sleep(1), 1) as slow:
            slow.wait_for(b"response.created")
            beside.append(whole(load(served, plan), "beside a slow reader").outcome.rate)
    shares = ratios(beside, alone)
    return [
        Row(
            "Streams of 50 deltas beside a client that reads one byte a second, share of without",
            median(shares),
            "",
            Aim(">=", 0.95),
            note=f"{rounds} pairs, {min(shares):.3f} to {max(shares):.3f}; {median(beside):,.0f} "
            f"and {median(alone):,.0f} streams/s of 16 clients; its own stream has "
            f"{TORRENT.words} deltas",
            samples=tuple(shares),
        )
    ]


class _Reader:
    """Reads a stream in a thread of its own, in its own way, until the block ends.

    Args:
        pause: called after each read, once the response has an id.
        size: bytes that it reads at most, then.
    """

    def __init__(
        self, served: Served, ask: Ask, pause: Callable[[], None], size: int = 65536
    ) -> None:
        self._request = ask.target(served).request()
        self._port = served.port
        self._pause, self._size = pause, size
        self._heard = b""
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read)

    @property
    def response_id(self) -> str:
        """Of the response that it reads."""
        return self._heard.partition(b'"id":"')[2].partition(b'"')[0].decode()

    def __enter__(self) -> _Reader:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.settimeout(1)
        self._socket.sendall(self._request)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._left.set()
        self._thread.join()
        self._socket.close()

    def wait_for(self, mark: bytes) -> None:
        """Return when this was read. Raises Broken."""
        deadline = time.monotonic() + 60
        while mark not in self._heard:
            if time.monotonic() > deadline:
                raise Broken(f"{mark!r} did not come; the end is {self._heard[-200:]!r}")
            time.sleep(0.01)

    def _read(self) -> None:
        while not self._left.is_set():
            named = b"response.created" in self._heard
            try:
                self._heard += self._socket.recv(self._size if named else 4096)
            except TimeoutError:
                continue
            if named:
                self._pause()
