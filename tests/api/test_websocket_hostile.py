"""WebSockets of clients without manners, over plain sockets and the event loop of `ouzel serve`.

After each the server is at rest, has logged no error, and answers the next one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from hostile_kit import Background, background, connect, exchange, read_reply, request, reset
from hostile_kit import Reply as Answered
from websockets.frames import Close, Frame, Opcode

from ouzel.api import connection, websocket_connection
from ouzel.api.app import ApiSettings
from ouzel.engines.scripted import Pause, Reply, Say, Script, ScriptedEngine
from wire import checks

PATH = "/v1/responses"
MOST = 1_000_000
BIG_WORDS = 10_000
SCRIPT = Script(
    (
        Reply((Say("word " * BIG_WORDS),), match="big"),
        Reply((Say(("w" * 24_999 + " ") * 400),), match="huge"),
        Reply((Say("one two"), Pause(60), Say("never")), match="hang"),
        Reply((Say("You said: {input}"),)),
    ),
    context_window=BIG_WORDS + 1000,
)
HANDSHAKE = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    "sec-websocket-version: 13",
)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    engine, home = ScriptedEngine(SCRIPT), tmp_path_factory.mktemp("home")
    with background(engine, home, settings=ApiSettings(max_body=MOST)) as running:
        yield running


@pytest.fixture
def server(started: Background, caplog: pytest.LogCaptureFixture) -> Iterator[Background]:
    """The one server, at rest before and after."""
    yield started
    started.at_rest()
    reply = exchange(started.port, request(PATH, {"model": "o4-mini", "input": "there?"}))
    assert checks.check_response(reply.body)["status"] == "completed"
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert loud == [], "clients as these are no errors of the server's"


def shake(*headers: str, **more: Any) -> bytes:
    return request(PATH, None, *(headers or HANDSHAKE), method="GET", **more)


class Client:
    """A WebSocket by hand."""

    def __init__(self, server: Background, **more: Any) -> None:
        self.socket = connect(server.port, **more)
        self.socket.sendall(shake())
        self._heard = b""
        head = self._until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes | str, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> None:
        raw = data.encode() if isinstance(data, str) else data
        self.socket.sendall(Frame(opcode, raw, fin).serialize(mask=True))

    def ask(self, text: str, **more: Any) -> None:
        body = {"type": "response.create", "model": "o4-mini", "input": text, "store": False}
        self.send(json.dumps(body | more))

    def frame(self) -> tuple[Opcode, bytes]:
        """The next frame of the server's."""
        head = self._exactly(2)
        size = head[1] & 127
        if size > 125:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        return Opcode(head[0] & 15), self._exactly(size)

    def event(self) -> dict[str, Any]:
        opcode, data = self.frame()
        assert opcode is Opcode.TEXT, (opcode, data)
        return json.loads(data)

    def last(self) -> dict[str, Any]:
        """The event that ends the turn."""
        while (event := self.event())["type"] not in (*checks.TERMINAL, "error"):
            pass
        return event

    def closing(self) -> tuple[int, str]:
        """The code and the reason of the close frame that comes next, after which all is over."""
        opcode, data = self.frame()
        assert opcode is Opcode.CLOSE, (opcode, data)
        with contextlib.suppress(ConnectionError):
            assert self.socket.recv(1) == b""
        close = Close.parse(data)
        return close.code, close.reason

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._heard:
            piece = self.socket.recv(65536)
            assert piece, self._heard
            self._heard += piece
        found, _, self._heard = self._heard.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._heard) < size:
            piece = self.socket.recv(65536)
            assert piece, "closed in the middle of a frame"
            self._heard += piece
        found, self._heard = self._heard[:size], self._heard[size:]
        return found


def broken(client: Client) -> None:
    """Wait until the server has broken the connection off."""
    with contextlib.suppress(ConnectionError):
        while client.socket.recv(65536):
            pass


def refused(reply: Answered, status: int, code: str) -> None:
    error = checks.check_error(reply.body)["error"]
    assert (reply.status, error["code"]) == (status, code)
    assert reply.headers["x-request-id"].startswith("req_")


# Handshakes.


def test_a_connection_that_was_used_for_http_becomes_a_socket(server: Background) -> None:
    with connect(server.port) as plain:
        plain.sendall(request("/health", None, method="GET"))
        assert read_reply(plain, "GET").status == 200
        plain.sendall(shake())
        assert plain.recv(65536).startswith(b"HTTP/1.1 101 ")


NOT_ONE = {
    "no key": (HANDSHAKE[0], HANDSHAKE[1], HANDSHAKE[3]),
    "h2c": (HANDSHAKE[0], "upgrade: h2c", *HANDSHAKE[2:]),
    "two": (HANDSHAKE[0], "upgrade: websocket, h2c", *HANDSHAKE[2:]),
    "a body": (*HANDSHAKE, "content-length: 0003"),
}


