"""Real `ouzel serve` processes: killed, told to stop, told twice, started where one is already."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hostile_kit import connect, exchange, read_reply, request

from ouzel.core.events import Delta
from ouzel.store import open_store
from served import Served, served
from wire import checks

RESPONSES = "/v1/responses"
SCRIPT = """
context_window = 100000

[[reply]]
match = "quick"
steps = [{ say = "You said: {input}" }]

[[reply]]
match = "huge"
steps = [{ say = "REPEATED", repeat = 400 }, { pause = 60 }]

[[reply]]
steps = [{ say = "word ", repeat = 20000, delay = 0.002 }]
""".replace("REPEATED", "w" * 24_999 + " ")


@pytest.fixture
def flags(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    return ("--script", str(script), "--shutdown-grace", "5")


def port(server: Served) -> int:
    return int(server.url.removesuffix("/v1").rpartition(":")[2])


def ask(text: str, **more: Any) -> bytes:
    return request(RESPONSES, {"model": "o4-mini", "input": text, **more})


def get(server: Served, response_id: str) -> dict[str, Any]:
    reply = exchange(port(server), request(f"{RESPONSES}/{response_id}", method="GET"), "GET")
    assert reply.status == 200, reply.body
    return checks.check_response(reply.body)


class Listener(threading.Thread):
    """Reads one stream, however it ends.

    Attributes:
        heard: the events' bytes so far.
        whole: whether the answer came to its proper end.
    """

    def __init__(self, server: Served, text: str) -> None:
        super().__init__()
        self._client = connect(port(server))
        self._client.sendall(ask(text, stream=True))
        self.heard = bytearray()
        self.whole = False
        self.start()

    def run(self) -> None:
        import http.client

        response = http.client.HTTPResponse(self._client)
        response.begin()
        with self._client:
            try:
                while piece := response.read1(65536):
                    self.heard += piece
                self.whole = True
            except (http.client.IncompleteRead, ConnectionError):
                return

    def wait_for(self, needle: bytes) -> None:
        deadline = time.monotonic() + 20
        while needle not in self.heard:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    @property
    def response_id(self) -> str:
        return bytes(self.heard).split(b'"id":"')[1].split(b'"')[0].decode()

    def text(self) -> str:
        """All deltas of which the event came whole."""
        events = bytes(self.heard).rpartition(b"\n\n")[0].split(b"\n\n")
        data = [json.loads(event.partition(b"data: ")[2]) for event in events]
        return "".join(event["delta"] for event in data if "delta" in event)


def stored_text(home: Path, response_id: str) -> str:
    """All deltas that are in the store, looked at without a server."""

    async def look() -> str:
        store = open_store(home / "ouzel.db")
        try:
            events = await store.events(response_id, "local")
        finally:
            await store.close()
        return "".join(event.text for event in events if isinstance(event, Delta))

    return asyncio.run(look())


def test_killed_under_streams_it_forgets_nothing_it_has_told(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    with served(home, *flags) as server:
        replies = [exchange(port(server), ask(f"quick {n}", stream=True)) for n in range(4)]
        finished = [checks.check_response_stream(reply.body).response for reply in replies]
        listeners = [Listener(server, f"go on {n}") for n in range(8)]
        for number, listener in enumerate(listeners):
            listener.wait_for(b"output_text.delta")
            time.sleep(0.01 * number)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        for listener in listeners:
            listener.join(10)
            assert not listener.whole
    for listener in listeners:
        heard = listener.text()
        assert heard
        assert stored_text(home, listener.response_id).startswith(heard)
    with served(home, *flags) as server:
        assert "8 interrupted responses" in server.log.read_text()
        for final in finished:
            assert get(server, final["id"]) == final
        for listener in listeners:
            lost = get(server, listener.response_id)
            assert (lost["status"], lost["error"]["code"]) == ("failed", "server_error")
        again = ask("quick, go on", previous_response_id=finished[0]["id"])
        reply = exchange(port(server), again)
        assert checks.check_response(reply.body)["status"] == "completed"


def test_told_to_stop_it_ends_every_stream_and_then_itself(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    with served(home, *flags) as server:
        listeners = [Listener(server, f"go on {n}") for n in range(8)]
        plain = ThreadPoolExecutor(1).submit(exchange, port(server), ask("go on"))
        for listener in listeners:
            listener.wait_for(b"output_text.delta")
        # These have nothing under way, so nobody waits for them.
        idle, used, half = (connect(port(server)) for _ in range(3))
        used.sendall(ask("quick"))
        assert read_reply(used).status == 200
        half.sendall(b"POST /v1/responses HTTP/1.1\r\n")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5
        for client in (idle, used, half):
            client.close()
        for listener in listeners:
            listener.join(10)
            assert listener.whole
        reply = plain.result(10)
        log = server.log.read_text()
    finals = [checks.check_response_stream(bytes(each.heard)).response for each in listeners]
    assert [final["status"] for final in finals] == ["failed"] * 8
    error = checks.check_error(reply.body)["error"]
    assert (reply.status, error["code"]) == (503, "server_shutting_down")
    assert "Ouzel has stopped" in log
    assert "Traceback" not in log
    assert " ERROR " not in log
    with served(home, *flags) as server:
        assert "interrupted" not in server.log.read_text(), (
            "their end was stored before it was told"
        )
        for final in finals:
            assert get(server, final["id"]) == final


def test_told_twice_it_waits_for_nobody(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with served(tmp_path / "home", *flags, "--shutdown-grace", "60") as server:
        # Somebody who does not read holds up the first Ctrl-C.
        client = connect(port(server), receive=4096)
        client.sendall(ask("huge", stream=True, store=False))
        assert client.recv(100)
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1.5)
        began = time.monotonic()
        code = server.stop(signal.SIGINT)
        assert time.monotonic() - began < 10
        client.close()
        assert code in (0, 130)
        assert "Traceback" not in server.log.read_text()


def test_who_does_not_read_holds_it_up_for_the_grace_only(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    with served(home, *flags, "--shutdown-grace", "1") as server:
        client = connect(port(server), receive=4096)
        client.sendall(ask("huge", stream=True))
        head = b""
        while b"in_progress" not in head:
            head += client.recv(1024)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        client.close()
        assert "Traceback" not in server.log.read_text()
    response_id = head.split(b'"id":"')[1].split(b'"')[0].decode()

    async def status() -> str:
        store = open_store(home / "ouzel.db")
        try:
            return (await store.load(response_id, "local")).status
        finally:
            await store.close()

    assert asyncio.run(status()) == "failed", "it was stored before the store was closed"


def start(home: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    command = [sys.executable, "-m", "ouzel.cli", "serve", *flags]
    return subprocess.run(
        [*command, "--home", str(home)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_server_on_the_same_home_leaves_the_first_alone(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    with served(home, *flags) as server:
        listener = Listener(server, "go on")
        listener.wait_for(b"output_text.delta")
        second = start(home, *flags, "--port", "0")
        assert second.returncode == 1
        assert f"Another Ouzel is serving from {home}" in second.stderr.replace("\n", " ")
        assert "Traceback" not in second.stderr
        assert get(server, listener.response_id)["status"] == "in_progress"
        exchange(port(server), request(f"{RESPONSES}/{listener.response_id}/cancel"))
        listener.join(10)
        final = checks.check_response_stream(bytes(listener.heard)).response
        assert final["status"] == "cancelled"
        assert server.stop() == 0
    with served(home, *flags) as server:
        assert get(server, listener.response_id) == final


def test_a_port_in_use_is_said_and_another_is_asked_for(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        done = start(tmp_path / "home", *flags, "--port", str(number))
    assert done.returncode == 1
    assert f"Port {number} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_is_none_is_said(tmp_path: Path, flags: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = start(file, *flags, "--port", "0")
    assert done.returncode == 1
    assert str(file) in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
