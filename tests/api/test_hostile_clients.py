"""Clients that do not read, do not send, leave at any moment, or all do so at once.

Each talks over a plain socket. After each the server is at rest: no run, no admission, no engine
turn and no task is left, and it answers the next one.
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from hostile_kit import Background, background, connect, exchange, read_reply, request, reset

from ouzel.api import connection, endpoints
from ouzel.engines.scripted import Pause, Reply, Say, Script, ScriptedEngine
from wire import checks

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
BIG_WORDS = 10_000
SCRIPT = Script(
    (
        Reply((Say("word " * BIG_WORDS),), match="big"),
        Reply((Say(("w" * 24_999 + " ") * 400),), match="huge"),
        Reply((Say("one two"), Pause(60), Say("never")), match="hang"),
        Reply((Pause(60),), match="silent"),
        Reply((Say("a b c d e f", delay=0.005),), match="slow"),
        Reply((Say("You said: {input}"),)),
    ),
    context_window=BIG_WORDS + 1000,
)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with background(ScriptedEngine(SCRIPT), tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def server(started: Background, caplog: pytest.LogCaptureFixture) -> Iterator[Background]:
    """The one server, at rest before and after."""
    started.running.engine.cancelled = 0
    yield started
    started.at_rest()
    reply = exchange(started.port, ask("still there?"))
    assert checks.check_response(reply.body)["status"] == "completed"
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert loud == [], "clients as these are no errors of the server's"


def ask(text: str, **more: Any) -> bytes:
    return request(RESPONSES, {"model": "o4-mini", "input": text, **more})


def tell(text: str, **more: Any) -> bytes:
    message = {"role": "user", "content": text}
    return request(CHAT, {"model": "o4-mini", "messages": [message], **more})


def begin(
    server: Background, data: bytes, until: bytes, **more: Any
) -> tuple[socket.socket, bytes]:
    """Send a request and read until these bytes have come; nothing is read of an empty answer."""
    client = connect(server.port, **more)
    client.sendall(data)
    heard = b""
    while until not in heard:
        piece = client.recv(4096)
        assert piece, heard
        heard += piece
    return client, heard


def wait_for_turns(server: Background, turns: int) -> None:
    deadline = time.monotonic() + 15
    while server.running.engine.active != turns:
        assert time.monotonic() < deadline, server.running.engine.active
        time.sleep(0.005)


def closed(client: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    heard = b""
    try:
        while piece := client.recv(65536):
            heard += piece
    except ConnectionResetError:
        pass
    client.close()
    return heard


# Those that do not read.


def test_slow_readers_hold_up_nobody_and_get_everything(server: Background) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    started = [
        begin(server, ask("big", stream=True, store=n % 2 == 0), b"event: ", receive=65536)
        for n in range(6)
    ]
    # The engine is free again although nobody has read what it said.
    wait_for_turns(server, 0)
    for number in range(20):
        began = time.monotonic()
        reply = exchange(server.port, ask(f"n{number}"))
        assert reply.status == 200
        assert time.monotonic() - began < 5
    grown = process.memory_info().rss - before
    assert grown < 6 * BIG_WORDS * 600, f"{grown >> 20} MiB for six readers"
    for client, head in started:
        transcript = checks.check_response_stream(rest_of_stream(client, head))
        assert transcript.text.count("word") == BIG_WORDS


def rest_of_stream(client: socket.socket, head: bytes) -> bytes:
    """The body of a chunked answer whose first bytes were read."""
    heard = bytearray(head)
    while not heard.endswith(b"\r\n0\r\n\r\n"):
        piece = client.recv(1 << 16)
        assert piece, heard[-100:]
        heard += piece
    client.close()
    return unchunked(bytes(heard).partition(b"\r\n\r\n")[2])


def unchunked(data: bytes) -> bytes:
    """A body without the framing of its chunks."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        start, at = end + 2, end + 2 + int(data[at:end], 16)
        pieces.append(data[start:at])
        at += 2
    return b"".join(pieces)