@pytest.mark.parametrize("headers", NOT_ONE.values(), ids=NOT_ONE)
def test_what_is_no_handshake_is_an_ordinary_request(
    server: Background, headers: tuple[str, ...]
) -> None:
    body = b"abc" if headers[-1].startswith("content-length") else b""
    reply = exchange(server.port, shake(*headers) + body, "GET")
    refused(reply, 405, "method_not_allowed")


def test_in_http_1_0_there_are_no_sockets(server: Background) -> None:
    refused(exchange(server.port, shake(version="1.0"), "GET"), 405, "method_not_allowed")


BAD = {
    "version": (*HANDSHAKE[:3], "sec-websocket-version: 8"),
    "no version": HANDSHAKE[:3],
    "short key": (*HANDSHAKE[:2], "sec-websocket-key: AAAA", HANDSHAKE[3]),
    "odd key": (*HANDSHAKE[:2], "sec-websocket-key: \xff\xfe", HANDSHAKE[3]),
    "two keys": (*HANDSHAKE, HANDSHAKE[2]),
    "many headers": (*HANDSHAKE, *(f"x-{n}: y" for n in range(200))),
    "a long header": (*HANDSHAKE, "x-long: " + "y" * 20_000),
}


@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
def test_a_bad_handshake_is_told_as_any_error(server: Background, headers: tuple[str, ...]) -> None:
    refused(exchange(server.port, shake(*headers), "GET"), 400, "invalid_websocket")


def test_frames_that_come_with_the_handshake_wait_for_its_answer(server: Background) -> None:
    early = Frame(Opcode.TEXT, b'{"type": "response.create"}').serialize(mask=True)
    for writes in ((shake() + early,), (shake(), early)):
        with connect(server.port) as plain:
            for data in writes:
                plain.sendall(data)
            heard = b""
            while b"missing_required_parameter" not in heard:
                piece = plain.recv(65536)
                assert piece, heard
                heard += piece
            assert heard.startswith(b"HTTP/1.1 101 ")


def test_rubbish_that_comes_with_the_handshake_ends_the_connection(server: Background) -> None:
    for _ in range(20):
        with connect(server.port) as plain:
            plain.sendall(shake())
            plain.sendall(b"\xff" * 100)
            heard = b""
            with contextlib.suppress(ConnectionError):
                while piece := plain.recv(65536):
                    heard += piece
        assert heard == b"" or heard.startswith((b"HTTP/1.1 101", b"HTTP/1.1 400")), heard


def test_clients_that_leave_during_the_handshake_leave_nothing(server: Background) -> None:
    for size in (1, 40, len(shake()) - 1, len(shake())):
        plain = connect(server.port)
        plain.sendall(shake()[:size])
        reset(plain)


# Frames.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # without a mask
        (b"\xf1\x80\0\0\0\0", 1002),  # bits that nobody has agreed on
        (b"\x83\x80\0\0\0\0", 1002),  # no such kind
        (b"\x80\x80\0\0\0\0", 1002),  # goes on with nothing
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),  # a ping that is too long
        (b"\x81\xff" + b"\xff" * 8, 1009),
        (b"\x81\xff" + (MOST + 1).to_bytes(8, "big"), 1009),
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007),
        (
            Frame(Opcode.TEXT, b"\xc3", fin=False).serialize(mask=True)
            + Frame(Opcode.CONT, b"(").serialize(mask=True),
            1007,
        ),
        (
            Frame(Opcode.TEXT, b"a", fin=False).serialize(mask=True)
            + Frame(Opcode.TEXT, b"b").serialize(mask=True),
            1002,
        ),
        (Frame(Opcode.CLOSE, b"\x00").serialize(mask=True), 1002),
    ],
)
def test_a_frame_that_is_wrong_ends_the_connection(
    server: Background, data: bytes, code: int
) -> None:
    with Client(server) as client:
        client.ask("hang")
        assert client.event()["type"] == "response.created"
        client.socket.sendall(data)
        while (frame := client.frame())[0] is not Opcode.CLOSE:
            pass
        assert Close.parse(frame[1]).code == code


def test_pieces_are_put_together_however_small(server: Background) -> None:
    body = {"type": "response.create", "model": "o4-mini", "input": "äöü 🌍"}
    data = json.dumps(body, ensure_ascii=False).encode()
    with Client(server) as client:
        client.send(b"", fin=False)
        for byte in data:
            client.send(bytes((byte,)), Opcode.CONT, fin=False)
            client.send(b"", Opcode.CONT, fin=False)
            client.send(b"between", Opcode.PING)
        client.send(b"", Opcode.CONT)
        pongs = [client.frame() for _ in data]
        assert set(pongs) == {(Opcode.PONG, b"between")}
        said = client.last()["response"]["output"][0]["content"][0]["text"]
        assert said == "You said: äöü 🌍"


