"""Kill drills with real processes: whatever dies in mid-cell, the cell ends, nothing is left
running, and no file is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from containers_kit import OWNER, Cell, Server, below, lives, mode_or_skip, new_home, serving, until

from ouzel.sandbox.jail import Mode

SERVER = """
import asyncio, sys
from pathlib import Path
from containers_kit import Server

async def main():
    server = Server(Path(sys.argv[1]), warm=int(sys.argv[2]), mode=sys.argv[3])
    await server.containers.start()
    box = await server.new()
    await server.put(box, "data.csv", b"1,2")
    await server.run(box, "open('before.txt', 'w').write('before')")
    async for event in server.containers.run(
        box, "alice", "open('during.txt', 'w').write('during')\\nprint('on')\\nwhile 1: pass", 600
    ):
        print(box, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    home = new_home()
    yield home
    shutil.rmtree(home)


@pytest.fixture(params=["bubblewrap", "landlock"])
def mode(request: pytest.FixtureRequest) -> Mode:
    return mode_or_skip(request.param)


async def in_mid_cell(server: Server, box: str) -> asyncio.Task[Cell]:
    code = "open('during.txt', 'w').write('during')\nwhile True: pass"
    running = asyncio.create_task(server.run(box, code, within=120))
    async with asyncio.timeout(30):
        while "during.txt" not in await server.paths(box):
            await asyncio.sleep(0.05)
    return running


def innermost(processes: list[psutil.Process]) -> psutil.Process:
    """The interpreter itself: the one that burns the processor."""
    parents = {each.ppid() for each in processes}
    (leaf,) = [each for each in processes if each.pid not in parents]
    return leaf


@pytest.mark.parametrize("victim", ["kernel", "outermost", "all"])
async def test_a_killed_sandbox_ends_the_cell(home: Path, victim: str, mode: Mode) -> None:
    async with serving(home, mode=mode) as server:
        box, other = await server.new(), await server.new()
        await server.run(other, "kept = 7")
        others = below()
        await server.put(box, "data.csv", b"1,2")
        running = await in_mid_cell(server, box)
        mine = [each for each in below() if each not in others]
        if victim == "kernel":
            innermost(mine).kill()
        elif victim == "outermost":
            next(each for each in mine if each.ppid() == os.getpid()).kill()
        else:
            for each in mine:
                each.kill()
        async with asyncio.timeout(20):
            cell = await running
        assert cell.end.status == "died"
        assert cell.end.error
        assert cell.left == ["during.txt"]
        await until(lambda: not any(lives(each) for each in mine))
        again = await server.run(box, "open('data.csv').read() + open('during.txt').read()")
        assert (again.result, again.end.fresh) == ("'1,2during'", True)
        assert (await server.run(other, "kept")).result == "7"


@pytest.mark.parametrize("warm", [0, 1])
async def test_a_killed_server_leaves_nothing_running_and_loses_no_file(
    home: Path, warm: int, mode: Mode
) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home), str(warm), mode],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    ) as server:
        assert server.stdout is not None
        box = (await asyncio.to_thread(server.stdout.readline)).decode().strip()
        started = below(server.pid)
        assert started
        server.send_signal(signal.SIGKILL)
        server.wait()
    await until(lambda: not any(lives(each) for each in started))
    async with serving(home) as again:
        assert (await again.containers.load(box, OWNER)).status == "running"
        assert await again.paths(box) == ["before.txt", "data.csv", "during.txt"]
        sources = {f.path: f.source for f in await again.containers.files(box, OWNER)}
        assert sources["data.csv"] == "user"
        assert sources["before.txt"] == "assistant"
        cell = await again.run(box, "open('before.txt').read() + open('during.txt').read()")
        assert (cell.result, cell.end.fresh) == ("'beforeduring'", True)
        assert len(list((home / "containers" / "places").iterdir())) == 1


async def test_closing_in_mid_cell_ends_it(home: Path, mode: Mode) -> None:
    async with serving(home, warm=1, mode=mode) as server:
        box = await server.new()
        running = await in_mid_cell(server, box)
        async with asyncio.timeout(20):
            await server.containers.close()
            assert (await running).end.status == "died"
    async with serving(home) as again:
        assert await again.paths(box) == ["during.txt"]
