"""Drills of the whole product: whatever is killed, closed or hung while code runs, every answer
ends properly, nothing is left running, and no file is lost."""

from __future__ import annotations

import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from code_server import CodeServer, calls, coding, logs, new_home, to_the_end, until

MARK = f"86399.{secrets.randbelow(10**9)}"
"""Seconds for which a child of a cell sleeps: no other process of the machine has this argument."""

PREPARE = """
kept = 5
with open("kept.txt", "w") as file:
    file.write("hello")
with open("long.bin", "wb") as file:
    file.write(bytes(range(256)) * 1000)
print(kept)
"""
HANG = f"""
import subprocess
subprocess.Popen(["sleep", "{MARK}"])
print("begun", flush=True)
while True:
    pass
"""
PROGRAMS = {"prepare": PREPARE, "hang": HANG, "again": "print('again', kept)\n"}
PROGRAMS["reread"] = "print(globals().get('kept'), open('kept.txt').read())\n"
FILES = {"/mnt/data/kept.txt": b"hello", "/mnt/data/long.bin": bytes(range(256)) * 1000}


@pytest.fixture(scope="module")
def shared() -> Iterator[CodeServer]:
    with new_home() as home, coding(home, PROGRAMS, MARK) as server:
        yield server
        assert "Traceback" not in server.server.log.read_text()


def prepared(server: CodeServer) -> str:
    """A container in which a cell has left a variable and files."""
    response = server.ask("prepare")
    (call,) = calls(response)
    assert (call.status, logs(call)) == ("completed", "5\n")
    assert response.output_text == "Told: nothing."
    assert server.files(call.container_id) == FILES
    return str(call.container_id)


def hanging(server: CodeServer, container: str, **more: Any) -> tuple[Any, str, psutil.Process]:
    """A stream in the middle of a cell, its response's id, and a process of the cell's."""
    stream = server.ask("hang", container, stream=True, **more)
    response_id = ""
    for event in stream:
        if event.type == "response.created":
            response_id = event.response.id
        if event.type == "response.code_interpreter_call.interpreting":
            break
    return stream, response_id, server.wait_for_mark()


def outermost(server: CodeServer, process: psutil.Process) -> psutil.Process:
    """The process of a sandbox that is the server's own child."""
    above = [process, *process.parents()]
    return next(each for each in above if each.ppid() == server.server.process.pid)


@pytest.mark.parametrize("which", ["kernel", "sandbox"])
def test_a_killed_interpreter_ends_its_cell_and_is_replaced(shared: CodeServer, which: str) -> None:
    container = prepared(shared)
    stream, _, child = hanging(shared, container)
    kernel = child.parent()
    assert kernel is not None
    (kernel if which == "kernel" else outermost(shared, child)).kill()
    response = to_the_end(stream)
    assert response.status == "completed"
    died, again = calls(response)
    assert died.status == "incomplete"
    assert logs(died).startswith("begun\n")
    assert logs(again) == "again None hello\n"
    assert response.output_text == "Told: died, anew.", "the model was told"
    assert [call.container_id for call in (died, again)] == [container] * 2
    until(lambda: not shared.marked(), shared.marked)
    after = shared.ask("reread", container)
    assert logs(calls(after)[0]) == "None hello\n"
    assert shared.files(container) == FILES


def test_a_client_that_leaves_stops_its_cell_and_no_more(shared: CodeServer) -> None:
    container = prepared(shared)
    stream, response_id, child = hanging(shared, container)
    kernel = child.parent()
    assert kernel is not None
    stream.close()
    # It waits in line until the last cell has ended, and finds its interpreter.
    after = shared.ask("reread", container)
    assert logs(calls(after)[0]) == "5 hello\n"
    assert kernel.is_running()
    until(lambda: shared.client.responses.retrieve(response_id).status != "in_progress")
    kept = shared.client.responses.retrieve(response_id)
    assert kept.status in ("cancelled", "incomplete", "failed")
    child.kill()


def test_a_hung_cell_is_interrupted_in_time_and_its_interpreter_kept(shared: CodeServer) -> None:
    container = prepared(shared)
    began = time.monotonic()
    stream, _, child = hanging(shared, container, within=15)
    response = to_the_end(stream)
    # The bound that was asked for, and as much again for a machine that has other work.
    assert time.monotonic() - began < 30
    assert response.status == "completed"
    assert response.output_text == "Told: stopped."
    hung, again = calls(response)
    assert hung.status == "incomplete"
    assert "it ran longer than" in logs(hung)
    assert logs(again) == "again 5 hello\n"
    child.kill()


def test_killed_in_mid_cell_the_server_leaves_nothing_running_and_finds_all_again() -> None:
    with new_home() as home:
        with coding(home, PROGRAMS, MARK) as server:
            container = prepared(server)
            stream, response_id, _ = hanging(server, container)
            server.server.stop(signal.SIGKILL)
            with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
                list(stream)
            until(lambda: not server.left(), server.left)
            folders = f"ouzel-{server.server.process.pid}-*"
            assert list(Path(tempfile.gettempdir()).glob(folders)), "nobody could tidy up"
        with coding(home, PROGRAMS, MARK) as server:
            assert not list(Path(tempfile.gettempdir()).glob(folders))
            lost = server.client.responses.retrieve(response_id)
            assert lost.status == "failed"
            assert lost.error is not None
            assert server.client.containers.retrieve(container).status == "running"
            assert server.files(container) == FILES
            response = server.ask("reread", container)
            assert logs(calls(response)[0]) == "None hello\n"
            assert response.output_text == "Told: anew."
            assert server.server.stop() == 0


def test_told_to_stop_in_mid_cell_it_ends_the_stream_and_all_code() -> None:
    with new_home() as home, coding(home, PROGRAMS, MARK) as server:
        container = prepared(server)
        stream, response_id, _ = hanging(server, container)
        server.server.process.send_signal(signal.SIGTERM)
        response = to_the_end(stream)
        assert (response.id, response.status) == (response_id, "failed")
        assert server.server.process.wait(60) == 0
        assert server.left() == []
        log = server.server.log.read_text()
        assert "Traceback" not in log
        assert " ERROR " not in log