def test_pieces_together_may_be_as_long_as_one_message(server: Background) -> None:
    with Client(server) as client:
        client.send(b"x" * (MOST // 2), fin=False)
        client.send(b"x" * (MOST // 2), Opcode.CONT, fin=False)
        client.send(b"x", Opcode.CONT, fin=False)
        assert client.closing()[0] == 1009


def test_very_many_small_pieces_take_no_more_room_than_what_they_hold(server: Background) -> None:
    process = psutil.Process()
    pieces = Frame(Opcode.CONT, b"xx", fin=False).serialize(mask=True) * 10_000
    with Client(server) as client:
        client.send(b"", fin=False)
        before = process.memory_info().rss
        for _ in range(45):
            client.socket.sendall(pieces)
        client.send(b"so far?", Opcode.PING)
        assert client.frame() == (Opcode.PONG, b"so far?")
        assert process.memory_info().rss - before < 12 * 2**20
        client.send(b"", Opcode.CONT)
        assert client.last()["error"]["code"] == "invalid_json"


def test_a_message_must_come_to_its_end(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_connection, "MESSAGE_WITHIN", 0.2)
    for half in (b"\x81\xfe\xff", b"\x01\x81\0\0\0\0x"):
        with Client(server) as client:
            client.socket.sendall(half)
            code, reason = client.closing()
        assert code == 1008
        assert "did not arrive" in reason
    with Client(server) as client:  # between messages there is no such clock
        time.sleep(0.3)
        client.ask("hello")
        assert client.last()["type"] == "response.completed"


def test_pings_of_a_client_that_reads_nothing_do_not_pile_up(server: Background) -> None:
    process = psutil.Process()
    pings = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 1000
    with Client(server, receive=65536) as client:
        before = process.memory_info().rss
        for _ in range(400):  # 50 MB of pongs
            client.socket.sendall(pings)
        assert process.memory_info().rss - before < 16 * 2**20
        # The last of them is answered, once somebody reads.
        client.send(b"last", Opcode.PING)
        while client.frame() != (Opcode.PONG, b"last"):
            pass


def test_pongs_that_nobody_asked_for_are_nothing(server: Background) -> None:
    with Client(server) as client:
        client.send(b"hello", Opcode.PONG)
        client.ask("hello")
        assert client.last()["type"] == "response.completed"


# Those that do not read.


def test_slow_readers_get_everything_and_hold_up_nobody(server: Background) -> None:
    with Client(server, receive=65536) as slow, Client(server) as quick:
        slow.ask("big")
        assert slow.event()["type"] == "response.created"
        for number in range(20):
            quick.ask(f"n{number}")
            assert quick.last()["type"] == "response.completed"
        words = 0
        while (event := slow.event())["type"] not in checks.TERMINAL:
            words += event["type"] == "response.output_text.delta"
        assert (event["type"], words) == ("response.completed", BIG_WORDS)


def test_who_reads_nothing_is_gone_in_the_end(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_WITHIN", 0.3)
    with Client(server, receive=4096) as client:
        client.ask("huge")
        server.at_rest()
        broken(client)


def test_who_floods_and_reads_nothing_takes_no_room(
    server: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = psutil.Process()
    flood = Frame(Opcode.TEXT, b'{"a": 1}').serialize(mask=True) * 10_000
    with Client(server) as busy, Client(server, receive=4096) as idle:
        busy.ask("hang")
        assert busy.event()["type"] == "response.created"
        before = process.memory_info().rss
        for _ in range(10):
            busy.socket.sendall(flood)
        monkeypatch.setattr(connection, "READ_WITHIN", 0.3)
        with contextlib.suppress(ConnectionError):
            while True:
                idle.socket.sendall(flood)
        assert process.memory_info().rss - before < 16 * 2**20


# Those that leave.


def test_leaving_at_any_moment_leaves_nothing(server: Background) -> None:
    for text in ("hello", "big", "hang"):
        for events in (0, 1, 3):
            client = Client(server)
            client.ask(text, store=events == 1)
            client.ask("hello")
            for _ in range(events):
                client.event()
            if events == 3:
                client.send(b"", Opcode.CLOSE)
            reset(client.socket)
    server.at_rest()


def test_half_closed_is_gone(server: Background) -> None:
    with Client(server) as client:
        client.ask("hang")
        assert client.event()["type"] == "response.created"
        client.socket.shutdown(socket.SHUT_WR)
        server.at_rest()


def test_rubbish_of_any_kind_does_no_harm(server: Background) -> None:
    for _ in range(30):
        with Client(server) as client, contextlib.suppress(ConnectionError):
            client.socket.sendall(os.urandom(3000))
            client.socket.shutdown(socket.SHUT_WR)
            broken(client)
