"""A copy that is made while others write is whole, and a server can start on it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from store_samples import OWNER, deltas, finished, new_run

from ouzel.core.errors import NotFound, StoreError
from ouzel.store import SqlFiles, SqlStore, backup, open_files, open_store
from ouzel.store.backup import BackedUp, back_up
from ouzel.store.blobs import Blobs
from ouzel.store.sqlite import SqliteFile


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: SqlStore = open_store(folder / "ouzel.db")
        self.files: SqlFiles = open_files(self.store, folder / "files")

    async def close(self) -> None:
        await self.files.close()
        await self.store.close()

    async def add_file(self, data: bytes) -> str:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        return (await self.files.create(OWNER, "a.bin", "user_data", chunks())).id

    def copy(self, to: Path, seen: list[str] | None = None) -> BackedUp:
        to.mkdir()
        file = SqliteFile(self.folder / "ouzel.db")
        file.make()
        blobs, copies = Blobs(self.folder / "files", 0), Blobs(to / "files", 0)
        told = [] if seen is None else seen
        return back_up(file, blobs, to / "ouzel.db", copies, lambda text, *_: told.append(text))


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    await made.close()


async def check(folder: Path) -> int:
    """Open the copy as a server does, and read all of it. Returns how many runs there are."""
    assert stat.S_IMODE((folder / "ouzel.db").stat().st_mode) == 0o600
    assert not (folder / "ouzel.db-wal").exists()
    with closing(sqlite3.connect(folder / "ouzel.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        runs = [row[0] for row in connection.execute("SELECT id FROM runs")]
        files = connection.execute("SELECT id, size FROM files").fetchall()
    restored = Home(folder)
    assert await restored.files.sweep() == 0
    for run_id in runs:
        run = await restored.store.load(run_id, OWNER)
        events = await restored.store.events(run_id, OWNER)
        assert len(events) % 4 == 0
        if run.status == "completed":
            assert len(events) == 12
    for file_id, size in files:
        content = await restored.files.open(file_id, OWNER)
        assert await content.read(0, size + 1) == file_id_bytes(size)
        content.close()
    kept = {each.name for each in (folder / "files" / "kept").rglob("*") if each.is_file()}
    assert kept == {file_id for file_id, _ in files}
    await restored.close()
    return len(runs)


def file_id_bytes(size: int) -> bytes:
    return bytes(number % 251 for number in range(size))


async def write_on(home: Home, begun: list[str]) -> None:
    while True:
        run = new_run()
        await home.store.begin(run)
        begun.append(run.id)
        for position in (0, 4):
            await home.store.append(run.id, position, deltas(4, position))
        await home.store.finish(finished(run), 8, deltas(4, 8))


async def keep_and_drop(home: Home) -> None:
    number = 0
    while True:
        number += 1
        file_id = await home.add_file(file_id_bytes(1000 + number))
        if number % 2:
            with suppress(NotFound):
                await home.files.delete(file_id, OWNER)


async def test_a_copy_is_whole_while_others_write(home: Home, tmp_path: Path) -> None:
    begun: list[str] = []
    for size in range(40):
        await home.add_file(file_id_bytes(size))
    writers = [asyncio.create_task(write_on(home, begun)) for _ in range(4)]
    writers += [asyncio.create_task(keep_and_drop(home)) for _ in range(2)]
    try:
        for number in range(3):
            while len(begun) < 50 * (number + 1):
                await asyncio.sleep(0)
            before = list(begun)
            folder = tmp_path / f"copy{number}"
            done = await asyncio.to_thread(home.copy, folder)
            assert done.lost == 0
            assert done.files >= 40
            with closing(sqlite3.connect(folder / "ouzel.db")) as connection:
                copied = {row[0] for row in connection.execute("SELECT id FROM runs")}
            assert set(before) <= copied, "what was acknowledged before is in it"
    finally:
        for each in writers:
            each.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    assert not any(each.exception() for each in writers if not each.cancelled())
    for number in range(3):
        assert await check(tmp_path / f"copy{number}") >= 50


async def test_writes_in_the_middle_do_not_make_it_begin_again(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAGES_AT_ONCE", 1)
    await home.store.begin(new_run("x" * 400_000))
    (tmp_path / "copy").mkdir()
    file = SqliteFile(home.folder / "ouzel.db")
    file.make()
    told: list[int] = []
    with closing(sqlite3.connect(home.folder / "ouzel.db", isolation_level=None)) as other:

        def meanwhile(text: str, done: int, total: int) -> None:
            if text == "the database":
                told.append(done)
                assert len(told) < 1000, "it begins again and again"
                other.execute("UPDATE runs SET model = model || '!'")

        copies = Blobs(tmp_path / "copy" / "files", 0)
        back_up(
            file, Blobs(home.folder / "files", 0), tmp_path / "copy" / "ouzel.db", copies, meanwhile
        )
    assert len(told) > 90
    assert told == sorted(told)


async def test_what_is_deleted_meanwhile_is_deleted_in_it(home: Home, tmp_path: Path) -> None:
    ids = [await home.add_file(file_id_bytes(100)) for _ in range(3)]
    lost = next((home.folder / "files").rglob(ids[1]))
    loop = asyncio.get_running_loop()

    class Seen(list[str]):
        def append(self, text: str) -> None:
            super().append(text)
            if len(self) == 1:
                gone = asyncio.run_coroutine_threadsafe(home.files.delete(ids[0], OWNER), loop)
                gone.result(30)
                lost.unlink()

    done = await asyncio.to_thread(home.copy, tmp_path / "copy", Seen())
    assert (done.files, done.deleted, done.lost) == (1, 1, 1)
    await check(tmp_path / "copy")


async def test_a_damaged_database_is_told(home: Home, tmp_path: Path) -> None:
    for _ in range(50):
        await home.store.begin(new_run("x" * 5000))
    await home.close()
    path = home.folder / "ouzel.db"
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(os.urandom(20_000))
    with pytest.raises(StoreError, match="damaged"):
        home.copy(tmp_path / "copy")


async def test_a_full_disk_is_told(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await home.add_file(b"x")
    (tmp_path / "copy").mkdir()
    file = SqliteFile(home.folder / "ouzel.db")
    file.make()
    copies = Blobs(tmp_path / "copy" / "files", 2**62)
    with pytest.raises(StoreError, match="disk is full"):
        back_up(
            file,
            Blobs(home.folder / "files", 0),
            tmp_path / "copy" / "ouzel.db",
            copies,
            lambda *_: None,
        )
