"""Code that sets traps in its work folder: nothing of the host's comes out through the files."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from containers_kit import OWNER, Server, new_home, serving

from ouzel.core.errors import NotFound, TooLarge, ToolError
from ouzel.core.files import ContainerSpec
from ouzel.sandbox.container_settings import ContainerSettings


@pytest.fixture
def home() -> Iterator[Path]:
    home = new_home()
    yield home
    shutil.rmtree(home)


@pytest.fixture
async def server(home: Path) -> AsyncIterator[Server]:
    async with serving(home) as server:
        yield server


async def test_links_pipes_and_odd_names_are_not_shown(server: Server) -> None:
    box = await server.new()
    code = r"""
import os, socket
os.symlink('/etc/passwd', 'passwd.txt')
os.symlink('..', 'up')
os.symlink('/', 'root')
os.symlink('nowhere', 'nowhere.txt')
os.mkfifo('pipe.txt')
socket.socket(socket.AF_UNIX).bind('socket.txt')
open('real.txt', 'w').write('real')
os.link('real.txt', 'hard.txt')
for name in (b'\xff\xfe', b'new\nline', b'.hidden', b'esc\x1b[2J'):
    open(name, 'w').close()
open('n' * 255, 'w').write('long')
os.makedirs('__pycache__'); open('__pycache__/x.pyc', 'w').close()
"""
    cell = await server.run(box, code)
    assert cell.end.status == "ok", cell.end
    assert cell.left == ["n" * 255]
    assert await server.paths(box) == ["n" * 255]
    assert await server.read(box, "n" * 255) == b"long"


async def test_a_file_that_becomes_a_link_is_not_opened(server: Server) -> None:
    box = await server.new()
    cell = await server.run(box, "open('a.txt', 'w').write('a')")
    (file,) = cell.end.files
    for target in ("/etc/passwd", "/proc/self/environ", "../../lock"):
        await server.run(box, f"import os; os.unlink('a.txt'); os.symlink({target!r}, 'a.txt')")
        with pytest.raises(NotFound):
            await server.containers.open(box, OWNER, file.id)
        with pytest.raises(NotFound):
            await server.containers.delete_file(box, OWNER, file.id)
    found = await server.put(box, "a.txt", b"mine")
    assert found.id == file.id
    assert await server.read(box, "a.txt") == b"mine"


async def test_putting_over_traps_replaces_them(server: Server, home: Path) -> None:
    outside = home / "outside.txt"
    outside.write_text("outside")
    outside.chmod(0o666)
    box = await server.new()
    await server.run(box, f"import os; os.symlink({str(outside)!r}, 'a.txt'); os.mkfifo('b.txt')")
    for name in ("a.txt", "b.txt"):
        await server.put(box, name, b"mine")
        assert await server.read(box, name) == b"mine"
    assert outside.read_text() == "outside"


async def test_many_files_and_deep_folders_hold_nobody_up(server: Server) -> None:
    box, other = await server.new(), await server.new("bob")
    await server.put(box, "data.csv", b"1,2")
    many = "for n in range(9_000): open(f'f{n}', 'w').close()"
    cell = await server.run(box, many)
    assert cell.end.status == "ok"
    assert len(cell.end.files) == 100
    assert len(await server.paths(box)) == 9_001
    deep = """
import asyncio
import os
for n in range(9_000): os.unlink(f'f{n}')
for n in range(3_000):
    os.mkdir('d'); os.chdir('d')
"""
    await server.run(box, deep)
    await server.run(box, "import os; os._exit(1)")
    # Whatever became of the nest, the container works, and so do others'.
    again = await server.run(box, "open('/mnt/data/data.csv').read()")
    assert again.result == "'1,2'", again.end
    assert (await server.run(other, "2", owner="bob")).result == "2"
    await server.containers.delete(box, OWNER)


async def test_a_full_container_keeps_to_its_size(home: Path) -> None:
    async with serving(home, disk_mb=8) as server:
        box = await server.new()
        await server.put(box, "data.csv", b"1,2")
        fill = "for n in range(200): open(f'f{n}', 'wb').write(bytes(2**20))"
        cell = await server.run(box, fill)
        assert cell.end.status in ("died", "error"), cell.end
        files = await server.containers.files(box, OWNER)
        assert sum(each.size for each in files) <= 8 * 2**20
        assert "data.csv" in [each.path for each in files]
        assert (await server.run(box, "open('data.csv').read()")).result == "'1,2'"


async def test_a_disk_that_others_filled_costs_no_interpreter(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(home) as server:
        box = await server.new()
        assert (await server.run(box, "kept = 1")).end.status == "ok"
        with monkeypatch.context() as patch:
            limits = replace(ContainerSettings(warm=0).cell_limits(2**30), disk_floor=1 << 60)
            patch.setattr(ContainerSettings, "cell_limits", lambda *_: limits)
            with pytest.raises(ToolError, match="too little free space"):
                await server.run(box, "kept = 2")
        assert (await server.run(box, "kept")).result == "1"


async def test_files_that_come_at_once_do_not_overfill_a_container(home: Path) -> None:
    async with serving(home, disk_mb=8) as server:
        box = await server.new()
        three = 3 * 2**20
        puts = [server.put(box, f"f{n}", bytes(three)) for n in range(4)]
        done = await asyncio.gather(*puts, return_exceptions=True)
        refused = [each for each in done if isinstance(each, BaseException)]
        assert [(type(each), each.code) for each in refused] == [(TooLarge, "container_full")] * 2
        assert len(await server.paths(box)) == 2
        assert list((home / "containers" / "incoming").iterdir()) == []
        cell = await server.run(box, "import time; time.sleep(0.5); 1")
        assert (cell.end.status, cell.result) == ("ok", "1")


async def test_a_container_made_while_its_namesake_is_removed_stays_whole(home: Path) -> None:
    async with serving(home, tick=3600.0) as server:
        box = await server.new()
        assert (await server.run(box, "1")).result == "1"
        going = asyncio.create_task(server.containers.delete(box, OWNER))
        await asyncio.sleep(0)
        await server.containers.create(OWNER, ContainerSpec(), box)
        await going
        assert (home / "containers" / "containers" / box / "meta.json").exists()
        assert (await server.run(box, "2")).result == "2"


async def test_what_a_killed_server_left_is_brought_into_bounds(home: Path) -> None:
    async with serving(home, disk_mb=8) as server:
        box = await server.new()
        await server.put(box, "data.csv", b"1,2")
        (place,) = (home / "containers" / "places").iterdir()
    nest(place / "work", 4_000)
    async with serving(home, disk_mb=8) as server:
        assert "data.csv" in await server.paths(box)
        assert (await server.run(box, "open('data.csv').read()")).result == "'1,2'"
        await server.containers.delete(box, OWNER)


def nest(start: Path, depth: int) -> None:
    """Folders so deep that no path reaches the innermost."""
    here = os.open(start, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
