"""What the tests of containers share: a small files' room, and collecting what cells say."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ouzel.core.errors import NotFound
from ouzel.core.files import (
    CellDone,
    CellEvent,
    CellPicture,
    CellText,
    ContainerFile,
    ContainerSpec,
    Content,
)
from ouzel.sandbox.container_settings import ContainerSettings
from ouzel.sandbox.containers import SandboxContainers
from ouzel.sandbox.environment import Interpreter, ensure_interpreter
from ouzel.sandbox.jail import Mode, SandboxUnavailable, find_jail


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    """These pieces, as a client sends them."""
    for piece in pieces:
        yield piece


class FilesOnDisk:
    """The one method of `Files` that containers use, over a folder: <owner>/<file_id>/<name>."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, owner: str, file_id: str, name: str, data: bytes) -> None:
        folder = self._folder / owner / file_id
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(data)
        (folder / "name").write_bytes(name.encode(errors="surrogateescape"))

    async def open(self, file_id: str, owner: str) -> Content:
        folder = self._folder / owner / file_id
        if not folder.is_dir():
            raise NotFound(f"No file with the id '{file_id}' was found.", param="file_id")
        descriptor = os.open(folder / "data", os.O_RDONLY)
        name = (folder / "name").read_bytes().decode(errors="surrogateescape")
        return Content(descriptor, os.fstat(descriptor).st_size, "text/plain", name)


class Cell:
    """What a cell said."""

    def __init__(self) -> None:
        self.text = ""
        self.result = ""
        self.pictures: list[CellPicture] = []
        self.done: CellDone | None = None

    @property
    def end(self) -> CellDone:
        assert self.done is not None
        return self.done

    @property
    def left(self) -> list[str]:
        return sorted(file.path for file in self.end.files)


async def collect(events: AsyncIterable[CellEvent]) -> Cell:
    """Run a cell to its end; there is exactly one end, and nothing after it."""
    cell = Cell()
    async for event in events:
        assert cell.done is None
        if isinstance(event, CellText) and event.stream == "result":
            cell.result += event.text
        elif isinstance(event, CellText):
            cell.text += event.text
        elif isinstance(event, CellPicture):
            cell.pictures.append(event)
        else:
            cell.done = event
    assert cell.done is not None
    return cell


OWNER = "alice"


def interpreter() -> Interpreter:
    """The interpreter's environment, made if it is missing."""
    return ensure_interpreter(Path.home() / ".cache" / "ouzel")


def new_home() -> Path:
    """A home of its own that every user may walk to, as sandboxes of other users must.

    pytest's own folders are closed to them.
    """
    home = Path(tempfile.mkdtemp(prefix="ouzel-test-"))
    home.chmod(0o711)
    return home


def mode_or_skip(mode: Mode) -> Mode:
    """This mode if code can be kept in that way here, by this user."""
    home = new_home()
    try:
        find_jail(home, prefer=mode)
    except SandboxUnavailable as error:
        pytest.skip(error.message)
    finally:
        shutil.rmtree(home)
    return mode


class Server:
    """Containers over a home, and the files' room that they take files from."""

    def __init__(self, home: Path, *, mode: Mode | None = None, **settings: Any) -> None:
        scratch = home / "scratch"
        scratch.mkdir(exist_ok=True)
        settings = {"warm": 0, "tick": 0.2, "disk_floor_mb": 1, **settings}
        self.files = FilesOnDisk(home / "files")
        self.containers = SandboxContainers(
            home / "containers",
            find_jail(scratch, prefer=mode),
            interpreter(),
            self.files,  # type: ignore[arg-type]  # containers open files and do nothing else
            ContainerSettings(**settings),
        )

    async def new(self, owner: str = OWNER, **spec: Any) -> str:
        return (await self.containers.create(owner, ContainerSpec(**spec))).id

    async def run(
        self, container: str, code: str, *, owner: str = OWNER, within: float = 60.0
    ) -> Cell:
        async with aclosing(self.containers.run(container, owner, code, within)) as events:
            return await collect(events)

    async def put(self, container: str, name: str, *pieces: bytes) -> ContainerFile:
        return await self.containers.put(container, OWNER, name, chunks(*pieces))

    async def paths(self, container: str, owner: str = OWNER) -> list[str]:
        return sorted(file.path for file in await self.containers.files(container, owner))

    async def read(self, container: str, path: str) -> bytes:
        files = {file.path: file for file in await self.containers.files(container, OWNER)}
        _, content = await self.containers.open(container, OWNER, files[path].id)
        try:
            return await content.read(0, content.size)
        finally:
            content.close()


@asynccontextmanager
async def serving(
    home: Path, *, mode: Mode | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """A server from start to close, after which nothing may be left running."""
    before = below()
    server = Server(home, mode=mode, **settings)
    await server.containers.start()
    try:
        yield server
    finally:
        await server.containers.close()
        assert [each for each in below() if each not in before] == []


def below(pid: int | None = None) -> list[psutil.Process]:
    """Processes that this one (ours, if none is named) has started, and theirs; dead ones not."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [each for each in found if lives(each)]


def lives(process: psutil.Process) -> bool:
    """Whether it is there and more than an entry in a table."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Wait for it."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)