@pytest.mark.parametrize("stream", [True, False])
def test_who_never_reads_is_gone_after_a_while(
    server: Background, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(connection, "READ_WITHIN", 0.3)
    data = ask("huge", stream=stream, store=False)
    client, heard = begin(server, data, b"HTTP/1.1 200", receive=65536)
    server.at_rest()
    time.sleep(0.5)
    # What was on its way still comes, but not all of it: the server has broken it off.
    heard += closed(client)
    assert len(heard) < 10_000_000


# Those that do not send.


@pytest.mark.parametrize("trickle", [b"", b"G", b"\r\n", b"GET / HTTP/1.1\r\nx: y\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(
    server: Background, monkeypatch: pytest.MonkeyPatch, trickle: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN", 0.3)
    with connect(server.port) as client:
        began = time.monotonic()
        client.sendall(trickle)
        heard = client.recv(4096)
        assert time.monotonic() - began < 5
    assert heard == b"" or heard.startswith(b"HTTP/1.1 408 ")


def test_a_head_that_comes_byte_by_byte_is_not_waited_for_either(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN", 0.3)
    with connect(server.port) as client:
        client.sendall(ask("first"))
        assert read_reply(client).status == 200
        for byte in b"GET /v1/models HTTP/1.1\r\n" + b"x: y\r\n" * 20:
            time.sleep(0.02)
            try:
                client.sendall(bytes([byte]))
            except ConnectionError:
                break
        else:
            raise AssertionError("it was waited for")


def test_a_body_that_trickles_in_is_given_up(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_BODY_WITHIN", 0.3)
    with connect(server.port) as client:
        client.sendall(ask("hi")[:-10])
        time.sleep(0.1)
        client.sendall(b"x")
        reply = read_reply(client)
        assert checks.check_error(reply.body)["error"]["code"] == "request_timeout"
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert client.recv(100) == b""


def test_the_rest_of_a_refused_body_is_not_taken_for_ever(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN", 0.3)
    with connect(server.port) as client:
        client.sendall(request(RESPONSES, b"", "content-length: 99999999"))
        assert read_reply(client).status == 413
        with pytest.raises(ConnectionError):  # noqa: PT012  (it ends when the server closes)
            for _ in range(300):
                client.sendall(b"x" * 100)
                time.sleep(0.02)


# Those that leave.


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
@pytest.mark.parametrize(
    ("data", "turns"),
    [
        (ask("hang", stream=True), 1),
        (ask("hang"), 1),
        (ask("silent", stream=True), 1),
        (tell("hang", stream=True, n=3), 3),
        (tell("hang", n=3), 3),
        (tell("silent", stream=True), 1),
    ],
    ids=["stream", "plain", "silent", "chat stream", "chat", "chat silent"],
)
def test_who_leaves_frees_everything(
    server: Background, leave: Any, data: bytes, turns: int
) -> None:
    client = connect(server.port)
    client.sendall(data)
    wait_for_turns(server, turns)
    leave(client)
    wait_for_turns(server, 0)
    server.at_rest()
    assert server.running.engine.cancelled == turns


def test_what_was_left_is_kept_as_cancelled(server: Background) -> None:
    client, head = begin(server, ask("hang", stream=True), b"output_text.delta")
    response_id = head.split(b'"id":"')[1].split(b'"')[0].decode()
    reset(client)
    server.at_rest()
    reply = exchange(server.port, request(f"{RESPONSES}/{response_id}", method="GET"), "GET")
    kept = checks.check_response(reply.body)
    assert kept["status"] == "cancelled"
    assert kept["output"][0]["content"][0]["text"] == "one two"


@pytest.mark.parametrize("data", [ask("hang", stream=True), ask("hang")])
def test_half_a_close_is_a_whole_one(server: Background, data: bytes) -> None:
    """The end of what a client sends cannot be told from its going away, so it counts as that."""
    client = connect(server.port)
    client.sendall(data)
    wait_for_turns(server, 1)
    client.shutdown(socket.SHUT_WR)
    wait_for_turns(server, 0)
    closed(client)


def test_leaving_while_a_pipelined_request_waits_frees_the_one_that_runs(
    server: Background,
) -> None:
    client = connect(server.port)
    client.sendall(ask("hang") + ask("next"))
    wait_for_turns(server, 1)
    reset(client)
    wait_for_turns(server, 0)
    assert server.running.engine.cancelled == 1


# Odd, but within their rights.


def test_pipelined_requests_are_answered_in_order(server: Background) -> None:
    with connect(server.port) as client:
        client.sendall(
            ask("slow one", stream=True)
            + ask("two")
            + tell("slow three", stream=True)
            + ask("four")
        )
        first = http.client.HTTPResponse(client)
        first.begin()
        assert first.getheader("content-type", "").startswith("text/event-stream")
        # One reader for all four: the library reads ahead, so bytes are split by hand.
        rest = first.fp.read1(10**6) if first.fp else b""
        while rest.count(b"HTTP/1.1 200 OK") < 3 or not rest.endswith(b"}"):
            rest += client.recv(65536)
    chunks, two, three, four = rest.split(b"HTTP/1.1 200 OK")
    checks.check_response_stream(unchunked(chunks))
    assert b"You said: two" in two
    checks.check_chat_stream(unchunked(three.partition(b"\r\n\r\n")[2]))
    assert b"You said: four" in four


@pytest.mark.parametrize("noise", [b"\x00\xff not HTTP\r\n\r\n", b"x" * 200_000])
def test_noise_after_the_body_ends_the_stream_and_is_no_part_of_it(
    server: Background, noise: bytes
) -> None:
    client, head = begin(server, ask("hang", stream=True), b"output_text.delta")
    client.sendall(noise)
    heard = head + closed(client)
    assert heard.count(b"HTTP/1.1") == 1
    server.at_rest()
    assert server.running.engine.cancelled == 1


@pytest.mark.parametrize("data", [ask("slow", stream=True), tell("slow", stream=True)])
def test_http_1_0_gets_its_stream_without_chunks(server: Background, data: bytes) -> None:
    client = connect(server.port)
    client.sendall(data.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    head, _, body = closed(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    check = checks.check_response_stream if b"/responses" in data else checks.check_chat_stream
    check(body)


# All at once.


def test_a_hundred_streams_at_once(server: Background) -> None:
    transcripts: list[Any] = []

    def stream(number: int) -> None:
        data = ask(f"slow {number}", stream=True, store=number % 2 == 0)
        transcripts.append(checks.check_response_stream(exchange(server.port, data).body))

    at_once(stream, 100)
    assert [each.response["status"] for each in transcripts] == ["completed"] * 100
    assert len({each.response["id"] for each in transcripts}) == 100


def test_eight_clients_that_do_everything_at_once(server: Background) -> None:
    def behave(number: int) -> None:
        dice = random.Random(number)
        for _ in range(25):
            dice.choice([plain, stream, choices, leave, cancel, forget, nonsense])(dice)

    def plain(dice: random.Random) -> None:
        reply = exchange(server.port, ask("hi", store=dice.random() < 0.5))
        assert checks.check_response(reply.body)["status"] == "completed"

    def stream(dice: random.Random) -> None:
        data = ask("slow", stream=True, store=dice.random() < 0.5)
        checks.check_response_stream(exchange(server.port, data).body)

    def choices(dice: random.Random) -> None:
        reply = exchange(server.port, tell("slow", n=dice.randint(2, 4), stream=True))
        checks.check_chat_stream(reply.body)

    def leave(dice: random.Random) -> None:
        client = connect(server.port)
        client.sendall(dice.choice([ask("hang", stream=True), ask("hang"), tell("hang", n=2)]))
        time.sleep(dice.random() * 0.02)
        dice.choice([reset, socket.socket.close])(client)

    def cancel(dice: random.Random) -> None:
        client, head = begin(server, ask("hang", stream=True), b"response.created")
        path = f"{RESPONSES}/{id_in(head)}/cancel"
        reply = exchange(server.port, request(path))
        assert checks.check_response(reply.body)["status"] == "cancelled"
        checks.check_response_stream(rest_of_stream(client, head))

    def forget(dice: random.Random) -> None:
        made = json.loads(exchange(server.port, ask("hi")).body)
        path = f"{RESPONSES}/{made['id']}"
        assert exchange(server.port, request(path, method="DELETE")).status == 200
        assert exchange(server.port, request(path, method="GET"), "GET").status == 404

    def nonsense(dice: random.Random) -> None:
        assert exchange(server.port, request(RESPONSES, dice.randbytes(100))).status == 400

    at_once(behave, 8)


def id_in(head: bytes) -> str:
    return head.split(b'"id":"')[1].split(b'"')[0].decode()


def at_once(work: Any, times: int) -> None:
    """Run `work(0)`, `work(1)`, … in a thread each, and raise what any of them raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
