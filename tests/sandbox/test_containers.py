"""Containers with real interpreters: files, cells, what is kept between them, and who sees what."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from containers_kit import OWNER, Server, below, chunks, mode_or_skip, new_home, serving, until

from ouzel.core.errors import (
    Conflict,
    NotFound,
    RequestError,
    TooLarge,
    ToolError,
    TooManyRequests,
)
from ouzel.core.files import CellText, ContainerSpec
from ouzel.core.items import new_id


@pytest.fixture
def home() -> Iterator[Path]:
    home = new_home()
    yield home
    shutil.rmtree(home)


@pytest.fixture(params=["bubblewrap", "landlock"])
async def server(home: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with serving(home, mode=mode_or_skip(request.param)) as server:
        yield server


async def test_variables_and_files_stay_between_cells(server: Server) -> None:
    box = await server.new()
    file = await server.put(box, "data.csv", b"a,b\n", b"1,2\n")
    assert (file.path, file.size, file.source, file.media_type) == (
        "data.csv", 8, "user", "text/csv",
    )  # fmt: skip
    first = await server.run(box, "x = open('data.csv').read()\nprint(len(x))")
    assert (first.text, first.end.status, first.end.fresh, first.left) == ("8\n", "ok", False, [])
    second = await server.run(box, "open('out.txt', 'w').write(x)\nx.upper()")
    assert (second.result, second.end.fresh) == ("'A,B\\n1,2\\n'", False)
    assert second.left == ["out.txt"]
    (left,) = second.end.files
    assert left.source == "assistant"
    assert await server.paths(box) == ["data.csv", "out.txt"]
    found, content = await server.containers.open(box, OWNER, left.id)
    assert found.id == left.id
    assert await content.read(0, 100) == b"a,b\n1,2\n"
    content.close()
    third = await server.run(box, "import os; os.makedirs('a/b'); open('a/b/c', 'w').close()")
    assert third.left == ["a/b/c"]


async def test_errors_come_back_and_the_interpreter_stays(server: Server) -> None:
    box = await server.new()
    await server.run(box, "kept = 7")
    failed = await server.run(box, "open('half.txt', 'w').write('h')\n1 / 0")
    assert failed.end.status == "error"
    assert "ZeroDivisionError" in failed.end.error
    assert "1 / 0" in failed.end.traceback
    assert failed.left == ["half.txt"]
    assert (await server.run(box, "kept")).result == "7"


async def test_a_cell_that_takes_too_long_is_interrupted(server: Server) -> None:
    box = await server.new()
    await server.run(box, "kept = 7")
    cell = await server.run(box, "while True: pass", within=1.0)
    assert cell.end.status == "interrupted"
    again = await server.run(box, "kept")
    assert (again.result, again.end.fresh) == ("7", False)


async def test_pictures_are_files_too(server: Server) -> None:
    box = await server.new()
    await server.put(box, "figure-2.png", b"a client's own")
    code = "import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.plot([n])\n    plt.show()"
    cell = await server.run(box, code)
    assert cell.end.status == "ok", cell.end
    assert [each.file.path for each in cell.pictures] == ["figure-1.png", "figure-3.png"]
    assert cell.left == ["figure-1.png", "figure-3.png"]
    assert await server.read(box, "figure-1.png") == cell.pictures[0].data
    assert cell.pictures[0].data.startswith(b"\x89PNG")
    assert cell.pictures[0].file.media_type == "image/png"


async def test_a_dead_interpreter_is_replaced_and_said_to_be_new(server: Server) -> None:
    box = await server.new()
    await server.run(box, "x = 1; open('kept.txt', 'w').write('kept')")
    dead = await server.run(box, "import os; os._exit(1)")
    assert dead.end.status == "died"
    again = await server.run(box, "print(open('kept.txt').read()); x")
    assert again.text == "kept\n"
    assert "NameError" in again.end.error
    assert again.end.fresh
    assert not (await server.run(box, "1")).end.fresh


async def test_cells_of_one_container_run_one_after_another(server: Server) -> None:
    box = await server.new()
    await server.run(box, "log = []")
    code = "import time\nlog.append('in {n}'); time.sleep(0.2); log.append('out {n}')"
    cells = [server.run(box, code.format(n=n)) for n in range(3)]
    await asyncio.gather(*cells)
    log = (await server.run(box, "print(*log, sep=',')")).text.strip().split(",")
    assert log == [f"{word} {n}" for n in range(3) for word in ("in", "out")]
    running = asyncio.create_task(server.run(box, "time.sleep(3)"))
    await asyncio.sleep(0.2)
    with pytest.raises(ToolError, match="still running"):
        await server.run(box, "1", within=0.2)
    await running


async def test_closing_a_cell_interrupts_it(server: Server) -> None:
    box = await server.new()
    code = "kept = 7\nprint('on', flush=True)\nwhile True: pass"
    async with aclosing(server.containers.run(box, OWNER, code, 60.0)) as events:
        async for event in events:
            if isinstance(event, CellText) and "on" in event.text:
                break
    again = await server.run(box, "kept")
    assert (again.result, again.end.fresh) == ("7", False)
    task = asyncio.create_task(server.run(box, "kept = 8\nwhile True: pass"))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await server.run(box, "kept")).result == "8"


async def test_files_that_come_while_a_cell_runs_are_the_clients(server: Server) -> None:
    box = await server.new()
    running = asyncio.create_task(server.run(box, "import time; time.sleep(1); open('m', 'w')"))
    await asyncio.sleep(0.5)
    await server.put(box, "late.txt", b"late")
    assert (await running).left == ["m"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "a\0", "x" * 4096, ".profile"])
async def test_impossible_names_are_refused(server: Server, name: str) -> None:
    box = await server.new()
    with pytest.raises(RequestError) as refused:
        await server.put(box, name, b"x")
    assert refused.value.param == "name"
    assert await server.paths(box) == []


async def test_half_a_file_never_shows(home: Path) -> None:
    async with serving(home, disk_mb=1) as server:
        box = await server.new()
        await server.put(box, "a.txt", b"old")
        with pytest.raises(TooLarge):
            await server.put(box, "a.txt", *[b"x" * 2**19] * 4)

        async def broken() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionError("the client went away")

        with pytest.raises(ConnectionError):
            await server.containers.put(box, OWNER, "b.txt", broken())
        assert await server.read(box, "a.txt") == b"old"
        assert await server.paths(box) == ["a.txt"]
        assert list((home / "containers" / "incoming").iterdir()) == []
        await server.put(box, "a.txt", b"x" * (2**20 - 8192))
        await server.put(box, "a.txt", b"y" * (2**20 - 8192))
        with pytest.raises(TooLarge):
            await server.put(box, "b.txt", b"x" * 2**14)


async def test_files_are_copied_in_by_name(server: Server) -> None:
    server.files.add(OWNER, "file-1", "data.csv", b"1")
    server.files.add(OWNER, "file-2", "data.csv", b"2")
    server.files.add(OWNER, "file-3", "../../etc/passwd", b"3")
    server.files.add("bob", "file-4", "bobs.csv", b"4")
    box = await server.new(file_ids=("file-1", "file-2", "file-3", "file-1"))
    files = await server.containers.files(box, OWNER)
    assert sorted(each.path for each in files) == sorted(
        ["data.csv", "data-2.csv", "_.._.._etc_passwd"]
    )
    assert {each.source for each in files} == {"user"}
    assert (await server.run(box, "open('data-2.csv').read()")).result == "'2'"
    for missing in ("file-4", "file-5"):
        with pytest.raises(NotFound) as refused:
            await server.new(file_ids=("file-1", missing))
        assert refused.value.param == "file_ids"
    assert len((await server.containers.page(OWNER))[0]) == 1


async def test_owners_do_not_see_each_others(server: Server) -> None:
    box = await server.new()
    file = await server.put(box, "a.txt", b"a")
    containers = server.containers
    for owner, container in (("bob", box), (OWNER, new_id("cntr")), (OWNER, "../../etc")):
        with pytest.raises(NotFound):
            await containers.load(container, owner)
        with pytest.raises(NotFound):
            await containers.files(container, owner)
        with pytest.raises(NotFound):
            await containers.open(container, owner, file.id)
        with pytest.raises(NotFound):
            await containers.put(container, owner, "b", chunks(b""))
        with pytest.raises(NotFound):
            await containers.delete_file(container, owner, file.id)
        with pytest.raises(NotFound):
            await server.run(container, "1", owner=owner)
        with pytest.raises(NotFound):
            await containers.delete(container, owner)
    assert (await containers.page("bob"))[0] == []
    other = await server.new()
    with pytest.raises(NotFound):
        await containers.open(other, OWNER, file.id)


async def test_containers_do_not_see_each_other(server: Server, home: Path) -> None:
    mine, second, bobs = await server.new(), await server.new(), await server.new("bob")
    secret = "a-secret-of-mine"
    before = below()
    await server.run(mine, f"open('{secret}', 'w').write('{secret}')\nname = '{secret}'")
    pids = [each.pid for each in below() if each not in before]
    assert pids
    look = (
        "import os\n"
        "found = []\n"
        f"for top in ('/', '/mnt', '/tmp', '{home}'):\n"
        "    for where, folders, files in os.walk(top):\n"
        "        folders[:] = [f for f in folders if f not in ('proc', 'sys', 'usr', 'lib')]\n"
        "        found += [f for f in files if 'a-secret-' in f]\n"
        f"for pid in {pids} + list(range(1, 300)):\n"
        "    for below in ('cwd', 'root/mnt/data', 'root' + os.getcwd()):\n"
        f"        path = f'/proc/{{pid}}/{{below}}/{secret}'\n"
        "        found += [path] * os.path.exists(path)\n"
        "print([f for f in found if 'a-secret-' in f])"
    )
    for box, owner in ((second, OWNER), (bobs, "bob")):
        cell = await server.run(box, look, owner=owner)
        assert cell.text == "[]\n", cell.end
    kill = (
        "import os\n"
        f"for pid in {pids}:\n"
        "    if pid in (os.getpid(), os.getppid()): continue\n"
        "    try: os.kill(pid, 9); print('killed', pid)\n"
        "    except OSError: pass\n"
    )
    await server.run(bobs, kill, owner="bob", within=20)
    assert (await server.run(mine, "name")).result == f"'{secret}'"


async def test_deleting_in_mid_cell_ends_it(server: Server, home: Path) -> None:
    box = await server.new()
    await server.put(box, "a.txt", b"a")
    running = asyncio.create_task(server.run(box, "import time; time.sleep(60)"))
    waiting = asyncio.create_task(server.run(box, "1"))
    await until(lambda: server.containers.pool.live == 1)
    await asyncio.sleep(0.3)
    await server.containers.delete(box, OWNER)
    assert (await running).end.status == "died"
    with pytest.raises(NotFound):
        await waiting
    with pytest.raises(NotFound):
        await server.containers.delete(box, OWNER)
    assert server.containers.pool.live == 0
    assert list((home / "containers" / "places").iterdir()) == []
    assert list((home / "containers" / "containers").iterdir()) == []


async def test_removed_files_are_gone(server: Server) -> None:
    box = await server.new()
    file = await server.put(box, "a.txt", b"a")
    _, content = await server.containers.open(box, OWNER, file.id)
    await server.containers.delete_file(box, OWNER, file.id)
    assert await content.read(0, 10) == b"a"
    content.close()
    with pytest.raises(NotFound):
        await server.containers.delete_file(box, OWNER, file.id)
    with pytest.raises(NotFound):
        await server.containers.open(box, OWNER, file.id)
    await server.run(box, "open('a.txt', 'w').close()")
    assert (await server.containers.files(box, OWNER))[0].source == "assistant"


async def test_more_memory_than_allowed_is_refused(server: Server) -> None:
    with pytest.raises(RequestError) as refused:
        await server.new(memory="4g")
    assert refused.value.param == "memory_limit"


async def test_pages_and_reserved_ids(server: Server) -> None:
    containers, reserved = server.containers, new_id("cntr")
    assert (await containers.create(OWNER, ContainerSpec(name="n"), reserved)).id == reserved
    with pytest.raises(Conflict):
        await containers.create(OWNER, ContainerSpec(), reserved)
    with pytest.raises(RequestError):
        await containers.create(OWNER, ContainerSpec(), "../../etc")
    ids = [reserved, *[await server.new() for _ in range(3)]]
    found, more = await containers.page(OWNER, limit=2)
    assert ([each.id for each in found], more) == (ids[:1:-1], True)
    found, more = await containers.page(OWNER, after=ids[2], limit=5)
    assert ([each.id for each in found], more) == ([ids[1], ids[0]], False)
    found, _ = await containers.page(OWNER, name="n", order="asc")
    assert [each.id for each in found] == [reserved]
    with pytest.raises(NotFound):
        await containers.page("bob", after=reserved)


async def test_one_owner_has_so_many_containers_and_no_more(home: Path) -> None:
    async with serving(home, most_of_owner=2, warm=0) as server:
        first = await server.new()
        await server.new()
        with pytest.raises(TooManyRequests, match="2 containers"):
            await server.new()
        await server.new(owner="somebody-else")
        await server.containers.delete(first, OWNER)
        await server.new()
