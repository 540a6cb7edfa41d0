"""The disk runs full under a server: everyone is told, nothing is damaged, and it recovers.

The home is on a small file system of its own, and so is the server's log. This file is also the
program that runs where such a one may be mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mounts import own_mounts
from state_kit import (
    TESTS,
    Clients,
    Heard,
    at_work,
    clients,
    integrity,
    state_server,
    until,
)
from wire import checks

SIZE = "8m"
FLAGS = ("--background-at-once", "8")
LONG = "x" * 20_000


def test_a_disk_that_runs_full_is_told_and_lived_through(tmp_path: Path) -> None:
    command = own_mounts()
    if not command:
        pytest.skip("no file system can be mounted here")
    script = f"mount -t tmpfs -o size={SIZE} tmpfs {tmp_path} && exec {sys.executable} {__file__}"
    found = os.pathsep.join([str(TESTS), *sys.path])
    done = subprocess.run(
        [*command, "sh", "-c", f"{script} {tmp_path}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": found},
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of it\n")


class Ballast:
    """Takes all the room there is left."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Fill the disk, to the last byte."""
        with self._path.open("ab", buffering=0) as file:
            for size in (2**16, 2**12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def leave(self) -> None:
        """Make room."""
        self._path.unlink()


async def drill(folder: Path) -> None:
    """A server whose disk runs full twice."""
    home, ballast = folder / "home", Ballast(folder / "ballast")
    async with clients("") as who:
        with state_server(home, *FLAGS) as server:
            who.url = server.url
            before = [Heard(f"b{n} brief", background=n % 2 == 0) for n in range(6)]
            await asyncio.gather(*map(who.stream, before))
            lost: list[Heard] = []
            for turn in range(2):
                lost += await run_full(who, ballast, turn)
                ballast.leave()
                await work_again(who, turn)
            # Ends that found no room are kept as soon as there is some.
            await until(lambda: at_work(home) == 0)
            await all_there(who, before, lost)
            who.killed = True
            server.stop(signal.SIGKILL)
        assert integrity(home) == [("ok",)]
        who.killed = False
        with state_server(home, *FLAGS) as server:
            who.url = server.url
            await all_there(who, before, lost)
            await work_again(who, 2)
            assert server.stop() == 0
            assert "Traceback" not in server.log.read_text()
    assert integrity(home) == [("ok",)]
    print("all of it")


async def run_full(who: Clients, ballast: Ballast, turn: int) -> list[Heard]:
    """Responses are under way when the room is gone; what became of each."""
    running = [Heard(f"r{turn}-{n} endless", background=n % 2 == 0) for n in range(8)]
    readers = [asyncio.create_task(who.stream(heard)) for heard in running]
    await until(lambda: all(len(heard.blocks) > 10 for heard in running))
    ballast.take()
    async with asyncio.timeout(60):
        await asyncio.gather(*readers)
    for heard in running:
        final = heard.check()
        assert final["status"] == "failed"
        assert final["error"]["code"] == "server_error"
        assert "disk is full" in final["error"]["message"], final["error"]
        assert await who.retrieve(heard) == (200, final)
        await who.resume(heard, 5)
        assert await who.cancel(heard) == final
    await refused(who)
    return running


async def refused(who: Clients) -> None:
    """What would have to be stored is refused, all else goes on."""
    message = {"role": "user", "content": LONG}
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("/responses", {"input": LONG}),
        ("/responses", {"input": LONG, "stream": True}),
        ("/responses", {"input": LONG, "background": True}),
        ("/chat/completions", {"messages": [message], "store": True}),
        ("/conversations", {"items": [message]}),
    ]
    for path, body in wanted:
        body = body if path == "/conversations" else {"model": "o4-mini", **body}
        status, told = await who.call("POST", path, json=body)
        error = checks.check_error(told)["error"]
        assert (status, error["code"]) == (507, "insufficient_storage"), (path, status, told)
        assert LONG[:10] not in error["message"]
    unstored = {"model": "o4-mini", "input": "u brief", "store": False}
    status, made = await who.call("POST", "/responses", json=unstored)
    assert (status, made["status"]) == (200, "completed")


async def work_again(who: Clients, turn: int) -> None:
    """There is room: all is as it was, without a restart."""
    for n, background in enumerate((False, True)):
        heard = Heard(f"a{turn}-{n} brief", background)
        await who.stream(heard)
        assert heard.check()["status"] == "completed"
        await who.resume(heard, -1)


async def all_there(who: Clients, before: list[Heard], lost: list[Heard]) -> None:
    """What was told of each is what is there."""
    for heard in (*before, *lost):
        final = heard.check()
        assert final["status"] == ("completed" if heard in before else "failed")
        assert await who.retrieve(heard) == (200, final)
        await who.resume(heard, -1)


if __name__ == "__main__":
    asyncio.run(drill(Path(sys.argv[1])))
