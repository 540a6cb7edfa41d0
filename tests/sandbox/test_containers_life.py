"""How long containers and their interpreters live, and who gives way to whom."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from containers_kit import OWNER, Server, new_home, serving, until

from ouzel.config import Settings
from ouzel.core.errors import NotFound, ToolError
from ouzel.sandbox.container_record import Record


@pytest.fixture
def home() -> Iterator[Path]:
    home = new_home()
    yield home
    shutil.rmtree(home)


def age(server: Server, box: str, minutes: float) -> None:
    """As if it had last been used so long ago."""
    record: Record = server.containers._records[box]
    info = replace(record.info, last_active_at=time.time() - 60 * minutes)
    record.meta = replace(record.meta, info=info)
    record.unsaved = True


async def test_an_unused_container_expires(home: Path) -> None:
    async with serving(home) as server:
        box, other = await server.new(idle_minutes=5), await server.new(idle_minutes=60)
        for each in (box, other):
            await server.put(each, "a.txt", b"a")
        await server.run(box, "1")
        age(server, box, 6)
        age(server, other, 6)
        # At once, not only when somebody has looked.
        assert (await server.containers.load(box, OWNER)).status == "expired"
        with pytest.raises(NotFound):
            await server.run(box, "1")
        with pytest.raises(NotFound):
            await server.paths(box)
        await until(lambda: len(list((home / "containers" / "places").iterdir())) == 1)
        await until(lambda: server.containers.pool.live == 0)
        assert await server.paths(other) == ["a.txt"]
    async with serving(home, keep_expired_days=1) as again:
        assert (await again.containers.load(box, OWNER)).status == "expired"
        assert {each.id for each in (await again.containers.page(OWNER))[0]} == {box, other}
        age(again, box, 25 * 60)
        await until(lambda: not (home / "containers" / "containers" / box).exists())
        with pytest.raises(NotFound):
            await again.containers.load(box, OWNER)


async def test_one_that_expired_while_no_server_ran_is_reported(home: Path) -> None:
    async with serving(home, tick=60.0) as server:
        box = await server.new(idle_minutes=5)
        await server.put(box, "a.txt", b"a")
        age(server, box, 6)
    async with serving(home) as again:
        assert (await again.containers.load(box, OWNER)).status == "expired"
        await until(lambda: list((home / "containers" / "places").iterdir()) == [])
        await again.containers.delete(box, OWNER)


async def test_use_keeps_a_container(home: Path) -> None:
    async with serving(home) as server:
        box = await server.new(idle_minutes=5)
        for use in (server.paths(box), server.put(box, "a", b""), server.run(box, "1")):
            age(server, box, 4.9)
            await use
            info = await server.containers.load(box, OWNER)
            assert time.time() - info.last_active_at < 60


async def test_a_running_cell_keeps_its_container(home: Path) -> None:
    async with serving(home) as server:
        box = await server.new(idle_minutes=5)
        await server.run(box, "1")
        running = asyncio.create_task(server.run(box, "import time; time.sleep(1.5); 'done'"))
        await asyncio.sleep(0.3)
        age(server, box, 10)
        assert (await running).result == "'done'"


async def test_idle_interpreters_give_way_and_their_files_stay(home: Path) -> None:
    async with serving(home, most_live=1, idle_grace=0.2) as server:
        first, second = await server.new(), await server.new("bob")
        await server.run(first, "x = 1; open('a.txt', 'w').write('a')")
        assert (await server.run(second, "2", owner="bob")).result == "2"
        assert server.containers.pool.live == 1
        back = await server.run(first, "print(open('a.txt').read()); x")
        assert (back.text, back.end.fresh) == ("a\n", True)
        assert "NameError" in back.end.error


async def test_who_waits_as_long_as_a_call_does_gets_an_idle_place(home: Path) -> None:
    within = Settings().answer_within * 0.4  # what is left to a tool, as seen over HTTP
    async with serving(home, most_live=1) as server:
        first, second = await server.new(), await server.new("bob")
        assert (await server.run(first, "1")).result == "1"
        assert (await server.run(second, "2", owner="bob", within=within)).result == "2"


async def test_a_busy_machine_says_so(home: Path) -> None:
    async with serving(home, most_live=1, idle_grace=0.0) as server:
        first, second = await server.new(), await server.new("bob")
        await server.run(first, "import time")
        running = asyncio.create_task(server.run(first, "time.sleep(4); 'done'"))
        await asyncio.sleep(0.3)
        with pytest.raises(ToolError, match="busy"):
            await server.run(second, "1", owner="bob", within=0.5)
        assert (await server.run(second, "1", owner="bob")).result == "1"
        assert (await running).result == "'done'"


async def test_a_warm_interpreter_takes_a_containers_files_over(home: Path) -> None:
    async with serving(home, warm=1, most_live=4) as server:
        box, empty = await server.new(), await server.new()
        await server.put(box, "data.csv", b"1,2")
        await until(lambda: server.containers.pool.warm == 1)
        cell = await server.run(box, "open('left.txt', 'w').write(open('data.csv').read())")
        assert (cell.end.status, cell.end.fresh, cell.left) == ("ok", False, ["left.txt"])
        assert await server.read(box, "left.txt") == b"1,2"
        await server.put(box, "data.csv", b"3,4")
        changed = "open('data.csv', 'a').write('!'); open('/mnt/data/data.csv').read()"
        assert "3,4" in (await server.run(box, changed)).result
        await until(lambda: server.containers.pool.warm == 1)
        assert (await server.run(empty, "import os; os.listdir('.')")).result == "[]"
        # Two containers' and a warm one's.
        await until(lambda: server.containers.pool.warm == 1)
        assert len(list((home / "containers" / "places").iterdir())) == 3
    async with serving(home) as again:
        assert await again.paths(box) == ["data.csv", "left.txt"]
        assert (await again.run(box, "open('data.csv').read()")).end.fresh


async def test_files_from_an_earlier_interpreter_move_to_a_warm_one(home: Path) -> None:
    async with serving(home, warm=1, most_live=4) as server:
        box = await server.new()
        await until(lambda: server.containers.pool.warm == 1)
        make = "import os; os.makedirs('a/b'); open('a/b/c', 'w').write('c'); os.chmod('a', 0o500)"
        await server.run(box, make)
        assert (await server.run(box, "os._exit(1)")).end.status == "died"
        await until(lambda: server.containers.pool.warm == 1)
        code = "import os; os.chmod('a', 448); open('a/b/c', 'a').write('d'); open('a/b/c').read()"
        cell = await server.run(box, code)
        assert (cell.result, cell.end.fresh) == ("'cd'", True), cell.end
        assert cell.left == ["a/b/c"]
